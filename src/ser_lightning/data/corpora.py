"""What a corpus is: its data module's interface, where it comes from, and the plug-ins that are installed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from ser_lightning.data.protocols import Protocol
from ser_lightning.errors import CorpusError
from ser_lightning.features import FeatureExtractor, Prepared
from ser_lightning.types import FoldData, Split, Utterance, hash_splits


@dataclass(frozen=True)
class Archive:
    """An archive that anyone may fetch without signing or logging in.

    Attributes:
        url: Where it lies.
        name: What its file is called.
        md5: Digest of its bytes.
        size: About how large it is, and what it holds, in words.
    """

    url: str
    name: str
    md5: str
    size: str


@dataclass(frozen=True)
class CorpusSource:
    """Where a corpus comes from.

    Attributes:
        title: What its readers call it.
        licence: Its licence's name.
        terms: What the licence allows and asks for, in a sentence or two; its own text counts, not this.
        licence_url: Where that text stands.
        home: The corpus's page.
        citation: The paper to cite.
        speech: Who speaks, how and what: what a system that learned from it has heard, and so what it has not.
        name_shape: What every audio file is named like, without ending, where that tells the corpus apart.
        steps: How to come by it by hand, one step after the other; ``{folder}`` stands for where the user wants it.
        archive: What ``ser download`` fetches and unpacks, where that is allowed.
    """

    title: str
    licence: str
    terms: str
    licence_url: str
    home: str
    citation: str
    speech: str
    name_shape: re.Pattern[str] | None = None
    steps: tuple[str, ...] = ()
    archive: Archive | None = None


GROUP = "ser_lightning.corpora"


def find_corpus(name: str) -> Any:
    """Return the module of a corpus, such as ``data_modules.ravdess``.

    Raises:
        CorpusError: If no corpus of that name is installed; it names those that are.
    """
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in installed:
        raise CorpusError(f"'{name}' is no corpus here; there are {', '.join(sorted(installed))}")
    return installed[name].load()


def name_shapes() -> dict[str, re.Pattern[str]]:
    """Return, by module, what audio files of those installed corpora are named like whose names tell them apart."""
    sources = {entry.value: getattr(entry.load(), "SOURCE", None) for entry in entry_points(group=GROUP)}
    return {module: source.name_shape for module, source in sources.items() if source and source.name_shape}


def source_of(name: str) -> CorpusSource | None:
    """Return where a corpus comes from, or None if it is not installed or does not say so."""
    for entry in entry_points(group=GROUP, name=name):
        source: CorpusSource | None = getattr(entry.load(), "SOURCE", None)
        return source
    return None


class CorpusData(FoldData, Interface):
    """One fold of one corpus, as training, scoring and reporting see it.

    Attributes:
        corpus: The corpus's name.
        class_names: The emotions, in the order of the logits.
        extractor: What makes frames of waveforms.
        protocol: How utterances become folds.
        fold: Index of the fold, counted from 0.
        skipped_audio: Reason by file that was found unusable and skipped.
    """

    corpus: str
    class_names: tuple[str, ...]
    extractor: FeatureExtractor
    protocol: Protocol
    fold: int
    skipped_audio: Mapping[Path, str]

    @property
    def left_out(self) -> Mapping[str, str]:
        """Reason by utterance name: faulty files of the release and labels without audio, which are not used."""

    @property
    def all_utterances(self) -> tuple[Utterance, ...]:
        """Every utterance of the folder, also those whose audio turns out unusable."""

    def num_folds(self) -> int:
        """Return how many folds the protocol makes of the corpus."""

    def split(self, fold: int | None = None) -> Split:
        """Return the split of ``fold``, or of the module's own fold."""

    def set_utterances(self, name: str) -> tuple[Utterance, ...]:
        """Return the utterances of a set: ``train``, ``validation``, ``test``, or ``all`` of the corpus."""

    def extract(self, progress: bool = True) -> Prepared:
        """Extract features where they are missing, leave out what is unusable, and return what was done."""

    def decoded(self) -> set[Path]:
        """Return the files whose audio is known to be sound, as it was decoded and has not changed since."""

    def leave_out(self, problems: Mapping[Path, str]) -> None:
        """Treat unusable audio, a reason by file, as the user wants it."""


def protocol_hash(data: CorpusData) -> str:
    """Return the hash of a corpus's protocol: of the labelled utterances of every set of all folds.

    Runs with equal ones are compared: they hear, validate on and test the same speakers and labels. Utterances without
    label, which targets made of votes can learn from, are a matter of the system, as augmentation is; the hash of a
    split counts them. Where everything is labelled, the two agree on one fold.
    """
    splits = [data.split(fold) for fold in range(data.num_folds())]
    if len(splits) == 1 and not data.protocol.has_test_set:
        # Nothing is tested, so nothing is compared; and the split knows its hash without asking a million utterances.
        return splits[0].hash
    return hash_splits([split.labelled for split in splits])
