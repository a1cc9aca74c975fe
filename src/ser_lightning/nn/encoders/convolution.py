"""Convolutions over frequency and time that padding never reaches."""
# Shapes: B utterances, C channels, F bins, T frames (padded); maps are [B, C, F, T], kernels frequency x time.

from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.nn.encoders.encoder import Encoder
from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.masking import frame_mask

POOLINGS = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class ConvolutionBlock(nn.Module):
    """Convolution, batch norm, ReLU, 2x2 pooling and dropout.

    The convolution pads with zeros to the "same" size: output i of stride s is centred on input i * s, the middle of
    an even kernel lying before its centre, so that n frames give ceil(n / s), of which pooling leaves half, rounded
    down. What an utterance gives depends on the utterance alone: frames past its end are zero when a convolution
    reads them, and no pooling window reaches across the end.

    Args:
        input_channels: C of the maps that come in.
        output_channels: C of the maps that go out.
        kernel: Size in bins and frames.
        stride: Step of the convolution in bins and frames.
        pooling: What 2x2 pooling does, or none.
        dropout: Dropout rate behind the pooling.
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        pooling: Literal["average", "max"] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.output_channels = output_channels
        self.kernel = kernel
        self.stride = stride
        self.window = 1 if pooling is None else 2
        before = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
        self.convolution = nn.Conv2d(input_channels, output_channels, kernel, stride, padding=before)
        self.norm = MaskedBatchNorm(output_channels)
        self.pooling = nn.Identity() if pooling is None else POOLINGS[pooling](2)
        self.dropout = nn.Dropout(dropout)

    @property
    def reduction(self) -> int:
        """Frames that one frame of the result stands for."""
        return self.stride[1] * self.window

    def num_bins(self, num_bins: int) -> int:
        """Return how many bins of the result ``num_bins`` give."""
        return -(-num_bins // self.stride[0]) // self.window

    def forward(self, maps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps [B, C', F', T'], zero past the end, and their lengths [B].

        Args:
            maps: [B, C, F, T], zero past the end, with T a multiple of ``reduction`` or larger than it.
            lengths: [B], none less than ``reduction``.
        """
        if 0 in (self.kernel[0] % 2, self.kernel[1] % 2):
            maps = F.pad(maps, (0, 1 - self.kernel[1] % 2, 0, 1 - self.kernel[0] % 2))
        maps = self.convolution(maps)
        lengths = (lengths + self.stride[1] - 1) // self.stride[1]
        maps = self.pooling(self.norm(maps, frame_mask(lengths, maps.shape[3])).relu_())
        lengths = lengths // self.window
        maps = maps.masked_fill(~frame_mask(lengths, maps.shape[3])[:, None, None], 0.0)
        return self.dropout(maps), lengths


class ConvolutionStack(Encoder):
    """Convolution blocks one after the other; each frame of the result holds all channels of all remaining bins.

    Poolings leave out a last odd frame or bin, as is usual. An utterance shorter than one frame of the result stands
    for counts as padded to that length: with zeros, that is, with average frames where features are standardised.

    Args:
        input_dim: F of the input.
        blocks: At least one, the first of one input channel.

    Raises:
        ValueError: If no bin remains.
    """

    def __init__(self, input_dim: int, blocks: Sequence[ConvolutionBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.reduction = prod(block.reduction for block in blocks)
        num_bins = input_dim
        for block in blocks:
            num_bins = block.num_bins(num_bins)
        if num_bins == 0:
            raise ValueError(f"{input_dim} features a frame are too few: of the convolutions' result, no bin remains")
        self.output_dim = blocks[-1].output_channels * num_bins

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors [B, T', D] of ``frames`` [B, T, F] with ``lengths`` [B], and their lengths [B]."""
        num_frames = frames.shape[1]
        maps = frames.masked_fill(~frame_mask(lengths, num_frames).unsqueeze(2), 0.0).transpose(1, 2).unsqueeze(1)
        maps = F.pad(maps, (0, max(0, self.reduction - num_frames)))
        lengths = lengths.clamp(min=self.reduction)
        for block in self.blocks:
            maps, lengths = block(maps, lengths)
        return maps.permute(0, 3, 1, 2).flatten(2), lengths
