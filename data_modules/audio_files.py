"""Your own recordings: a folder with a table of labels, or with a folder for each label."""

import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from data_modules.base import CorpusDataModule
from data_modules.discovery import (
    Found,
    first_few,
    list_audio,
    warn_of_unread,
)
from data_modules.label_table import REQUIRED, LabelTable, read_label_table
from ser_lightning.audio import AUDIO_ENDINGS
from ser_lightning.data.protocols import LeaveOneSpeakerOut, Protocol
from ser_lightning.data.synthetic import Gender
from ser_lightning.data.synthetic_corpus import Clip, write_corpus
from ser_lightning.errors import CorpusError, CorpusWarning
from ser_lightning.features import FeatureExtractor
from ser_lightning.files import files_below, write_atomically
from ser_lightning.text import differing_in_case, identity
from ser_lightning.types import Utterance

LABELS_FILE = "labels.csv"
_TITLE = "audio files"
_LAYOUTS = (
    f"Write a {LABELS_FILE} with the columns {','.join(REQUIRED)} into the folder, or arrange the files as "
    "<label>/<speaker>/<file>."
)
_SYNTHETIC_SPEAKERS, _SYNTHETIC_TAKES = 50, 6
_SYNTHETIC_EMOTIONS = ("angry", "happy", "neutral", "sad")


