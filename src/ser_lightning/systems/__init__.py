"""Systems: one or two files per paper, each a LightningModule to read next to it."""

from ser_lightning.systems.ando2019 import DominantEmotionRecognition, ExistencePretraining, MultiLabelEmotionExistence
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.systems.fine_tuned import FineTunedEncoder
from ser_lightning.systems.functionals_svm import FunctionalsSVM
from ser_lightning.systems.huang2020 import PooledLSTM
from ser_lightning.systems.mocanu2021 import SEResNetVLAD, SpeakerIdentification
from ser_lightning.systems.mocanu2021_metric import MetricLearning
from ser_lightning.systems.pooled_frames import PooledFrames
from ser_lightning.systems.zhou2020 import ConvBLSTMAttention

__all__ = [
    "ConvBLSTMAttention",
    "DominantEmotionRecognition",
    "EmotionClassifier",
    "ExistencePretraining",
    "FineTunedEncoder",
    "FunctionalsSVM",
    "MetricLearning",
    "MultiLabelEmotionExistence",
    "PooledFrames",
    "PooledLSTM",
    "SEResNetVLAD",
    "SpeakerIdentification",
]
