"""What a fold's training records: ``run.json`` with experiment, code and hardware, and ``metrics.csv`` by epoch."""

import reprlib
from dataclasses import dataclass, fields
from pathlib import Path
from types import GenericAlias
from typing import Any, Self

import pandas as pd

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import read_json
from ser_lightning.types import corpus_name

METRICS_FILE = "metrics.csv"
MOST_METRICS_BYTES = 1 << 26
MOST = 1e15  # of any number
MOST_FOLDS = 100_000


@dataclass(frozen=True)
class RunFacts:
    """Content of a fold's ``run.json``.

    Attributes:
        paper: The paper that the experiment reproduces.
        experiment: Name of the experiment.
        corpus: Name of the corpus.
        synthetic: Whether the audio was generated.
        row: Row of a table, or "default".
        protocol: How the corpus was split, in words.
        speakers_disjoint: Whether no speaker occurs in two sets of a fold.
        protocol_hash: Hash of the splits of all folds.
        split_hash: Hash of this fold's split.
        fold: Index of the fold, from 0.
        num_folds: Number of folds of the protocol.
        seed: Random seed.
        class_names: The classes, in the order of the logits.
        system: Name of the system.
        parameters: Number of trainable parameters.
        best_epoch: Epoch of the tested checkpoint, from 0; -1 if training diverged before there was one.
        epochs: Epochs trained.
        seconds: Duration of the fold.
        code_version: Version of the code.
        hardware: Device and processor.
        precision: Precision of the computation, such as ``32-true``, and where it is lower.
        skipped_audio: Reason by unusable file.
        faulty_left_out: Utterances left out: faulty in the corpus's release, or without audio.
        same_audio_across_sets: Pairs of utterances with the same audio in two sets of this fold.
        untrained_classes: Classes that this fold tests and never trains on.
        one_speaker_classes: Classes that only one speaker of the corpus has.
        diverged: Where and how training diverged; such a fold has no results. Empty if it did not.
    """

    paper: str
    experiment: str
    corpus: str
    synthetic: bool
    row: str
    protocol: str
    speakers_disjoint: bool
    protocol_hash: str
    split_hash: str
    fold: int
    num_folds: int
    seed: int
    class_names: tuple[str, ...]
    system: str
    parameters: int
    best_epoch: int
    epochs: int
    seconds: float
    code_version: str
    hardware: str
    precision: str
    skipped_audio: dict[str, str]
    faulty_left_out: tuple[str, ...]
    same_audio_across_sets: int
    untrained_classes: tuple[str, ...]
    one_speaker_classes: tuple[str, ...]
    diverged: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``run.json``; unknown keys are ignored.

        Raises:
            ConfigurationError: If the file is missing or not JSON, or a key is missing or has the wrong type.
        """
        try:
            content = read_json(path)
        except FileNotFoundError as error:
            message = (
                f"{path} is missing: the fold's training has not finished, or another run's checkpoint was tested "
                f"here; `ser run-fold --config {path.parent}/config.yaml` finishes it"
            )
            raise ConfigurationError(message) from error
        except ValueError as error:
            message = f"{path} is not a JSON file ({error}); delete the folder and run the fold again"
            raise ConfigurationError(message) from error
        if not isinstance(content, dict):
            raise ConfigurationError(f"{path} is not a JSON object; delete the folder and run the fold again")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in content:
                raise ConfigurationError(f"{path}: no key {field.name!r}; run the fold again with this version")
            values[field.name] = _checked(content[field.name], field.type, f"{path}: {field.name}")
        if not 1 <= values["num_folds"] <= MOST_FOLDS:
            raise ConfigurationError(
                f"{path}: num_folds is {values['num_folds']}, not from 1 to {MOST_FOLDS}; run the fold again"
            )
        return cls(**values)

    @property
    def corpus_name(self) -> str:
        """Name of the corpus in run folders."""
        return corpus_name(self.corpus, self.synthetic)

    @property
    def title(self) -> str:
        """Experiment and row, for the title of a picture."""
        return self.experiment if self.row == "default" else f"{self.experiment}, {self.row.replace('_', ' ')}"


def _checked(value: object, kind: object, where: str) -> object:
    """Return the JSON ``value`` if it has the annotated type ``kind``; lists become tuples."""
    if isinstance(kind, GenericAlias) and kind.__origin__ is tuple:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif isinstance(kind, GenericAlias):
        fits = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    elif kind in (float, int):
        fits = type(value) in (int, kind) and 0 <= value < MOST  # type: ignore[operator]  # not isinstance: True is an int
    else:
        fits = type(value) is kind
    if not fits:
        name = kind.__name__ if isinstance(kind, type) else str(kind)
        limits = f" from 0 to {MOST:g}" if kind in (float, int) else ""
        raise ConfigurationError(f"{where} is {reprlib.repr(value)}, not of type {name}{limits}; run the fold again")
    return tuple(value) if isinstance(value, list) else value


def read_metrics(folder: Path) -> pd.DataFrame | None:
    """Return a fold's ``metrics.csv`` as numbers; None if it is missing, damaged or empty: no result depends on it.

    Values that are not numbers are NaN. Rows without an epoch are dropped.
    """
    path = folder / METRICS_FILE
    try:
        if path.stat().st_size > MOST_METRICS_BYTES:
            return None
        table = pd.read_csv(path).apply(pd.to_numeric, errors="coerce")
        epochs = table["epoch"]
        table = table[epochs.between(0, 2**31) & (epochs % 1 == 0)].astype({"epoch": "int64"})
    except (OSError, ValueError, KeyError, OverflowError):  # also a stale handle of a network file system
        return None
    return table if len(table) else None


def read_history(folder: Path) -> pd.DataFrame | None:
    """Return ``read_metrics`` with one row per epoch, indexed by epoch.

    Of an epoch that was repeated after an interruption, the last repetition counts.
    """
    table = read_metrics(folder)
    return None if table is None else table.groupby("epoch").last()
