"""Zhou & Liu 2020, discriminative feature learning for speech emotion recognition."""
# Shapes: B utterances, T frames (padded), F features, C classes, T' frames and D channels after the encoders.

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
from ser_lightning.systems.time_pooling import TimePooling


class ConvBLSTMAttention(EmotionClassifier):
    """Six convolution blocks, a BLSTM layer, attention and a linear layer (section 3.1, figure 1), with enhancements.

    The enhancements are arguments: ``AMSoftmax`` (section 3.2; features and class weights are normalised, the linear
    layer computes cosines), ``FocalLoss`` (section 3.2) and ``AttentiveStatisticsPooling`` (section 3.3).

    The paper states fewer than 360 thousand parameters and 64 deep features, which 64 cells per direction cannot give:
    32 per direction, concatenated, do (359,620); 64, summed, give 400,836. The activation of the convolutions is not
    stated; here ReLU follows the batch norm.

    The paper pads signals with zeros. Here standardised frames are padded with zeros, which are average frames: the
    logarithm of digital silence would depend only on the extractor's floor.

    Args:
        num_features: F; linked from the data module. At least 32: five poolings reduce 32 bins to one.
        class_names: The C emotions; linked from the data module.
        pooling: Makes the pooling of D channels: ``WeightedPooling`` is eq. 4, ``AttentiveStatisticsPooling`` eqs. 4-5.
        criterion: Training criterion; the baseline's is ``WeightedCrossEntropy`` without weights.
        optimizer: Makes the optimiser.
        channels: Filters of each convolution; all but the last are followed by average pooling.
        cells: Memory cells of the BLSTM per direction.
        combine: Whether the directions are concatenated or summed.
        dropout: Dropout rate after each convolution.
        max_frames: Longer utterances are trimmed to this many frames; None keeps all frames.
        pad_to_max: Treat padding up to ``max_frames`` as real frames, as in the paper; otherwise it is masked.

    Raises:
        ConfigurationError: If ``pad_to_max`` lacks ``max_frames``, or if ``channels`` is empty or it or ``max_frames``
            is less than 1.
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
            raise ConfigurationError(f"channels is {list(channels)}; give one or more numbers, each at least 1")
        if max_frames is not None and max_frames < 1:
            raise ConfigurationError(f"max_frames is {max_frames}; give 1 or more, or null to keep all frames")
        if pad_to_max and max_frames is None:
            raise ConfigurationError("pad_to_max is true but max_frames is missing; set max_frames")
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
        """Return the inputs of the attention: BLSTM states [B, T', D] and their mask [B, T'].

        Args:
            frames: Standardised frames [B, T, F], zero past the end.
            mask: True for real frames [B, T].
        """
        lengths = mask.sum(1)
        if self.max_frames is not None:
            lengths = lengths.clamp(max=self.max_frames)
            frames = frames[:, : self.max_frames]
            if self.pad_to_max:
                frames = F.pad(frames, (0, 0, 0, self.max_frames - frames.shape[1]))
                lengths = torch.full_like(lengths, self.max_frames)
        states, lengths = self.blstm(*self.convolutions(frames, lengths, self.pad_to_max))
        return states, frame_mask(lengths, states.shape[1])

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        logits: Tensor = self.output(self.pooling(*self.descriptors(frames, mask)))
        return logits

    def time_pooling(self) -> TimePooling:
        """Return the pooling over the BLSTM's states."""
        return TimePooling(self.standardisation, self.descriptors, self.pooling, self.convolutions.reduction_in_time)
