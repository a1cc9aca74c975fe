"""Poolings: frame-level descriptors [B, T, D] to one utterance-level vector [B, output_dim]."""

from ser_lightning.nn.pooling.attention import WeightedPooling
from ser_lightning.nn.pooling.pooling import Pooling
from ser_lightning.nn.pooling.temporal import FinalPooling, MaxPooling, MeanPooling
from ser_lightning.nn.pooling.vlad import NetVLAD

__all__ = ["FinalPooling", "MaxPooling", "MeanPooling", "NetVLAD", "Pooling", "WeightedPooling"]
