"""Checks before training or scoring: checkpoints against the configuration, settings, and monitored scores."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    Checkpoint,
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelSummary,
    RichModelSummary,
    RichProgressBar,
    Timer,
    TQDMProgressBar,
)
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

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


OURS = "ser_lightning.callbacks.EarlyStopping"
# Callbacks of Lightning's that keep no state that training depends on.
STATELESS: tuple[type[Callback], ...] = (
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelSummary,
    RichModelSummary,
    RichProgressBar,
    TQDMProgressBar,
)


def check_resumes_exactly(settings: Mapping[str, Any], allow: Sequence[str] = ()) -> None:
    """Reject callbacks and settings after which a killed run would end otherwise than a whole one.

    Args:
        settings: The trainer's arguments, with callbacks built.
        allow: Module prefixes that the user trusts; callbacks in them are not checked.

    Raises:
        ConfigurationError: Naming the callback or key, and what to use instead.
    """
    for callback in settings["callbacks"] or []:
        kind = type(callback)
        path = f"{kind.__module__}.{kind.__qualname__}"
        if kind in (EarlyStopping, *STATELESS) or any(f"{path}.".startswith(f"{trusted}.") for trusted in allow):
            continue
        if isinstance(callback, LightningEarlyStopping):
            way_out = f"use {OURS}"
        elif isinstance(callback, Checkpoint):
            way_out = "the best and the last epoch are kept anyway; choose the best by best_checkpoint.monitor and mode"
        elif isinstance(callback, Timer):
            way_out = "set trainer.max_time"
        else:
            known = ", ".join(kind.__name__ for kind in STATELESS)
            way_out = (
                f"use {OURS}, one of Lightning's {known}, or a class of yours with a complete state_dict() and "
                "its module in --allow"
            )
        raise ConfigurationError(f"trainer.callbacks: a run with {path} is not known to resume exactly; {way_out}")
    interval = settings["val_check_interval"]
    if interval is not None and (not isinstance(interval, float) or interval != 1.0):  # the integer 1 is one batch
        raise ConfigurationError(
            f"trainer.val_check_interval is {interval}, but a run does not resume exactly from inside an epoch; leave "
            "it out. For shorter epochs, lower trainer.limit_train_batches: each epoch draws other batches"
        )
    if settings["min_steps"] is not None:
        raise ConfigurationError(
            f"trainer.min_steps is {settings['min_steps']}, but a run does not resume exactly from inside an epoch; "
            "set trainer.min_epochs"
        )


def check_will_validate(settings: Mapping[str, Any]) -> None:
    """Reject a training that would end without a validated epoch, or never: it could not choose its best epoch.

    Args:
        settings: The trainer's arguments.

    Raises:
        ConfigurationError: Naming the key and its value.
    """

    def reject(key: str, way_out: str) -> None:
        raise ConfigurationError(
            f"trainer.{key} is {settings[key]}, so no epoch would be validated and there would be no best checkpoint; "
            f"{way_out}"
        )

    if settings["fast_dev_run"]:
        return
    epochs, steps, every = (settings[key] for key in ("max_epochs", "max_steps", "check_val_every_n_epoch"))
    for key in ("limit_train_batches", "limit_val_batches"):
        if settings[key] == 0:
            reject(key, "raise it, or leave it out")
    for key in ("max_epochs", "max_steps"):
        if settings[key] == 0:
            reject(key, "raise it")
    if every and epochs is not None and 0 < epochs < every:
        reject("check_val_every_n_epoch", f"lower it to at most max_epochs, {epochs}")
    ends_otherwise = (
        steps != -1
        or settings["max_time"]
        or any(isinstance(callback, EarlyStopping) for callback in settings["callbacks"] or [])
    )
    if epochs in (None, -1) and not ends_otherwise:
        raise ConfigurationError(f"trainer.max_epochs is {epochs}, so training would not end; give a number of epochs")


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
