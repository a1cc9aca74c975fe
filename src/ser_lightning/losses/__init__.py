"""Training criteria in plain torch; none keeps state, what is fitted on data is passed in."""

from ser_lightning.losses.am_softmax import AMSoftmax
from ser_lightning.losses.criterion import Criterion
from ser_lightning.losses.existence import ExistenceLoss
from ser_lightning.losses.focal import FocalLoss
from ser_lightning.losses.label_smoothing import LabelSmoothing
from ser_lightning.losses.weighted_cross_entropy import WeightedCrossEntropy

__all__ = ["AMSoftmax", "Criterion", "ExistenceLoss", "FocalLoss", "LabelSmoothing", "WeightedCrossEntropy"]
