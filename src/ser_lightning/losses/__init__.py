"""Training criteria in plain torch, without state; statistics of the data are passed in."""

from ser_lightning.losses.am_softmax import AMSoftmax
from ser_lightning.losses.criterion import Criterion
from ser_lightning.losses.emotion_constraint import EmotionConstraint
from ser_lightning.losses.existence import ExistenceLoss
from ser_lightning.losses.focal import FocalLoss
from ser_lightning.losses.label_smoothing import LabelSmoothing
from ser_lightning.losses.metric_loss import MetricLoss
from ser_lightning.losses.triplet import TripletLoss
from ser_lightning.losses.weighted_cross_entropy import WeightedCrossEntropy

__all__ = [
    "AMSoftmax",
    "Criterion",
    "EmotionConstraint",
    "ExistenceLoss",
    "FocalLoss",
    "LabelSmoothing",
    "MetricLoss",
    "TripletLoss",
    "WeightedCrossEntropy",
]
