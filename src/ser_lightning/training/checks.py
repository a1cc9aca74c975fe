"""Checks before training or scoring: checkpoints against the configuration, and monitored scores."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from ser_lightning.data.corpora import CorpusData
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import differing_keys
from ser_lightning.systems.checkpoint import read_checkpoint
from ser_lightning.systems.classifier import CHECKPOINT_KEY
from ser_lightning.systems.stages import check_unseen_speakers
from ser_lightning.training.callbacks import BestCheckpoint, EarlyStopping
from ser_lightning.types import Stage

LINKED = ("num_features", "class_names")
"""Arguments of a system linked from the data module, which are known only after it is built."""


def check_same_system(path: Path, configured: Mapping[str, Any], allow: Sequence[str] = ()) -> None:
    """Check that a checkpoint's system and arguments are the configured ones.

    Args:
        path: The checkpoint.
        configured: The configuration's ``model``, with ``class_path`` and ``init_args``.
        allow: Module prefixes that the user trusts besides the allow-list.

    Raises:
        ConfigurationError: If the checkpoint does not hold a system of this suite or its arguments, or if arguments
            differ; it names them.
    """
    stored = read_checkpoint(path, allow)[CHECKPOINT_KEY].get("configuration")
    if not stored:
        raise ConfigurationError(
            f"{path} was saved from a system built in Python and lacks its arguments; evaluate it in Python, or train "
            "it from an experiment's YAML"
        )
    comparable = {**stored, "init_args": {k: v for k, v in stored["init_args"].items() if k not in LINKED}}
    if differences := differing_keys(comparable, configured):
        raise ConfigurationError(
            f"{path} was trained with hyperparameters that differ from the configuration:\n"
            + "\n".join(differences)
            + "\nGive the configuration it was trained with, config.yaml in its run's folder."
        )


def check_unseen_split(checkpoint: Mapping[str, Any], path: Path, data: CorpusData, evaluated: Stage) -> None:
    """Reject a checkpoint trained on the data to be evaluated.

    Args:
        checkpoint: The content, from ``read_checkpoint``.
        path: Its file.
        data: The data module of the fold, after unusable audio was left out.
        evaluated: The set to score.

    Raises:
        ConfigurationError: Naming the speakers, or the two splits.
    """
    origin, split = checkpoint[CHECKPOINT_KEY]["origin"], data.split()
    if data.protocol.speakers_disjoint:
        check_unseen_speakers(checkpoint, path, data.corpus_name, {evaluated: split.speakers(evaluated)}, split.hash)
    elif origin.get("corpus") == data.corpus_name and origin.get("split_hash") != split.hash:
        raise ConfigurationError(
            f"{path} was trained on split {origin.get('split_hash')}, but fold {split.fold} has split {split.hash}, "
            "whose evaluation data may be in its training set; give the checkpoint's fold (--data.init_args.fold)"
        )


def check_monitored_scores(trainer: Trainer, known: Collection[str]) -> None:
    """Check that monitored scores exist; Lightning does so only after the first epoch.

    Args:
        trainer: The trainer with its callbacks.
        known: Names of the scores that the system logs in every epoch.

    Raises:
        ConfigurationError: Naming the key, its value and the known scores.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # undeclared
        if isinstance(callback, BestCheckpoint | EarlyStopping) and callback.monitor not in known:
            key = "best_checkpoint" if isinstance(callback, BestCheckpoint) else "EarlyStopping of trainer.callbacks"
            raise ConfigurationError(
                f"{key}: monitor is '{callback.monitor}', but the system logs {', '.join(known)}; choose one of these"
            )
