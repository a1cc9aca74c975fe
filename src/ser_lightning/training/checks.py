"""Checks before training or scoring: does the checkpoint fit the configuration, and does the monitored score exist?"""

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
"""Arguments of a system that the corpus decides: compared only once the data module is built."""


def check_same_system(path: Path, configured: Mapping[str, Any], allow: Sequence[str] = ()) -> None:
    """Compare a checkpoint's system and its arguments with the configured ones.

    Args:
        path: The checkpoint.
        configured: ``model`` of the configuration: ``class_path`` and ``init_args``.
        allow: Module prefixes that the user trusts besides the allow-list.

    Raises:
        ConfigurationError: If it holds no system of this suite, does not say how that was built, or names each
            argument that differs.
    """
    stored = read_checkpoint(path, allow)[CHECKPOINT_KEY].get("configuration")
    if not stored:
        raise ConfigurationError(
            f"{path} was saved from a system built in Python, and does not say with which arguments; evaluate it in "
            "Python, or train it from an experiment's YAML"
        )
    # What the corpus decides is known, and compared, only once the data module is built.
    known = {**stored, "init_args": {k: v for k, v in stored["init_args"].items() if k not in LINKED}}
    if differences := differing_keys(known, configured):
        raise ConfigurationError(
            f"{path} was trained with other hyperparameters than are configured:\n"
            + "\n".join(differences)
            + "\nGive the configuration it was trained with: config.yaml in its run's folder."
        )


def check_unseen_split(checkpoint: Mapping[str, Any], path: Path, data: CorpusData, evaluated: Stage) -> None:
    """Refuse to score a checkpoint on what it was trained on.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it lies.
        data: The data module, of the fold to be evaluated; unusable audio is known to it.
        evaluated: The set to be scored.

    Raises:
        ConfigurationError: Naming the speakers it has heard, or the two splits.
    """
    origin, split = checkpoint[CHECKPOINT_KEY]["origin"], data.split()
    if data.protocol.speakers_disjoint:
        check_unseen_speakers(checkpoint, path, data.corpus_name, {evaluated: split.speakers(evaluated)}, split.hash)
    elif origin["corpus"] == data.corpus_name and origin["split_hash"] != split.hash:
        raise ConfigurationError(
            f"{path} was trained on the split {origin['split_hash']}, but fold {split.fold} is {split.hash}: it "
            "may have been trained on what is evaluated; give its own fold (--data.init_args.fold)"
        )


def check_monitored_scores(trainer: Trainer, known: Collection[str]) -> None:
    """Refuse to choose the best epoch, or to stop, by a score that no epoch has: Lightning says so after the first one.

    Args:
        trainer: With its callbacks.
        known: Names of the scores that the system logs in every epoch.

    Raises:
        ConfigurationError: Naming the key, its value and the scores there are.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it, undeclared
        if isinstance(callback, BestCheckpoint | EarlyStopping) and callback.monitor not in known:
            key = "best_checkpoint" if isinstance(callback, BestCheckpoint) else "EarlyStopping of trainer.callbacks"
            raise ConfigurationError(
                f"{key}: monitor is '{callback.monitor}', but the system logs {', '.join(known)}; choose one of these"
            )
