"""The two checkpoints of a run: the best one is tested, the last one is resumed from.

Lightning's ``save_last=True`` writes only when the monitored score improves, and its default moment of saving, the end
of the training epoch, lets a resumed epoch skip ``on_train_epoch_start``. So there are two callbacks, both saving at
the end of validation, the best one first: were it second, a run killed between the two could resume behind its best.
"""

from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

FOLDER = "checkpoints"


class BestCheckpoint(ModelCheckpoint):
    """Keep the epoch with the best validation score as ``checkpoints/best.ckpt``; a tie goes to the earlier epoch.

    Args:
        monitor: Score to choose by: ``validation/UA``, ``validation/WA``, ``validation/macro_F1`` or
            ``validation/loss``.
        mode: Whether more (``max``) or less (``min``) is better.
    """

    def __init__(self, monitor: str = "validation/UA", mode: Literal["max", "min"] = "max") -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename="best",
            save_top_k=1,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder before Lightning derives one from a logger."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / FOLDER)
        super().setup(trainer, pl_module, stage)


class LastCheckpoint(ModelCheckpoint):
    """Keep the latest epoch as ``checkpoints/last.ckpt``."""

    def __init__(self) -> None:
        super().__init__(monitor=None, filename="last", save_on_train_epoch_end=False, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder before Lightning derives one from a logger."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / FOLDER)
        super().setup(trainer, pl_module, stage)
