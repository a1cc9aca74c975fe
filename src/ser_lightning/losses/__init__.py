"""Training criteria in plain torch; none keeps state, what is fitted on data is passed in."""

from ser_lightning.losses.criterion import Criterion
from ser_lightning.losses.label_smoothing import LabelSmoothing

__all__ = ["Criterion", "LabelSmoothing"]
