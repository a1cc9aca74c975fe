"""The callbacks of every run: best and last checkpoint, early stopping and seeds that resume exactly.

Lightning's ``save_last=True`` writes only when the monitored score improves, and by default saves at the end of the
training epoch, so that a resumed epoch skips ``on_train_epoch_start``. Hence two checkpoint callbacks that save at the
end of validation, the best one first: in the other order, a run killed between the two could lose its best epoch.
"""

import io
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.runs.folder import CHECKPOINTS, LAST
from ser_lightning.systems.checkpoint import read_checkpoint_file

BEST_STEP = "best_step"
"""Key of the best epoch's global step in the state of ``BestCheckpoint``."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Atomic checkpoint writes: save next to the target, then rename. Reads check the checkpoint's checksums.

    Lightning writes to the system's temporary folder and moves the file. If runs are on another disk, that is a copy,
    and a kill during it leaves a truncated checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path`` atomically."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return the content of ``path``, on the CPU and without running code.

        Raises:
            ConfigurationError: If it is damaged or not a checkpoint of this suite.
        """
        return read_checkpoint_file(Path(path), str(path), mapped=False)


class BackgroundCheckpointIO(AsyncCheckpointIO):
    """Write checkpoints in a thread while training continues, from a copy that is taken between two steps.

    One is written at a time, so that a slow disk delays training instead of filling the memory, and in the order in
    which they were saved: best.ckpt before last.ckpt of the same epoch. An error of a write ends the training at the
    next one, or at the end. ``teardown`` waits for the write; code that reads a checkpoint during training calls it.
    """

    def __init__(self) -> None:
        super().__init__(AtomicCheckpointIO())

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the write before; copy the checkpoint, and write it to the path in a thread."""
        self.teardown()
        super().save_checkpoint(*args, **kwargs)


class _RunCheckpoint(ModelCheckpoint):
    """A checkpoint in the run's folder, also if the folder was moved before the run is resumed."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the folder before Lightning derives one from a logger."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINTS)
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the best score so far, also if the folder was moved or is spelt differently.

        Lightning compares folders as text and drops the score if they differ: a worse epoch would replace it.
        """

        def in_folder(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: in_folder(state_dict[name]) for name in paths}
        kept = {in_folder(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": kept, "dirpath": self.dirpath})


class BestCheckpoint(_RunCheckpoint):
    """Keep the epoch with the best validation score as ``checkpoints/best.ckpt``; a tie goes to the earlier epoch.

    Args:
        monitor: Monitored score: ``validation/UA``, ``validation/WA``, ``validation/macro_F1`` or
            ``validation/loss``.
        mode: Whether higher (``max``) or lower (``min``) is better.
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
        self._restored_step = 0

    def state_dict(self) -> dict[str, Any]:
        """Add the step of the best epoch: last.ckpt can replace a damaged best.ckpt of the same step."""
        return {**super().state_dict(), BEST_STEP: self._last_global_step_saved or self._restored_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the step of the best epoch."""
        super().load_state_dict(state_dict)
        self._restored_step = state_dict.get(BEST_STEP, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reject a number of steps that ends before the first validation.

        Raises:
            ConfigurationError: Naming both numbers.
        """
        super().on_train_start(trainer, pl_module)
        epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        needed = epoch * (trainer.check_val_every_n_epoch or 1)
        if trainer.max_steps != -1 and trainer.max_steps < needed:
            raise ConfigurationError(
                f"trainer.max_steps is {trainer.max_steps}, but the first validation comes after {needed} steps, so "
                f"there would be no best checkpoint; give at least {needed}"
            )


class LastCheckpoint(_RunCheckpoint):
    """Keep the latest epoch as ``checkpoints/last.ckpt``."""

    def __init__(self) -> None:
        super().__init__(monitor=None, filename="last", save_on_train_epoch_end=False, enable_version_counter=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights also if training ended before the first validation."""
        if not self.best_model_path and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # undeclared
            trainer.save_checkpoint(Path(str(self.dirpath)) / LAST)


class EarlyStopping(LightningEarlyStopping):
    """Stop once a validation score has not improved for ``patience`` epochs.

    Lightning's default checks at the end of the training epoch, after the checkpoint, which cannot be resumed. This one
    checks at the end of validation. Once patience is exhausted, training ends, but not before ``trainer.min_epochs``,
    also if the score improves until then; a resumed run ends after the same epoch.

    Args:
        monitor: Score to watch, such as ``validation/loss``.
        mode: Whether higher (``max``) or lower (``min``) is better.
        patience: Epochs without improvement; 0 is the same as 1.
        min_delta: Smallest change that counts as an improvement.
    """

    def __init__(self, monitor: str, mode: Literal["max", "min"], patience: int = 10, min_delta: float = 0.0) -> None:
        super().__init__(
            monitor=monitor, mode=mode, patience=patience, min_delta=min_delta, check_on_train_epoch_end=False
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop a resumed run whose patience was exhausted before it was interrupted: Lightning forgets that."""
        if self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True


class EpochSeed(Callback):
    """Seed all generators from (seed, epoch, rank) when a training epoch starts.

    Checkpoints do not hold generator states; this way a resumed epoch draws the same dropout and noise.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch, NumPy and random."""
        sequence = np.random.SeedSequence((self.seed, trainer.current_epoch, trainer.global_rank))
        seed_everything(int(sequence.generate_state(1)[0]), verbose=False)
