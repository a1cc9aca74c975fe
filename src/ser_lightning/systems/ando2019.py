"""Ando et al. 2019, "Speech Emotion Recognition based on Multi-Label Emotion Existence Model"."""
# Shapes: B utterances, T frames (padded), F bins, C classes, T' frames and D channels after the encoders.

from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import Criterion
from ser_lightning.nn.encoders import BidirectionalLSTM, ConvolutionBlock, ConvolutionStack
from ser_lightning.nn.pooling import SelfAttentionPooling
from ser_lightning.nn.standardisation import Standardisation
from ser_lightning.nn.tensors import frame_mask
from ser_lightning.systems.classifier import CHECKPOINT_KEY, EmotionClassifier
from ser_lightning.systems.stages import check_same_extractor, check_unseen_speakers, load_parts, read_stage
from ser_lightning.systems.time_pooling import TimePooling, TimeWeights
from ser_lightning.types import Statistics

KERNELS = ((12, 16), (8, 12), (5, 7))  # table 2; read as frequency x time, which the paper does not state
STRIDES = ((2, 2), (1, 1), (1, 1))


class UtteranceEncoder(nn.Module):
    """Three convolutions, a BLSTM layer and self-attention: one vector per utterance (table 2, "Encoder").

    Each convolution is followed by batch norm, ReLU and 2x2 max pooling (section 4.1).

    Attributes:
        output_dim: Size of the vector.

    Args:
        num_features: F, at least 16: the convolutions reduce 16 bins to one.
        channels: Channels of the three convolutions.
        cells: Memory cells of the BLSTM per direction; directions are concatenated.
        attention_dim: Hidden units of the self-attention.

    Raises:
        ConfigurationError: If ``channels`` does not have three entries.
    """

    def __init__(self, num_features: int, channels: Sequence[int], cells: int, attention_dim: int) -> None:
        super().__init__()
        if len(channels) != len(KERNELS):
            raise ConfigurationError(f"channels is {list(channels)}; there are {len(KERNELS)} convolutions")
        sizes = zip((1, *channels), channels, KERNELS, STRIDES, strict=False)
        self.convolutions = ConvolutionStack(num_features, [ConvolutionBlock(*size, pooling="max") for size in sizes])
        self.blstm = BidirectionalLSTM(self.convolutions.output_dim, cells)
        self.pooling = SelfAttentionPooling(self.blstm.output_dim, attention_dim)
        self.output_dim = self.pooling.output_dim

    def descriptors(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the attention (figure 3): BLSTM states [B, T', D] and their mask [B, T'].

        Args:
            frames: Standardised frames [B, T, F].
            mask: True for real frames [B, T].
        """
        states, lengths = self.blstm(*self.convolutions(frames, mask.sum(1)))
        return states, frame_mask(lengths, states.shape[1])

    def time_pooling(self, standardisation: nn.Module) -> TimePooling:
        """Return the self-attention of an encoder that comes after ``standardisation``."""
        return TimePooling(standardisation, self.descriptors, self.pooling, self.convolutions.reduction_in_time)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Encode standardised ``frames`` [B, T, F] under ``mask`` [B, T] as vectors [B, output_dim]."""
        vectors: Tensor = self.pooling(*self.descriptors(frames, mask))
        return vectors


def dense_classifier(input_dim: int, hidden_dim: int, num_classes: int, criterion: Criterion) -> nn.Sequential:
    """Return two dense layers (table 2, "Classifier"); the ReLU between them is not stated."""
    return nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.ReLU(), criterion.head(hidden_dim, num_classes))


class DominantEmotionRecognition(EmotionClassifier):
    """Encoder and classifier trained on the dominant emotion (section 2, figure 1; table 2).

    The data module chooses hard or soft targets (eqs. 3 and 4); ``WeightedCrossEntropy`` takes both.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        criterion: Training criterion.
        optimizer: Makes the optimiser.
        channels: Channels of the encoder's three convolutions.
        cells: Memory cells of the encoder's BLSTM per direction.
        attention_dim: Hidden units of the encoder's self-attention.
        hidden_dim: Units of the classifier's first layer.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.Adam,
        channels: Sequence[int] = (16, 24, 32),
        cells: int = 128,
        attention_dim: int = 128,
        hidden_dim: int = 64,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer)
        self.encoder = UtteranceEncoder(num_features, channels, cells, attention_dim)
        self.classifier = dense_classifier(self.encoder.output_dim, hidden_dim, len(self.class_names), criterion)

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        logits: Tensor = self.classifier(self.encoder(frames, mask))
        return logits

    def time_pooling(self) -> TimePooling:
        """Return the encoder's self-attention."""
        return self.encoder.time_pooling(self.standardisation)


class MultiLabelEmotionExistence(EmotionClassifier):
    """MLEE: the same network with a sigmoid output per emotion, the probability that it exists (section 3.1).

    Used alone, it predicts the emotion with the highest existence probability (section 3.2.1, eq. 7). Trained with
    ``ExistenceLoss`` on existence targets (eqs. 5 and 6).

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        criterion: Training criterion.
        optimizer: Makes the optimiser.
        channels: Channels of the encoder's three convolutions.
        cells: Memory cells of the encoder's BLSTM per direction.
        attention_dim: Hidden units of the encoder's self-attention.
        hidden_dim: Units of the classifier's first layer.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.Adam,
        channels: Sequence[int] = (16, 24, 32),
        cells: int = 128,
        attention_dim: int = 128,
        hidden_dim: int = 64,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer)
        self.encoder = UtteranceEncoder(num_features, channels, cells, attention_dim)
        self.classifier = dense_classifier(self.encoder.output_dim, hidden_dim, len(self.class_names), criterion)

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C], before the sigmoid, of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        logits: Tensor = self.classifier(self.encoder(frames, mask))
        return logits

    def time_pooling(self) -> TimePooling:
        """Return the encoder's self-attention."""
        return self.encoder.time_pooling(self.standardisation)


