"""Callbacks that every run has: checkpoints that resume exactly, and what a fold leaves behind."""

from ser_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from ser_lightning.callbacks.early_stopping import EarlyStopping
from ser_lightning.callbacks.epoch_seed import EpochSeed
from ser_lightning.callbacks.results import ResultFiles

__all__ = ["BestCheckpoint", "EarlyStopping", "EpochSeed", "LastCheckpoint", "ResultFiles"]
