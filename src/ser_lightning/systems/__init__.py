"""Systems: one file per paper, each a LightningModule that can be read beside it."""

from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.systems.huang2020 import PooledLSTM

__all__ = ["EmotionClassifier", "PooledLSTM"]
