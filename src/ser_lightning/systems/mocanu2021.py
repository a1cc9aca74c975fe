"""Mocanu et al. 2021: NetVLAD or GhostVLAD aggregation (S1-S3), and pre-training on speakers."""
# Shapes: B utterances, T frames (padded), F bins, E embedding dimensions, C classes or speakers.

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ser_lightning.losses import Criterion
from ser_lightning.metrics import SpeakerScores
from ser_lightning.nn.encoders import Encoder
from ser_lightning.nn.heads import EmbeddingNetwork
from ser_lightning.nn.pooling import Pooling
from ser_lightning.nn.standardisation import Normalisation, UtteranceStandardisation
from ser_lightning.nn.tensors import at_least_float32, frame_mask
from ser_lightning.systems.classifier import Decision, EmotionClassifier
from ser_lightning.systems.stages import start_from
from ser_lightning.systems.time_pooling import TimePooling
from ser_lightning.types import Batch


class SpeakerIdentification(EmotionClassifier):
    """Pre-training: an embedding network with a classifier of the training speakers.

    The paper states the corpus, VoxCeleb2, but not the loss: the YAML chooses softmax or AM-softmax. Scores are those
    of closed-set identification: ``UA`` is the mean recall of speakers, ``WA`` the accuracy, ``top_5`` the share of
    clips whose speaker is among the five most probable.

    Args:
        num_features: F; linked from the data module.
        class_names: The C speakers; linked from the data module.
        encoder: Makes the encoder of F bins, ``ThinSEResNet34``.
        pooling: Makes the aggregation over time, ``NetVLAD`` or ``GhostVLAD``.
        criterion: Training criterion.
        normalisation: What of a spectrogram has zero mean and unit deviation: ``per_frame``, ``per_spectrogram`` or
            ``per_bin``; in training over the crop, if utterances are cropped. ``none`` leaves magnitudes as they are.
        optimizer: Makes the optimiser.
        scheduler: Makes the learning-rate schedule; None keeps the rate constant.
        embedding_dim: Neurons of the fully connected layer that later stages start from.
    """

    is_pretraining: ClassVar[bool] = True

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        encoder: Callable[[int], Encoder],
        pooling: Callable[[int], Pooling],
        criterion: Criterion,
        normalisation: Normalisation,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        embedding_dim: int = 512,
    ) -> None:
        standardisation = UtteranceStandardisation(normalisation)
        super().__init__(num_features, class_names, criterion, optimizer, scheduler, standardisation)
        self.network = EmbeddingNetwork(num_features, encoder, pooling, embedding_dim, len(self.class_names))
        self.output = nn.Sequential(nn.ReLU(), criterion.head(embedding_dim, len(self.class_names)))
        self.evaluation_scores = SpeakerScores(len(self.class_names))

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        logits: Tensor = self.output(self.network(frames, mask))
        return logits

    def time_pooling(self) -> TimePooling:
        """Return the network's aggregation over time."""
        network = self.network
        return TimePooling(
            self.standardisation, network.descriptors, network.pooling, network.encoder.reduction_in_time
        )

    def _update_scores(self, decision: Decision, batch: Batch) -> None:
        self.evaluation_scores.update(decision.logits, batch.labels)


class SEResNetVLAD(EmotionClassifier):
    """S1, S2 and S3: the network from scratch, pre-trained, and with ghost clusters (section 5).

    The network ends in two fully connected layers, of 512 neurons and of one per emotion, and is trained with cross
    entropy. The ReLU between them is not stated; it follows the encoder's speaker-recognition network, and without an
    activation they would be a single layer.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        encoder: Makes the encoder of F bins, ``ThinSEResNet34``.
        pooling: Makes the aggregation over time, ``NetVLAD`` or ``GhostVLAD``.
        criterion: Training criterion.
        normalisation: What of a spectrogram has zero mean and unit deviation: ``per_frame``, ``per_spectrogram`` or
            ``per_bin``; in training over the crop, if utterances are cropped. ``none`` leaves magnitudes as they are.
        optimizer: Makes the optimiser.
        scheduler: Makes the learning-rate schedule; None keeps the rate constant.
        embedding_dim: Neurons of the first fully connected layer.
        pretrained_checkpoint: Checkpoint of an earlier stage; layers that fit are loaded, none is frozen (section 4.3).
            None trains from scratch.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        encoder: Callable[[int], Encoder],
        pooling: Callable[[int], Pooling],
        criterion: Criterion,
        normalisation: Normalisation,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        embedding_dim: int = 512,
        pretrained_checkpoint: str | Path | None = None,
    ) -> None:
        standardisation = UtteranceStandardisation(normalisation)
        super().__init__(num_features, class_names, criterion, optimizer, scheduler, standardisation)
        self.pretrained_checkpoint = None if pretrained_checkpoint is None else Path(pretrained_checkpoint)
        self.network = EmbeddingNetwork(num_features, encoder, pooling, embedding_dim, len(self.class_names))
        self.output = nn.Sequential(nn.ReLU(), criterion.head(embedding_dim, len(self.class_names)))

    def on_fit_start(self) -> None:
        """Load the network of the earlier stage."""
        start_from(self, self.network, self.pretrained_checkpoint, SpeakerIdentification, SEResNetVLAD)

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        logits: Tensor = self.output(self.network(frames, mask))
        return logits

    def time_pooling(self) -> TimePooling:
        """Return the network's aggregation over time."""
        network = self.network
        return TimePooling(
            self.standardisation, network.descriptors, network.pooling, network.encoder.reduction_in_time
        )

    def decide(self, batch: Batch) -> Decision:
        """Return logits, probabilities, predicted classes and embeddings of ``batch``."""
        mask = frame_mask(batch.lengths, batch.inputs.shape[1])
        embeddings = self.network(self.standardisation(batch.inputs, mask), mask)
        logits = at_least_float32(self.output(embeddings))
        return Decision(logits, self.criterion.probabilities(logits), logits.argmax(1), at_least_float32(embeddings))
