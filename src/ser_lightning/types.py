"""Types that all parts share: utterance, split, batch, and what a system sees of a data module."""
# Shapes: B utterances, T frames (padded), F features a frame, C classes.

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Protocol, Self

from torch import Tensor
from torch.utils.data import DataLoader

Stage = Literal["train", "validation", "test"]
STAGES: tuple[Stage, ...] = ("train", "validation", "test")

TargetKind = Literal["hard", "soft", "existence"]
"""What an utterance teaches: its one class, a distribution over classes, or the existence of each."""

_SYNTHETIC = "-synthetic"


def corpus_name(corpus: str, synthetic: bool) -> str:
    """Return what run folders and checkpoints call a corpus: ``ravdess``, or ``ravdess-synthetic`` of a made one."""
    return f"{corpus}{_SYNTHETIC}" if synthetic else corpus


def split_corpus_name(name: str) -> tuple[str, bool]:
    """Return the corpus that ``corpus_name`` names, and whether it is a made one."""
    return name.removesuffix(_SYNTHETIC), name.endswith(_SYNTHETIC)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled recording of one speaker.

    Attributes:
        name: Unique within the corpus; the file name without folder and ending.
        path: The audio file.
        speaker: The speaker's identity within the corpus.
        label: Dominant emotion, as a class name; None where evaluators agree on none of the classes.
        gender: As the corpus states it.
        session: The recording session that several speakers share, where a corpus has sessions.
        level: Intensity, in the corpus's own words.
        votes: Each evaluator's labels, one or several, as class names; also such as are no class of the experiment.
            Empty for corpora whose labels are what the actor was asked to play.
    """

    name: str
    path: Path
    speaker: str
    label: str | None
    gender: Literal["female", "male"] | None = None
    session: str | None = None
    level: str | None = None
    votes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """The utterances of one fold, each set ordered by utterance name.

    Attributes:
        fold: Index of the fold, counted from 0.
        train: Utterances to learn from.
        validation: Utterances to choose the checkpoint by.
        test: Utterances to score.
    """

    fold: int
    train: tuple[Utterance, ...]
    validation: tuple[Utterance, ...]
    test: tuple[Utterance, ...]

    def of(self, stage: Stage) -> tuple[Utterance, ...]:
        """Return the utterances of ``stage``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[stage]

    def speakers(self, stage: Stage) -> tuple[str, ...]:
        """Return the sorted speakers of ``stage``."""
        return tuple(sorted({utterance.speaker for utterance in self.of(stage)}))

    @property
    def labelled(self) -> "Split":
        """The same fold without utterances that have no label, which nobody can score."""
        train, validation, test = (tuple(u for u in self.of(stage) if u.label is not None) for stage in STAGES)
        return Split(self.fold, train, validation, test)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of every utterance's name, speaker, label, votes and set, with or without label.

        Runs are resumed only under an equal one: all that a system may have learned from counts.
        """
        return hash_splits([self])


def hash_splits(splits: Sequence[Split]) -> str:
    """Return twelve hexadecimal digits for one fold, or over several.

    Paths, file order and the machine do not matter: two runs with equal hashes saw the same utterances under the same
    labels in the same sets.
    """
    content = [
        [split.fold, stage, sorted((u.name, u.speaker, u.label, *u.votes) for u in split.of(stage))]
        for split in sorted(splits, key=lambda split: split.fold)
        for stage in STAGES
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


@dataclass  # not frozen: Lightning's precisions other than float32 convert a batch field by field
class Batch:
    """Utterances padded to a common length.

    Attributes:
        inputs: Frames [B, T, F], zero after each utterance's end.
        lengths: Real frames of each utterance [B].
        labels: Class index of each utterance's dominant emotion [B]: what is scored. -1 where there is none.
        targets: What is learned from [B, C]: a distribution over classes, or the existence of each.
        indices: Position of each utterance in its set [B].
    """

    inputs: Tensor
    lengths: Tensor
    labels: Tensor
    targets: Tensor
    indices: Tensor

    @property
    def size(self) -> int:
        """B, known without asking a device."""
        return self.inputs.shape[0]

    def _map(self, function: str, *args: object, **kwargs: object) -> Self:
        moved = {f.name: getattr(getattr(self, f.name), function)(*args, **kwargs) for f in fields(self)}
        return replace(self, **moved)

    def to(self, *args: object, **kwargs: object) -> Self:
        """Return the batch with every tensor moved, as ``torch.Tensor.to``; Lightning calls this.

        From page-locked memory nothing waits for the copy.
        """
        if self.inputs.is_pinned():
            kwargs.setdefault("non_blocking", True)
        return self._map("to", *args, **kwargs)

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory; torch's DataLoader calls this."""
        return self._map("pin_memory")


class Extractor(Protocol):
    """What makes frames, as a system sees it: a configuration that it keeps in its checkpoint."""

    def configuration(self) -> dict[str, object]:
        """Return class path and arguments as JSON can hold them."""


class Statistics(Protocol):
    """What is fitted on the training split of a fold."""

    @property
    def mean(self) -> Tensor:
        """Mean of each feature over all training frames [F]; computed when it is first asked for."""

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each feature over all training frames [F]; computed when it is first asked for."""

    @property
    def class_prior(self) -> Tensor:
        """Mean target of each class [C]."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Sorted training speakers."""


class FoldData(Protocol):
    """One fold of one corpus, as a system sees its data module."""

    @property
    def corpus_name(self) -> str:
        """The corpus's name, with ``-synthetic`` after it if the folder is a made one."""

    @property
    def extractor(self) -> Extractor:
        """What makes frames of waveforms."""

    @property
    def batches(self) -> str:
        """How training batches are made: ``length`` of similar length, ``class`` of equally many of each class."""

    @property
    def target_kind(self) -> TargetKind:
        """What an utterance teaches."""

    def split(self) -> Split:
        """Return the split of the fold."""

    def training_statistics(self) -> Statistics:
        """Return what is fitted on the training split."""

    def set_utterances(self, name: str) -> Sequence[Utterance]:
        """Return the utterances of a set: ``train``, ``validation``, ``test``, or ``all`` of the corpus."""

    def evaluation_dataloader(self, name: str) -> DataLoader[Batch]:
        """Return a set that is set up, each of its utterances once and whole."""
