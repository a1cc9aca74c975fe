"""Callbacks under the names that YAMLs use."""

from ser_lightning.training.callbacks import BestCheckpoint, EarlyStopping, EpochSeed, LastCheckpoint
from ser_lightning.training.results import ResultFiles

__all__ = ["BestCheckpoint", "EarlyStopping", "EpochSeed", "LastCheckpoint", "ResultFiles"]
