"""Corpora: the interface of their data modules, their sources, and the installed plug-ins."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar
from typing import Protocol as Interface

from ser_lightning.data.protocols import Protocol
from ser_lightning.data.targets import TrainingSet
from ser_lightning.errors import CorpusError
from ser_lightning.features import FeatureExtractor, Prepared
from ser_lightning.types import FoldData, Split, Utterance, hash_splits


@dataclass(frozen=True)
class Archive:
    """An archive that can be downloaded without an account or a signed licence.

    Attributes:
        url: Its address.
        name: Its file name.
        md5: Digest of its bytes.
        size: Its approximate size, in words.
    """

    url: str
    name: str
    md5: str
    size: str


@dataclass(frozen=True)
class CorpusSource:
    """Source and licence of a corpus.

    Attributes:
        title: Its name for users.
        licence: Its licence's name.
        terms: Summary of the licence in a sentence or two.
        licence_url: Address of the licence's text.
        home: The corpus's page.
        citation: The paper to cite.
        speech: Speakers, style and content of the speech that a trained system knows.
        name_shape: Pattern of its audio file names, without extension, if it identifies the corpus.
        steps: Steps to obtain it by hand; ``{folder}`` is the target folder.
        archive: The archive for ``ser download``, if downloading is allowed.
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


def is_installed(name: str) -> bool:
    """Return whether a corpus is installed."""
    return bool(entry_points(group=GROUP, name=name))


def find_corpus(name: str) -> Any:
    """Return the module of a corpus, such as ``data_modules.ravdess``.

    Raises:
        CorpusError: If no corpus of that name is installed; it lists the installed ones.
    """
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in installed:
        raise CorpusError(f"'{name}' is not an installed corpus; choose from {', '.join(sorted(installed))}")
    return installed[name].load()


def name_shapes() -> dict[str, re.Pattern[str]]:
    """Return the file name patterns, by module, of the installed corpora that have one."""
    sources = {entry.value: getattr(entry.load(), "SOURCE", None) for entry in entry_points(group=GROUP)}
    return {module: source.name_shape for module, source in sources.items() if source and source.name_shape}


def source_of(name: str) -> CorpusSource | None:
    """Return the source of a corpus, or None if it is not installed or has no ``SOURCE``."""
    for entry in entry_points(group=GROUP, name=name):
        source: CorpusSource | None = getattr(entry.load(), "SOURCE", None)
        return source
    return None


class CorpusData(FoldData, Interface):
    """Interface of a data module, one fold of one corpus, for training, scoring and reporting.

    Attributes:
        corpus: The corpus's name.
        class_names: The emotions, in the order of the logits.
        extractor: The feature extractor.
        protocol: The protocol that makes folds.
        fold: Index of the fold, counted from 0.
        skipped_audio: Reason by file, for unusable files that were skipped.
        known_same_audio: Groups of utterances that have the same audio in the release.
        held_gib: Memory of the training device, in GiB, in which the module may hold frames.
    """

    corpus: str
    class_names: tuple[str, ...]
    extractor: FeatureExtractor
    protocol: Protocol
    fold: int
    skipped_audio: Mapping[Path, str]
    known_same_audio: ClassVar[tuple[tuple[str, ...], ...]]
    held_gib: float

    @property
    def published_existence(self) -> Mapping[TrainingSet, Mapping[str, float]]:
        """Percent of utterances in which each emotion exists, as Ando et al. 2019 state it for these utterances."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Reason by utterance name, for faulty files of the release and labels without audio."""

    @property
    def all_utterances(self) -> tuple[Utterance, ...]:
        """Every utterance of the folder, including those with unusable audio."""

    def num_folds(self) -> int:
        """Return the number of folds."""

    def split(self, fold: int | None = None) -> Split:
        """Return the split of ``fold``, by default the module's fold."""

    def set_utterances(self, name: str) -> tuple[Utterance, ...]:
        """Return the utterances of a set: ``train``, ``validation``, ``test``, or ``all`` of the corpus."""

    def extract(self, progress: bool = True, processes: int = 1, device: str = "cpu") -> Prepared:
        """Extract missing features by at least ``processes`` or on ``device``, and skip unusable files."""

    def sounds(self) -> Mapping[Path, str]:
        """Return a key for each file whose features are stored, which files with the same samples share.

        These files were decoded without errors and have not changed since.
        """

    def leave_out(self, problems: Mapping[Path, str]) -> None:
        """Skip unusable audio, a reason by file, or raise, as the user chose."""


def protocol_hash(data: CorpusData) -> str:
    """Return the hash of the labelled utterances of every set of all folds.

    Runs with equal hashes are comparable: they train on, validate on and test the same speakers and labels. Unlabelled
    utterances, which vote targets can learn from, do not count here, but do in a split's hash.
    """
    splits = [data.split(fold) for fold in range(data.num_folds())]
    if len(splits) == 1 and not data.protocol.has_test_set:
        # Without tests nothing is compared, and the split knows its hash without reading a million utterances.
        return splits[0].hash
    return hash_splits([split.labelled for split in splits])
