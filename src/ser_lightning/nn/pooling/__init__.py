"""Poolings: frame-level descriptors [B, T, D] to one utterance-level vector [B, output_dim]."""

from ser_lightning.nn.pooling.attention import SelfAttentionPooling, WeightedPooling
from ser_lightning.nn.pooling.pooling import Pooling
from ser_lightning.nn.pooling.statistics import AttentiveStatisticsPooling
from ser_lightning.nn.pooling.temporal import FinalPooling, MaxPooling, MeanPooling
from ser_lightning.nn.pooling.vlad import GhostVLAD, NetVLAD

__all__ = [
    "AttentiveStatisticsPooling",
    "FinalPooling",
    "GhostVLAD",
    "MaxPooling",
    "MeanPooling",
    "NetVLAD",
    "Pooling",
    "SelfAttentionPooling",
    "WeightedPooling",
]
