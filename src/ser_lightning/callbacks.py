"""Callbacks under the public names that YAML files use."""

from ser_lightning.training.callbacks import BestCheckpoint, EarlyStopping, EpochSeed, LastCheckpoint
from ser_lightning.training.results import ResultFiles

__all__ = ["BestCheckpoint", "EarlyStopping", "EpochSeed", "LastCheckpoint", "ResultFiles"]
