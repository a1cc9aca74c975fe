"""Zhou & Liu 2020, discriminative feature learning for speech emotion recognition."""
# Shapes: B utterances, T frames (padded), F features, C classes, T' frames and D channels behind the encoders.

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import Criterion
from ser_lightning.nn.encoders import BidirectionalLSTM, ConvolutionBlock, ConvolutionStack
from ser_lightning.nn.pooling import Pooling
from ser_lightning.nn.tensors import frame_mask
from ser_lightning.systems.classifier import EmotionClassifier


class ConvBLSTMAttention(EmotionClassifier):
    """Six convolution blocks, a BLSTM layer, attention, a linear layer (section 3.1, figure 1), and its enhancements.

    The enhancements are other arguments: ``AMSoftmax`` (section 3.2; features and class weights are then normalised
    and the linear layer becomes cosines), ``FocalLoss`` (section 3.2), ``AttentiveStatisticsPooling`` (section 3.3).

    The text counts fewer than 360 thousand parameters and 64 deep features, which 64 cells on each direction cannot
    give: 32 cells on each, concatenated, do (359,620); 64 on each, summed, come to 400,836. It does not state the
    activation of the convolutions, here ReLU behind the batch norm.

    The paper pads signals with zeros; here frames are padded after they were standardised, with zeros again, which
    are average frames: the logarithm of a silence that no recording holds depends on the extractor's floor alone.

    Args:
        num_features: F; linked from the data module. At least 32, which five poolings leave one bin of.
        class_names: The C emotions; linked from the data module.
        pooling: Makes the pooling of D channels: ``WeightedPooling`` is eq. 4, ``AttentiveStatisticsPooling`` eqs. 4-5.
        criterion: Training criterion; the baseline's cross entropy is a ``WeightedCrossEntropy`` without weights.
        optimizer: Makes the optimiser of the parameters.
        channels: Filters of each convolution; all but the last are followed by average pooling.
        cells: Memory cells of the BLSTM on each direction.
        combine: Whether its directions are concatenated or summed.
        dropout: Dropout rate behind each convolution.
        max_frames: Longer utterances are trimmed to their first so many frames; none are when absent.
        pad_to_max: Let padding up to ``max_frames`` count as real, as in the paper; otherwise it never matters.

    Raises:
        ConfigurationError: If ``pad_to_max`` has no ``max_frames`` to pad to, or ``channels`` or ``max_frames`` is less
            than a network or an utterance is made of.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        pooling: Callable[[int], Pooling],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.Adam,
        channels: Sequence[int] = (128, 128, 64, 64, 64, 64),
        cells: int = 32,
        combine: Literal["concatenate", "sum"] = "concatenate",
        dropout: float = 0.0,
        max_frames: int | None = None,
        pad_to_max: bool = False,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer)
        if not channels or min(channels) < 1:
            raise ConfigurationError(f"channels is {list(channels)}; give one number or more, each at least 1")
        if max_frames is not None and max_frames < 1:
            raise ConfigurationError(f"max_frames is {max_frames}; give 1 or more, or leave it out to hear all frames")
        if pad_to_max and max_frames is None:
            raise ConfigurationError("pad_to_max is true and max_frames absent; say to how many frames to pad")
        self.max_frames = max_frames
        self.pad_to_max = pad_to_max
        last = len(channels) - 1
        blocks = [
            ConvolutionBlock(before, after, (3, 3), pooling=None if n == last else "average", dropout=dropout)
            for n, (before, after) in enumerate(pairwise((1, *channels)))
        ]
        self.convolutions = ConvolutionStack(num_features, blocks)
        self.blstm = BidirectionalLSTM(self.convolutions.output_dim, cells, combine)
        self.pooling = pooling(self.blstm.output_dim)
        self.pooling.fit_to_classes(len(self.class_names))
        self.output = criterion.head(self.pooling.output_dim, len(self.class_names))

    def descriptors(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return what attention is paid to: BLSTM states [B, T', D], and which of them are real [B, T'].

        Args:
            frames: Standardised frames [B, T, F], zero past the end.
            mask: Which are real [B, T].
        """
        lengths = mask.sum(1)
        if self.max_frames is not None:
            lengths = lengths.clamp(max=self.max_frames)
            frames = frames[:, : self.max_frames]
            if self.pad_to_max:
                frames = F.pad(frames, (0, 0, 0, self.max_frames - frames.shape[1]))
                lengths = torch.full_like(lengths, self.max_frames)
        states, lengths = self.blstm(*self.convolutions(frames, lengths))
        return states, frame_mask(lengths, states.shape[1])

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        logits: Tensor = self.output(self.pooling(*self.descriptors(frames, mask)))
        return logits

    def attention(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """Return the attention [B, T'] that ``frames`` [B, T, F] of ``lengths`` [B] get, and the frames of a step."""
        mask = frame_mask(lengths, frames.shape[1])
        weights = self.pooling.weights(*self.descriptors(self.standardisation(frames, mask), mask))
        return super().attention(frames, lengths) if weights is None else (weights, self.convolutions.reduction)