def find_utterances(root: Path, labels: Path | None = None) -> Found:
    """Find labelled recordings: those in a table, or without one all ``<label>/<speaker>/<file>``.

    The name of an utterance is its relative path without extension.

    Args:
        root: The folder of recordings.
        labels: The table; by default ``labels.csv`` in ``root``, if it exists.

    Raises:
        CorpusError: If folder or table cannot be read, or have invalid entries; it lists up to ten.

    Warns:
        CorpusWarning: If there is no table, and a recording is only in an unsupported format.
    """
    table = labels or root / LABELS_FILE
    if labels or table.is_file():
        utterances, problems = _of_table(root, table)
        where = str(table)
    else:
        utterances, problems = _of_folders(root, list_audio(root, _TITLE))
        where = str(root)
        names = {utterance.name for utterance in utterances}
        warn_of_unread(root, _TITLE, lambda path: _name(path.relative_to(root)), names.__contains__)
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CorpusError(f"{where} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems[:10]) + more)
    if not utterances:
        raise CorpusError(f"{where} lists no recording; write one per line below the column names.")
    counts = Counter(utterance.name for utterance in utterances)
    if duplicates := [name for name, count in counts.items() if count > 1]:
        # ascii() tells two forms of one letter apart.
        files = ", ".join(sorted({ascii(u.path.name) for u in utterances if u.name == duplicates[0]}))
        raise CorpusError(
            f"{where}: {len(duplicates)} recordings occur more than once, such as {duplicates[0]} ({files}); keep one "
            "each."
        )
    return Found(tuple(sorted(utterances, key=lambda utterance: utterance.name)), left_out={})


def _of_folders(root: Path, audio: Sequence[Path]) -> tuple[list[Utterance], list[str]]:
    utterances, problems = [], []
    for path in audio:
        relative = path.relative_to(root)
        if len(relative.parts) < 3:
            problems.append(f"{relative} is not in a <label>/<speaker> folder. {_LAYOUTS}")
            continue
        label, speaker = relative.parts[:2]
        utterances.append(Utterance(_name(relative), path, speaker, label))
    return utterances, problems


def _of_table(root: Path, table: Path) -> tuple[list[Utterance], list[str]]:
    if not root.is_dir():
        raise CorpusError(f"{_TITLE}: {root} is not a folder; set `root` to the folder of the paths in {table}.")
    content = read_label_table(root, table)
    if content.utterances and not content.problems:
        _warn_of_unused(root, table, content)
    return content.utterances, content.problems


def _warn_of_unused(root: Path, table: Path, content: LabelTable) -> None:
    if content.unread:
        warnings.warn(f"{table}: columns that are not read: {', '.join(content.unread)}.", CorpusWarning, stacklevel=4)
    names = {utterance.name for utterance in content.utterances}
    audio = (path for path in files_below(root, only_readable=True) if path.suffix.lower() in AUDIO_ENDINGS)
    unlisted = [
        str(relative)
        for relative in (path.relative_to(root) for path in audio if not path.name.startswith("."))
        if identity(_name(relative)) not in names
    ]
    if unlisted:
        warnings.warn(
            f"{_TITLE}: {len(unlisted)} audio files in {root} are not used, because {table} does not list them: "
            f"{first_few(unlisted)}.",
            CorpusWarning,
            stacklevel=4,
        )


def _name(relative: PurePosixPath | Path) -> str:
    return relative.with_suffix("").as_posix()


def write_synthetic(
    folder: Path, speakers: int, seed: int, clips_per_speaker: int | None = None, progress: bool = False
) -> int:
    """Write synthetic recordings of four emotions, and the table of their labels.

    Args:
        folder: Target folder: empty, missing, or with (part of) the same synthetic corpus.
        speakers: Number of speakers, 1 to 50.
        seed: Seed of voices and clips.
        clips_per_speaker: 1 to 24, balanced over emotions as far as possible; all 24 if None.
        progress: Whether to show a progress bar.

    Returns:
        Number of clips written now; existing clips are kept.

    Raises:
        CorpusError: If a number is out of range, or ``folder`` has other content.
    """
    every = [_clips(number) for number in range(1, _SYNTHETIC_SPEAKERS + 1)]
    written = write_corpus(folder, "audio_files", every, speakers, seed, clips_per_speaker, progress)
    lines = [
        f"{clip.file.as_posix()},{clip.speaker},{clip.emotion},{clip.gender}"
        for clips in every[:speakers]
        for clip in clips
        if (folder / clip.file).exists()
    ]
    write_atomically(folder / LABELS_FILE, "\n".join(["path,speaker,label,gender", *lines, ""]).encode())
    return written


def _clips(number: int) -> list[Clip]:
    speaker = f"speaker_{number:02d}"
    gender: Gender = "male" if number % 2 else "female"
    return [
        Clip(Path(speaker, f"{emotion}_{take}.wav"), speaker, gender, emotion, intensity=1.0, sentence=take)
        for emotion in _SYNTHETIC_EMOTIONS
        for take in range(1, _SYNTHETIC_TAKES + 1)
    ]


class AudioFiles(CorpusDataModule):
    """Your own recordings: a folder with ``labels.csv`` (path, speaker, label), or ``<label>/<speaker>/<file>``.

    Args:
        root: The folder of recordings.
        extractor: The feature extractor.
        labels: The table of labels, by default ``labels.csv`` in ``root``; its paths are relative to ``root``.
        classes: The labels in the order of the logits; some may not occur. By default the recordings' labels in
            alphabetical order.
        protocol: How utterances become folds; by default leave one speaker out.
        fold: Fold to train and test, counted from 0.
        batch_size: Utterances of a global batch; every process takes its share.
        on_bad_audio: ``stop`` raises an error that names all unusable files; ``skip`` skips and records them.
        feature_folder: Where extracted features are stored; processes and machines may share it.
        workers: Processes that extract features.
        seed: Seed of the training order.
        speeds: Further speeds of training utterances, such as 0.9 and 1.1.
        features: ``stored`` stores extracted frames; ``on_device`` stores waveforms, and extracts frames of each batch
            on the training device.
        crop_frames: Frames of a random crop of each training utterance; by default whole utterances.
        batches: ``length`` batches training utterances of similar length; ``class`` balances the classes.
        recognise: The classes: emotions, or speakers. For speakers the default protocol holds out a few clips of each.
        label_map: New names of labels, such as ``{calm: neutral, surprised: null}``: null leaves a label's utterances
            out, labels that are not named stay, and classes are in alphabetical order.

    Raises:
        CorpusError: If the recordings cannot be found, there are fewer than two labels, or ``classes`` has duplicates
            or lacks a label.
    """

    corpus = "audio_files"

    def __init__(
        self,
        root: str | Path,
        extractor: FeatureExtractor,
        labels: str | Path | None = None,
        classes: tuple[str, ...] | None = None,
        protocol: Protocol | None = None,
        fold: int = 0,
        batch_size: int = 32,
        on_bad_audio: Literal["stop", "skip"] = "stop",
        feature_folder: str | Path = Path(".cache/features"),
        workers: int = 1,
        seed: int = 0,
        speeds: tuple[float, ...] = (),
        features: Literal["stored", "on_device"] = "stored",
        crop_frames: int | None = None,
        batches: Literal["length", "class"] = "length",
        recognise: Literal["emotion", "speaker"] = "emotion",
        label_map: dict[str, str | None] | None = None,
    ) -> None:
        self.labels = None if labels is None else Path(labels)
        super().__init__(
            root=root,
            extractor=extractor,
            protocol=protocol,
            fold=fold,
            batch_size=batch_size,
            on_bad_audio=on_bad_audio,
            feature_folder=feature_folder,
            workers=workers,
            seed=seed,
            speeds=speeds,
            features=features,
            crop_frames=crop_frames,
            batches=batches,
            recognise=recognise,
            label_map=label_map,
        )
        if recognise == "emotion":
            self.class_names = self._emotions(classes)

    @cached_property
    def _listed(self) -> Found:
        return find_utterances(self.root, self.labels)

    def original_class_names(self) -> tuple[str, ...]:
        """Return the labels of the recordings."""
        return tuple(sorted({u.label for u in self._listed.utterances if u.label is not None}))

    def _emotions(self, classes: tuple[str, ...] | None) -> tuple[str, ...]:
        found = Counter(u.label for u in self.found.utterances if u.label is not None)
        names = tuple(sorted(found)) if classes is None else tuple(map(identity, classes))
        if len(names) < 2 or len(set(names)) < len(names) or differing_in_case(names):
            raise CorpusError(
                f"{_TITLE}: the classes of {self.root} are {', '.join(names)}; at least two are needed, each once in "
                f"one letter case. "
                f"{_LAYOUTS}"
            )
        if unknown := [f"{name} ({count})" for name, count in sorted(found.items()) if name not in names]:
            raise CorpusError(
                f"{_TITLE}: recordings in {self.root} have labels that data.init_args.classes lacks: "
                f"{', '.join(unknown)}; it has {', '.join(names)}. Add them, or remove their recordings."
            )
        return names

    def find(self) -> Found:
        """Return the recordings below ``root``."""
        return self._listed

    @staticmethod
    def default_protocol() -> Protocol:
        """Return leave one speaker out."""
        return LeaveOneSpeakerOut()
