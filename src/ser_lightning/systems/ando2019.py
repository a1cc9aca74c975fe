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
from ser_lightning.types import Statistics

KERNELS = ((12, 16), (8, 12), (5, 7))  # table 2; taken as frequency x time, which the paper does not say
STRIDES = ((2, 2), (1, 1), (1, 1))


class UtteranceEncoder(nn.Module):
    """Three convolutions, a BLSTM layer and self-attention: one vector for each utterance (table 2, "Encoder").

    Each convolution is followed by batch norm, ReLU and 2x2 max pooling (section 4.1).

    Attributes:
        output_dim: Size of the vector.

    Args:
        num_features: F, at least 16, which the convolutions leave one bin of.
        channels: Channels of the three convolutions.
        cells: Memory cells of the BLSTM on each direction; the directions are concatenated.
        attention_dim: Hidden units of the self-attention.

    Raises:
        ConfigurationError: If there are not three numbers of channels.
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
        """Return what attention is paid to (figure 3): BLSTM states [B, T', D], and which of them are real [B, T'].

        Args:
            frames: Standardised frames [B, T, F].
            mask: Which are real [B, T].
        """
        states, lengths = self.blstm(*self.convolutions(frames, mask.sum(1)))
        return states, frame_mask(lengths, states.shape[1])

    def attention(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, int]:
        """Return the attention [B, T'] that standardised ``frames`` [B, T, F] get, and the frames of a step."""
        return self.pooling.weights(*self.descriptors(frames, mask)), self.convolutions.reduction

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return one vector [B, output_dim] for each utterance of ``frames`` [B, T, F] under ``mask`` [B, T]."""
        vectors: Tensor = self.pooling(*self.descriptors(frames, mask))
        return vectors


def dense_classifier(input_dim: int, hidden_dim: int, num_classes: int, criterion: Criterion) -> nn.Sequential:
    """Return two dense layers (table 2, "Classifier"); the activation between them, ReLU, is not stated."""
    return nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.ReLU(), criterion.head(hidden_dim, num_classes))


class DominantEmotionRecognition(EmotionClassifier):
    """Encoder and classifier that learn the dominant emotion (section 2, figure 1; table 2).

    Hard and soft targets (eqs. 3 and 4) are the data module's choice; ``WeightedCrossEntropy`` serves both.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        criterion: Training criterion.
        optimizer: Makes the optimiser of the parameters.
        channels: Channels of the encoder's three convolutions.
        cells: Memory cells of its BLSTM on each direction.
        attention_dim: Hidden units of its self-attention.
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

    def attention(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """Return the attention [B, T'] that ``frames`` [B, T, F] of ``lengths`` [B] get, and the frames of a step."""
        mask = frame_mask(lengths, frames.shape[1])
        return self.encoder.attention(self.standardisation(frames, mask), mask)


class MultiLabelEmotionExistence(EmotionClassifier):
    """MLEE: the same network, whose sigmoid outputs say for each emotion whether it exists (section 3.1).

    Used alone it decides for the emotion of the highest existence probability (section 3.2.1, eq. 7). Learned with
    ``ExistenceLoss`` from existence targets (eqs. 5 and 6).

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        criterion: Training criterion.
        optimizer: Makes the optimiser of the parameters.
        channels: Channels of the encoder's three convolutions.
        cells: Memory cells of its BLSTM on each direction.
        attention_dim: Hidden units of its self-attention.
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

    def attention(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """Return the attention [B, T'] that ``frames`` [B, T, F] of ``lengths`` [B] get, and the frames of a step."""
        mask = frame_mask(lengths, frames.shape[1])
        return self.encoder.attention(self.standardisation(frames, mask), mask)


STAGE_SYSTEMS: dict[str, type[EmotionClassifier]] = {
    "existence_checkpoint": MultiLabelEmotionExistence,
    "dominant_checkpoint": DominantEmotionRecognition,
}


class FrozenEncoder(nn.Module):
    """An encoder of an earlier stage with the standardisation it was trained with; nothing of it changes any more.

    It stays in evaluation mode, so that batch norm keeps its statistics and dropout stays out.

    Args:
        num_features: F.
        channels: Channels of the three convolutions.
        cells: Memory cells of the BLSTM on each direction.
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
        """Stay in evaluation mode, whatever is asked for."""
        return super().train(False)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return one vector [B, output_dim] for each utterance of raw ``frames`` [B, T, F] under ``mask`` [B, T]."""
        vectors: Tensor = self.encoder(self.standardisation(frames, mask), mask)
        return vectors

    def attention(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, int]:
        """Return the attention [B, T'] that raw ``frames`` [B, T, F] get under ``mask`` [B, T], and a step's frames."""
        return self.encoder.attention(self.standardisation(frames, mask), mask)


class ExistencePretraining(EmotionClassifier):
    """MLEE pre-training (section 3.2.2) and pre-training fusion (section 3.2.3).

    A frozen encoder that has learned which emotions exist, for fusion beside one that has learned the dominant emotion
    (their vectors concatenated), and a new classifier. An encoder that has heard a speaker of this fold's validation
    or test set is refused.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        criterion: Training criterion.
        optimizer: Makes the optimiser of the classifier's parameters.
        existence_checkpoint: Checkpoint of a ``MultiLabelEmotionExistence`` of the same fold; needed to train.
        fusion: Whether there is a second encoder.
        dominant_checkpoint: Checkpoint of a ``DominantEmotionRecognition`` of the same fold; needed to train a fusion.
        channels: Channels of the encoders' three convolutions.
        cells: Memory cells of their BLSTM on each direction.
        attention_dim: Hidden units of their self-attention.
        hidden_dim: Units of the classifier's first layer.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.Adam,
        existence_checkpoint: Path | None = None,
        fusion: bool = False,
        dominant_checkpoint: Path | None = None,
        channels: Sequence[int] = (16, 24, 32),
        cells: int = 128,
        attention_dim: int = 128,
        hidden_dim: int = 64,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer)
        self.sources["existence_checkpoint"] = existence_checkpoint
        if fusion:
            self.sources["dominant_checkpoint"] = dominant_checkpoint
        encoders = [FrozenEncoder(num_features, channels, cells, attention_dim) for _ in self.sources]
        self.encoders = nn.ModuleList(encoders)
        width = sum(encoder.output_dim for encoder in encoders)
        self.classifier = dense_classifier(width, hidden_dim, len(self.class_names), criterion)

    def fit_standardisation(self, statistics: Statistics) -> None:
        """Read no frame: each encoder has the standardisation it was trained with, see ``on_fit_start``."""

    def on_fit_start(self) -> None:
        """Take the encoders of the stages before; a run that goes on has them in its own checkpoint."""
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
        # Nothing is computed with it here; it says how the frames are spread that the encoders have learned from.
        self.standardisation.load_state_dict(cast(FrozenEncoder, self.encoders[0]).standardisation.state_dict())

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, C] of ``frames`` [B, T, F] with ``lengths`` [B]; each encoder standardises for itself."""
        return self.classify(frames, frame_mask(lengths, frames.shape[1]))

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of raw ``frames`` [B, T, F] under ``mask`` [B, T]."""
        vectors = torch.cat([encoder(frames, mask) for encoder in self.encoders], 1)
        logits: Tensor = self.classifier(vectors)
        return logits

    def attention(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """Return the attention [B, T'] that ``frames`` [B, T, F] of ``lengths`` [B] get, and the frames of a step.

        Raises:
            ConfigurationError: For a fusion, whose encoders each have their own.
        """
        if len(self.encoders) > 1:
            raise ConfigurationError(
                f"{type(self).__name__} with fusion attends in each encoder; take the checkpoints it started from"
            )
        mask = frame_mask(lengths, frames.shape[1])
        return cast(FrozenEncoder, self.encoders[0]).attention(frames, mask)
