"""Shared types: utterance, split, batch, and a data module's interface to systems."""
# Shapes: B utterances, T frames (padded), F features a frame, C classes.

import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Protocol, Self

from torch import Tensor
from torch.utils.data import DataLoader

from ser_lightning.text import identity

Stage = Literal["train", "validation", "test"]
STAGES: tuple[Stage, ...] = ("train", "validation", "test")

TargetKind = Literal["hard", "soft", "existence"]
"""Training target of an utterance: one class, a distribution over classes, or the existence of each class."""

_SYNTHETIC = "-synthetic"
_ROWS_OF_PIECE = 1000


def corpus_name(corpus: str, synthetic: bool) -> str:
    """Return the name of a corpus in run folders and checkpoints, such as ``ravdess`` or ``ravdess-synthetic``."""
    return f"{corpus}{_SYNTHETIC}" if synthetic else corpus


def split_corpus_name(name: str) -> tuple[str, bool]:
    """Return the corpus that ``corpus_name`` names, and whether it is synthetic."""
    return name.removesuffix(_SYNTHETIC), name.endswith(_SYNTHETIC)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled recording of one speaker.

    All text is kept in one spelling (``text.identity``), wherever it comes from, so that one name is one speaker.

    Attributes:
        name: Unique within the corpus; the file name without folder and extension.
        path: The audio file.
        speaker: The speaker's identity within the corpus.
        label: Dominant emotion, as a class name; None if evaluators do not agree on a class.
        gender: As the corpus states it.
        age: In years, as the corpus states it.
        session: The recording session that several speakers share, where a corpus has sessions.
        level: Intensity, in the corpus's own words.
        votes: Each evaluator's labels, one or several, as class names; these may include emotions outside the
            experiment's classes. Empty for corpora labelled with the emotion that the actor was asked to play.
        listed_set: The set that a table lists the utterance in, in the table's words, for ``ListedFolds``.
        columns: Name and cell of a table's further columns, by which reports group utterances.
    """

    name: str
    path: Path
    speaker: str
    label: str | None
    gender: Literal["female", "male"] | None = None
    age: int | None = None
    session: str | None = None
    level: str | None = None
    votes: tuple[tuple[str, ...], ...] = ()
    listed_set: str | None = None
    columns: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Bring all text into one spelling."""
        for field in ("name", "speaker", "label", "session", "level", "listed_set"):
            if (text := getattr(self, field)) is not None:
                text = identity(text)
                # One object for all utterances of a speaker: a table has a string in each row.
                object.__setattr__(self, field, text if field == "name" else sys.intern(text))
        object.__setattr__(self, "votes", tuple(tuple(map(identity, vote)) for vote in self.votes))

    def groups(self) -> dict[str, str]:
        """Return the groups that reports compare: gender and level, where known, and ``columns``."""
        stated = {"gender": self.gender, "level": self.level}
        return {**{name: value for name, value in stated.items() if value}, **dict(self.columns)}


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
        """The same fold without unlabelled utterances, which cannot be scored."""
        if all(u.label is not None for stage in STAGES for u in self.of(stage)):
            return self  # without a copy
        train, validation, test = (tuple(u for u in self.of(stage) if u.label is not None) for stage in STAGES)
        return Split(self.fold, train, validation, test)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of every utterance's name, speaker, label, votes and set, labelled or not.

        A run resumes only if this hash is equal.
        """
        return hash_splits([self])


def hash_splits(splits: Sequence[Split]) -> str:
    """Return twelve hexadecimal digits for one or several folds.

    Runs with equal hashes used the same utterances with the same labels in the same sets. Paths, file order and the
    machine do not matter. It is the digest of a JSON list with fold, set, and rows for each set of each fold.
    """
    digest = hashlib.sha256(b"[")
    separator = ""
    for split, stage in itertools.product(sorted(splits, key=lambda split: split.fold), STAGES):
        digest.update(f"{separator}[{split.fold}, {json.dumps(stage)}, [".encode())
        # In pieces: as one text, ten folds take kilobytes an utterance.
        ordered = sorted(split.of(stage), key=lambda utterance: utterance.name)
        for start in range(0, len(ordered), _ROWS_OF_PIECE):
            piece = ordered[start : start + _ROWS_OF_PIECE]
            rows = json.dumps([(u.name, u.speaker, u.label, *u.votes) for u in piece])[1:-1]
            digest.update(f"{', ' if start else ''}{rows}".encode())
        digest.update(b"]]")
        separator = ", "
    digest.update(b"]")
    return digest.hexdigest()[:12]


@dataclass  # not frozen: Lightning's precisions other than float32 convert a batch field by field
class Batch:
    """Utterances padded to a common length.

    Attributes:
        inputs: Frames [B, T, F], zero after each utterance's end.
        lengths: Real frames of each utterance [B].
        labels: Class index of each utterance's dominant emotion [B], for scoring; -1 if there is none.
        targets: Training targets [B, C]: a distribution over classes, or the existence of each.
        indices: Position of each utterance in its set [B].
    """

    inputs: Tensor
    lengths: Tensor
    labels: Tensor
    targets: Tensor
    indices: Tensor

    @property
    def size(self) -> int:
        """B, known without a device synchronisation."""
        return self.inputs.shape[0]

    def _map(self, function: str, *args: object, **kwargs: object) -> Self:
        moved = {f.name: getattr(getattr(self, f.name), function)(*args, **kwargs) for f in fields(self)}
        return replace(self, **moved)

    def to(self, *args: object, **kwargs: object) -> Self:
        """Return the batch with every tensor moved, as ``torch.Tensor.to``; Lightning calls this.

        Copies from page-locked memory are asynchronous.
        """
        if self.inputs.is_pinned():
            kwargs.setdefault("non_blocking", True)
        return self._map("to", *args, **kwargs)

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory; torch's DataLoader calls this."""
        return self._map("pin_memory")


class Extractor(Protocol):
    """A feature extractor as a system sees it: what its frames hold, and a configuration to store in its checkpoint."""

    @property
    def num_layers(self) -> int:
        """Layers of a network whose frames are side by side in each frame; usually 1."""

    def configuration(self) -> dict[str, object]:
        """Return class path and arguments as JSON-serialisable values."""


class Statistics(Protocol):
    """Statistics of a fold's training split."""

    @property
    def mean(self) -> Tensor:
        """Mean of each feature over all training frames [F]; computed on first use."""

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each feature over all training frames [F]; computed on first use."""

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
        """The corpus's name, followed by ``-synthetic`` if the corpus is synthetic."""

    @property
    def extractor(self) -> Extractor:
        """The feature extractor."""

    @property
    def batches(self) -> str:
        """How training batches are made: ``length``, of similar length, or ``class``, balanced over classes."""

    @property
    def target_kind(self) -> TargetKind:
        """Kind of training target."""

    def split(self) -> Split:
        """Return the split of the fold."""

    def training_statistics(self) -> Statistics:
        """Return statistics of the training split."""

    def set_utterances(self, name: str) -> Sequence[Utterance]:
        """Return the utterances of a set: ``train``, ``validation``, ``test``, or ``all`` of the corpus."""

    def evaluation_dataloader(self, name: str) -> DataLoader[Batch]:
        """Return a loader of a set that is set up: each utterance once, uncropped."""
