"""The callbacks of every run: best and last checkpoint, early stopping and seeds that resume exactly.

Lightning's ``save_last=True`` writes only when the monitored score improves, and its default moment of saving, the end
of the training epoch, lets a resumed epoch skip ``on_train_epoch_start``. So there are two checkpoint callbacks, both
saving at the end of validation, the best one first: otherwise a run killed between the two could resume after its best
epoch without it.
"""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ser_lightning.files import write_atomically
from ser_lightning.runs.folder import CHECKPOINTS


class AtomicCheckpointIO(TorchCheckpointIO):
    """Save checkpoints beside their final place and then give them their name.

    Lightning's own way writes into the system's folder for temporary files and moves: where runs lie on another disk,
    that is a copy, and a kill in the midst of it leaves half a checkpoint to resume from.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``, whole or not at all."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())


class _RunCheckpoint(ModelCheckpoint):
    """A checkpoint in the run's own folder, wherever that lies when the run is resumed."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder before Lightning derives one from a logger."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINTS)
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best score so far, although the folder was moved or is spelt in another way.

        Lightning compares the folders as text, and where they differ it forgets the score: the next epoch would replace
        a better one.
        """

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: here(state_dict[name]) for name in paths}
        kept = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": kept, "dirpath": self.dirpath})


class BestCheckpoint(_RunCheckpoint):
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


class LastCheckpoint(_RunCheckpoint):
    """Keep the latest epoch as ``checkpoints/last.ckpt``."""

    def __init__(self) -> None:
        super().__init__(monitor=None, filename="last", save_on_train_epoch_end=False, enable_version_counter=False)


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


class EpochSeed(Callback):
    """Seed all generators from (seed, epoch, rank) when a training epoch starts.

    Checkpoints do not keep generator states; with this, the epoch after an interruption draws the same dropout and
    noise as it would have without.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch, NumPy and random."""
        sequence = np.random.SeedSequence((self.seed, trainer.current_epoch, trainer.global_rank))
        seed_everything(int(sequence.generate_state(1)[0]), verbose=False)
