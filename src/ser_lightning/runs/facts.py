"""What ``run.json`` says about a fold: which experiment it is, and what made it."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from types import GenericAlias
from typing import Any, Self

from ser_lightning.errors import ConfigurationError
from ser_lightning.types import corpus_name


@dataclass(frozen=True)
class RunFacts:
    """What ``run.json`` says about one fold.

    Attributes:
        paper: The paper that the experiment rebuilds.
        experiment: Name of the experiment.
        corpus: Name of the corpus.
        synthetic: Whether the audio was generated and is no recording of people.
        row: Row of a table, or "default".
        protocol: How the corpus was split, in words.
        speakers_disjoint: Whether no speaker occurs in two sets of a fold.
        protocol_hash: Names the splits of all folds.
        split_hash: Names the split of this fold.
        fold: Index of the fold, counted from 0.
        num_folds: Folds that the protocol has.
        seed: Seed of the random numbers.
        class_names: The classes, in the order of the logits.
        system: Name of the system.
        parameters: Trainable parameters.
        best_epoch: Epoch of the checkpoint that was tested, counted from 0.
        epochs: Epochs trained.
        seconds: Time that the fold took.
        code_version: Version of the code that ran.
        hardware: What it ran on.
        skipped_audio: Reason by file that could not be used.
        faulty_left_out: Utterances left out: faulty in the corpus's release, or without audio.
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

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``run.json``; keys that are not known are left alone.

        Raises:
            ConfigurationError: If the file is missing or no JSON, or a key is missing or of the wrong kind.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            message = (
                f"{path} is missing: the fold's training has not ended, or another run's checkpoint was tested here; "
                f"`ser run-fold --config {path.parent}/config.yaml` runs what is missing"
            )
            raise ConfigurationError(message) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            message = f"{path} is no JSON ({error}); delete the folder and run the fold again"
            raise ConfigurationError(message) from error
        if not isinstance(content, dict):
            raise ConfigurationError(f"{path} holds no JSON object; delete the folder and run the fold again")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in content:
                raise ConfigurationError(f"{path}: no key {field.name!r}; run the fold again with this version")
            values[field.name] = _of_kind(content[field.name], field.type, f"{path}: {field.name}")
        return cls(**values)

    @property
    def corpus_name(self) -> str:
        """The corpus as run folders call it."""
        return corpus_name(self.corpus, self.synthetic)

    @property
    def title(self) -> str:
        """Experiment and, in a table, its row: what a picture calls the system."""
        return self.experiment if self.row == "default" else f"{self.experiment}, {self.row.replace('_', ' ')}"


def _of_kind(value: object, kind: object, where: str) -> object:
    """Return ``value`` if JSON holds what the annotation ``kind`` asks for; lists become tuples."""
    if isinstance(kind, GenericAlias) and kind.__origin__ is tuple:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif isinstance(kind, GenericAlias):
        fits = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = type(value) is kind  # not isinstance: True is no number of folds
    if not fits:
        name = kind.__name__ if isinstance(kind, type) else str(kind)
        raise ConfigurationError(f"{where} is {value!r}, which is not of the kind {name}")
    return tuple(value) if isinstance(value, list) else value