STAGE_SYSTEMS: dict[str, type[EmotionClassifier]] = {
    "existence_checkpoint": MultiLabelEmotionExistence,
    "dominant_checkpoint": DominantEmotionRecognition,
}


class FrozenEncoder(nn.Module):
    """A frozen encoder of an earlier stage, with the standardisation it was trained with.

    It stays in evaluation mode, so that batch norm keeps its statistics.

    Args:
        num_features: F.
        channels: Channels of the three convolutions.
        cells: Memory cells of the BLSTM per direction.
        attention_dim: Hidden units of the self-attention.
    """

    def __init__(self, num_features: int, channels: Sequence[int], cells: int, attention_dim: int) -> None:
        super().__init__()
        self.standardisation = Standardisation(num_features)
        self.encoder = UtteranceEncoder(num_features, channels, cells, attention_dim)
        self.output_dim = self.encoder.output_dim
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode; ``mode`` is ignored."""
        return super().train(False)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Encode raw ``frames`` [B, T, F] under ``mask`` [B, T] as vectors [B, output_dim]."""
        vectors: Tensor = self.encoder(self.standardisation(frames, mask), mask)
        return vectors


class ExistencePretraining(EmotionClassifier):
    """MLEE pre-training (section 3.2.2) and pre-training fusion (section 3.2.3).

    A new classifier on a frozen encoder trained on emotion existence. Fusion concatenates the vectors of a second
    frozen encoder, trained on the dominant emotion. Encoders trained on this fold's evaluation speakers are rejected.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        criterion: Training criterion.
        optimizer: Makes the classifier's optimiser.
        existence_checkpoint: Checkpoint of a ``MultiLabelEmotionExistence`` of the same fold; required for training.
        fusion: Whether there is a second encoder.
        dominant_checkpoint: Checkpoint of a ``DominantEmotionRecognition`` of the same fold; required for fusion.
        channels: Channels of the encoders' three convolutions.
        cells: Memory cells of the encoders' BLSTM per direction.
        attention_dim: Hidden units of the encoders' self-attention.
        hidden_dim: Units of the classifier's first layer.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.Adam,
        existence_checkpoint: str | Path | None = None,
        fusion: bool = False,
        dominant_checkpoint: str | Path | None = None,
        channels: Sequence[int] = (16, 24, 32),
        cells: int = 128,
        attention_dim: int = 128,
        hidden_dim: int = 64,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer)
        self.sources["existence_checkpoint"] = None if existence_checkpoint is None else Path(existence_checkpoint)
        if fusion:
            self.sources["dominant_checkpoint"] = None if dominant_checkpoint is None else Path(dominant_checkpoint)
        encoders = [FrozenEncoder(num_features, channels, cells, attention_dim) for _ in self.sources]
        self.encoders = nn.ModuleList(encoders)
        width = sum(encoder.output_dim for encoder in encoders)
        self.classifier = dense_classifier(width, hidden_dim, len(self.class_names), criterion)

    def fit_standardisation(self, statistics: Statistics) -> None:
        """Do nothing: each encoder brings the standardisation it was trained with, see ``on_fit_start``."""

    def on_fit_start(self) -> None:
        """Load the encoders of the earlier stages; a resumed run has them in its own checkpoint."""
        if self.trainer.ckpt_path is not None:
            return
        data_module = self.data_module
        self.origin["earlier"] = []
        split = data_module.split()
        evaluated = {name: split.speakers(name) for name in ("validation", "test")}
        for encoder, (argument, path) in zip(self.encoders, self.sources.items(), strict=True):
            checkpoint = read_stage(path, argument, STAGE_SYSTEMS[argument])
            check_same_extractor(checkpoint, Path(str(path)), self.origin["extractor"])
            check_unseen_speakers(checkpoint, Path(str(path)), data_module.corpus_name, evaluated, split.hash)
            parts = {"encoder.": "encoder.", "standardisation.": "standardisation."}
            load_parts(encoder, checkpoint, parts, Path(str(path)))
            self.origin["earlier"].append(checkpoint[CHECKPOINT_KEY]["origin"])
        # Not used here; it records the statistics of the frames that the encoders were trained on.
        self.standardisation.load_state_dict(cast(FrozenEncoder, self.encoders[0]).standardisation.state_dict())

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, C] of raw ``frames`` [B, T, F] with ``lengths`` [B]; each encoder standardises them."""
        return self.classify(frames, frame_mask(lengths, frames.shape[1]))

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of raw ``frames`` [B, T, F] under ``mask`` [B, T]."""
        vectors = torch.cat([encoder(frames, mask) for encoder in self.encoders], 1)
        logits: Tensor = self.classifier(vectors)
        return logits

    def time_pooling(self) -> TimePooling | None:
        """Return the encoder's self-attention; None for a fusion, which has two encoders."""
        first = cast(FrozenEncoder, self.encoders[0])
        return first.encoder.time_pooling(first.standardisation) if len(self.encoders) == 1 else None

    def attention(self, frames: Tensor, lengths: Tensor) -> TimeWeights:
        """Return the encoder's attention [B, T'] over ``frames`` [B, T, F] with ``lengths`` [B].

        Raises:
            ConfigurationError: For a fusion, whose encoders have different attention.
        """
        if len(self.encoders) > 1:
            raise ConfigurationError(
                f"{type(self).__name__} with fusion has attention in each encoder; use the checkpoints it started from"
            )
        return super().attention(frames, lengths)
