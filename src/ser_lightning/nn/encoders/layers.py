"""Padding-invariant encoder layers: convolution over frequency and time, and a bidirectional LSTM."""
# Shapes: B utterances, C channels, F bins or features, T frames (padded), T' frames of the result (padded), D channels,
# H cells a direction; maps are [B, C, F, T], kernels frequency x time.

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.encoders.real_frames import RealFrames
from ser_lightning.nn.tensors import frame_mask, recurrent_states


class Encoder(nn.Module, ABC):
    """Turn frames into descriptors, possibly fewer than frames.

    Attributes:
        output_dim: D.
        reduction_in_time: Frames per descriptor.
    """

    output_dim: int
    reduction_in_time: int = 1

    @abstractmethod
    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors [B, T', D] of ``frames`` [B, T, F] with ``lengths`` [B], and their lengths [B].

        Every utterance has at least one frame and at least one descriptor. Padding may hold any finite values;
        descriptors past the end are zero.
        """


POOLINGS = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class ConvolutionBlock(nn.Module):
    """Convolution, batch norm, ReLU, 2x2 pooling and dropout.

    The convolution pads with zeros to the "same" size: output i of stride s is centred on input i * s, with the middle
    of an even kernel before its centre, so that n frames give ceil(n / s); pooling halves that, rounded down. Padding
    never changes the result: frames past the end are zero, and no pooling window crosses the end.

    Args:
        input_channels: C of the maps that come in.
        output_channels: C of the maps that go out.
        kernel: Size in bins and frames.
        stride: Step of the convolution in bins and frames.
        pooling: Kind of 2x2 pooling, or none.
        dropout: Dropout rate after the pooling.
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
        """Input frames per output frame."""
        return self.stride[1] * self.window

    def num_bins(self, num_bins: int) -> int:
        """Return the number of output bins for ``num_bins`` input bins."""
        return -(-num_bins // self.stride[0]) // self.window

    def forward(self, maps: Tensor, frames: RealFrames) -> tuple[Tensor, RealFrames]:
        """Return maps [B, C', F', T'], zero past the end, and their real frames.

        Args:
            maps: [B, C, F, T], zero past the end, with T a multiple of ``reduction`` or larger than it.
            frames: Their real frames; no length is less than ``reduction``.
        """
        if 0 in (self.kernel[0] % 2, self.kernel[1] % 2):
            maps = F.pad(maps, (0, 1 - self.kernel[1] % 2, 0, 1 - self.kernel[0] % 2))
        maps = self.convolution(maps)
        if self.stride != (1, 1):
            lengths = (frames.lengths + self.stride[1] - 1) // self.stride[1]
            frames = RealFrames(lengths, maps, frames.all_real)
        maps = self.norm(maps, frames, rectify=True)
        if self.window > 1:
            maps = self.pooling(maps)
            frames = RealFrames(frames.lengths // self.window, maps, frames.all_real)
            maps = frames.zero_padding(maps)  # a window may hold an odd last frame
        return self.dropout(maps), frames


class ConvolutionStack(Encoder):
    """A sequence of convolution blocks; each output frame holds all channels of all remaining bins.

    Pooling drops a last odd frame or bin. An utterance too short for one output frame is padded with zeros.

    Args:
        input_dim: F of the input.
        blocks: At least one, the first of one input channel.

    Raises:
        ValueError: If no bin remains.
    """

    def __init__(self, input_dim: int, blocks: Sequence[ConvolutionBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.reduction_in_time = prod(block.reduction for block in blocks)
        num_bins = input_dim
        for block in blocks:
            num_bins = block.num_bins(num_bins)
        if num_bins == 0:
            raise ValueError(f"{input_dim} features a frame are too few: no bin remains after the convolutions")
        self.output_dim = blocks[-1].output_channels * num_bins

    def forward(self, frames: Tensor, lengths: Tensor, all_real: bool = False) -> tuple[Tensor, Tensor]:
        """Return descriptors [B, T', D] of ``frames`` [B, T, F] with ``lengths`` [B], and their lengths [B].

        With ``all_real``, every length is T: a GPU cannot be asked without waiting for it.
        """
        num_frames = frames.shape[1]
        if not all_real:
            frames = frames.masked_fill(~frame_mask(lengths, num_frames).unsqueeze(2), 0.0)
        maps = F.pad(frames.transpose(1, 2).unsqueeze(1), (0, max(0, self.reduction_in_time - num_frames)))
        lengths = lengths.clamp(min=self.reduction_in_time)
        real_frames = RealFrames(lengths, maps, all_real)
        for block in self.blocks:
            maps, real_frames = block(maps, real_frames)
        return maps.permute(0, 3, 1, 2).flatten(2), real_frames.lengths


class BidirectionalLSTM(Encoder):
    """Two LSTM layers, one of which reads each utterance from its last real frame to its first.

    Equal to torch's bidirectional LSTM on packed sequences, but batches stay padded: packing makes a CPU step 13 times
    slower, and synchronises a GPU to read lengths. Each gate has one bias, as in other frameworks; torch's redundant
    second one is fixed at zero.

    Args:
        input_dim: F.
        cells: H.
        combine: ``concatenate`` the directions to 2H channels, or ``sum`` them to H.
    """

    def __init__(self, input_dim: int, cells: int, combine: Literal["concatenate", "sum"] = "concatenate") -> None:
        super().__init__()
        self.combine = combine
        self.output_dim = cells if combine == "sum" else 2 * cells
        self.forwards = nn.LSTM(input_dim, cells, batch_first=True)
        self.backwards = nn.LSTM(input_dim, cells, batch_first=True)
        for direction in (self.forwards, self.backwards):
            direction.bias_hh_l0 = nn.Parameter(torch.zeros(4 * cells), requires_grad=False)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return states [B, T, 2H or H] of ``frames`` [B, T, F], zero past the end, and ``lengths`` [B]."""
        mask = frame_mask(lengths, frames.shape[1])
        positions = torch.arange(frames.shape[1], device=frames.device)
        # This order reverses real frames and keeps padding in place; it is its own inverse.
        order = torch.where(mask, lengths.unsqueeze(1) - 1 - positions, positions).unsqueeze(2)
        ahead = recurrent_states(self.forwards, frames)
        back = recurrent_states(self.backwards, frames.gather(1, order.expand_as(frames)))
        back = back.gather(1, order.expand_as(back))
        states = ahead + back if self.combine == "sum" else torch.cat([ahead, back], 2)
        return states.masked_fill(~mask.unsqueeze(2), 0.0), lengths
