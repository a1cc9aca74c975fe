"""Random numbers that a resumed run draws again."""

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything


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
