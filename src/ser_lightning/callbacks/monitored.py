"""Scores that callbacks choose epochs by, checked before an epoch is trained."""

from collections.abc import Collection

from lightning.pytorch import Trainer

from ser_lightning.callbacks.checkpoints import BestCheckpoint
from ser_lightning.callbacks.early_stopping import EarlyStopping
from ser_lightning.errors import ConfigurationError


def refuse_unknown_scores(trainer: Trainer, known: Collection[str]) -> None:
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
