"""What a fold's training records: ``run.json`` with experiment, code and hardware, and ``metrics.csv`` by epoch."""

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import GenericAlias
from typing import Any, Self

import pandas as pd

from ser_lightning.errors import ConfigurationError
from ser_lightning.types import corpus_name

METRICS_FILE = "metrics.csv"


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
        skipped_audio: Reason by unusable file.
        faulty_left_out: Utterances left out: faulty in the corpus's release, or without audio.
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
    skipped_audio: dict[str, str]
    faulty_left_out: tuple[str, ...]
    diverged: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``run.json``; unknown keys are ignored.

        Raises:
            ConfigurationError: If the file is missing or not JSON, or a key is missing or has the wrong type.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            message = (
                f"{path} is missing: the fold's training has not finished, or another run's checkpoint was tested "
                f"here; `ser run-fold --config {path.parent}/config.yaml` finishes it"
            )
            raise ConfigurationError(message) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            message = f"{path} is not a JSON file ({error}); delete the folder and run the fold again"
            raise ConfigurationError(message) from error
        if not isinstance(content, dict):
            raise ConfigurationError(f"{path} is not a JSON object; delete the folder and run the fold again")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in content:
                if field.default is not MISSING:
                    continue
                raise ConfigurationError(f"{path}: no key {field.name!r}; run the fold again with this version")
            values[field.name] = _checked(content[field.name], field.type, f"{path}: {field.name}")
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
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = type(value) is kind  # not isinstance: True is an int
    if not fits:
        name = kind.__name__ if isinstance(kind, type) else str(kind)
        raise ConfigurationError(f"{where} is {value!r}, not of type {name}")
    return tuple(value) if isinstance(value, list) else value


def read_history(folder: Path) -> pd.DataFrame | None:
    """Return a fold's ``metrics.csv`` with one row per epoch, indexed by epoch, or None without the file.

    Of an epoch that was repeated after an interruption, the last repetition counts.

    Raises:
        ConfigurationError: If the file is not a table with a column ``epoch``.
    """
    path = folder / METRICS_FILE
    if not path.is_file() or not path.stat().st_size:
        return None
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is not a table of epochs ({str(error).strip()}); delete it to skip the curves"
        ) from error
    if "epoch" not in table:
        raise ConfigurationError(f"{path}: no column 'epoch', only {', '.join(map(str, table.columns))}")
    return table.groupby("epoch").last()
