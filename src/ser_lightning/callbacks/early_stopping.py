"""Early stopping that resumes exactly."""

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping


class EarlyStopping(LightningEarlyStopping):
    """Stop once a validation score has not improved for ``patience`` epochs.

    Lightning's own checks at the end of the training epoch, behind the checkpoint, which a resumed run cannot repeat;
    this one checks at the end of validation, and a run that is resumed with its patience spent stops at once.

    Args:
        monitor: Score to watch, such as ``validation/loss``.
        mode: Whether more (``max``) or less (``min``) is better.
        patience: Epochs without improvement; 0 stops at the first of them, as 1 does.
        min_delta: Smallest change that counts as an improvement.
    """

    def __init__(self, monitor: str, mode: Literal["max", "min"], patience: int = 10, min_delta: float = 0.0) -> None:
        super().__init__(
            monitor=monitor, mode=mode, patience=patience, min_delta=min_delta, check_on_train_epoch_end=False
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop a resumed run whose patience was spent when it was interrupted; a fresh one has spent none."""
        if self.wait_count >= max(1, self.patience):
            trainer.should_stop = True
