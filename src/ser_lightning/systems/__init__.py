"""Systems: a file or two per paper, each a LightningModule that can be read beside it."""

from ser_lightning.systems.ando2019 import DominantEmotionRecognition, MultiLabelEmotionExistence
from ser_lightning.systems.ando2019_pretraining import ExistencePretraining
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.systems.huang2020 import PooledLSTM
from ser_lightning.systems.metric_learning import MetricLearning
from ser_lightning.systems.mocanu2021 import SEResNetVLAD
from ser_lightning.systems.speaker_id import SpeakerIdentification
from ser_lightning.systems.zhou2020 import ConvBLSTMAttention

__all__ = [
    "ConvBLSTMAttention",
    "DominantEmotionRecognition",
    "EmotionClassifier",
    "ExistencePretraining",
    "MetricLearning",
    "MultiLabelEmotionExistence",
    "PooledLSTM",
    "SEResNetVLAD",
    "SpeakerIdentification",
]
