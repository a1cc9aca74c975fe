"""Thin residual network of 34 layers with squeeze-and-excitation (Mocanu et al. 2021, section 3.2).

The layout is that of Xie et al. 2019, "Utterance-level aggregation for speaker recognition in the wild", and its code;
each residual block ends in the squeeze-and-excitation of Hu et al. 2018.
"""
# Shapes: B utterances, C channels, F bins, T frames (padded), D channels of a descriptor; maps are [B, C, F, T].

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ser_lightning.nn.encoders.layers import Encoder
from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.encoders.real_frames import RealFrames
from ser_lightning.nn.tensors import frame_mask

STAGES = ((2, 48, 96), (3, 96, 128), (3, 128, 256), (3, 256, 512))
"""Blocks of a stage, and inner and output channels of a block, for ``FULL_WIDTH`` channels of the first convolution."""
FULL_WIDTH = 64


class _GatedSum(torch.autograd.Function):
    """ReLU of shortcut + gates * maps, the end of a residual block, with a fused backward pass."""

    @staticmethod
    def forward(ctx: Any, shortcut: Tensor, maps: Tensor, gates: Tensor) -> Tensor:
        """Return [B, C, F, T] of ``shortcut`` and ``maps`` [B, C, F, T] and ``gates`` [B, C, 1, 1]."""
        result = torch.addcmul(shortcut, maps, gates).relu_()
        ctx.save_for_backward(maps, gates, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of shortcut, maps and gates."""
        maps, gates, result = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        product = gradient * maps
        for_gates = product.sum((2, 3), keepdim=True)
        return gradient, torch.mul(gradient, gates, out=product), for_gates


class _Squeeze(torch.autograd.Function):
    """Maps as they are, and their sums over frames and bins, with a backward pass that leaves padding without gradient.

    Autograd would add the gradient of the sums to padding too, which a mask had to undo.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, frames: RealFrames, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return ``maps`` [B, C, F, T], zero past the end, and their sums [B, C]."""
        ctx.real = frames.real
        return maps.view_as(maps), maps.sum((2, 3), dtype=dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, for_sums: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the maps, zero where the incoming one and the frames are."""
        for_sums = for_sums[:, :, None, None].to(gradient.dtype)
        if ctx.real is None:
            return gradient + for_sums, None, None
        return torch.addcmul(gradient, for_sums, ctx.real.to(gradient.dtype)), None, None


class SqueezeExcitation(nn.Module):
    """Gate each channel of each utterance by the channels' means over real frames and all bins.

    Args:
        channels: C.
        reduction: Ratio of C to the hidden units, of which there is at least one.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.narrow = nn.Linear(channels, hidden)
        self.widen = nn.Linear(hidden, channels)

    def forward(self, maps: Tensor, frames: RealFrames) -> tuple[Tensor, Tensor]:
        """Return ``maps`` [B, C, F, T], which are zero past the end, and their gates [B, C, 1, 1]."""
        dtype = self.narrow.weight.dtype  # half precision could overflow
        if torch.compiler.is_compiling():  # the compiler fuses steps itself
            sums = maps.sum((2, 3), dtype=dtype)
        else:
            maps, sums = _Squeeze.apply(maps, frames, dtype)  # type: ignore[no-untyped-call]  # torch leaves it so
        means = sums / (maps.shape[2] * frames.lengths).unsqueeze(1)
        gates = self.widen(self.narrow(means).relu()).sigmoid().to(maps.dtype)
        return maps, gates[:, :, None, None]


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each with batch norm, channel gates, and a shortcut.

    The first convolution has the stride, as in the reference network.

    Args:
        input_channels: C of the input maps.
        inner_channels: C of the maps between the convolutions.
        output_channels: C of the output maps.
        stride: Step over bins and frames.
        reduction: Reduction of squeeze-and-excitation.
    """

    def __init__(
        self, input_channels: int, inner_channels: int, output_channels: int, stride: int, reduction: int
    ) -> None:
        super().__init__()
        self.stride = stride
        self.narrow = nn.Conv2d(input_channels, inner_channels, 1, bias=False)
        self.narrow_norm = MaskedBatchNorm(inner_channels)
        self.look_around = nn.Conv2d(inner_channels, inner_channels, 3, padding=1, bias=False)
        self.look_around_norm = MaskedBatchNorm(inner_channels)
        self.widen = nn.Conv2d(inner_channels, output_channels, 1, bias=False)
        self.widen_norm = MaskedBatchNorm(output_channels)
        self.excitation = SqueezeExcitation(output_channels, reduction)
        self.shortcut: nn.Conv2d | None = None
        if stride > 1 or input_channels != output_channels:
            self.shortcut = nn.Conv2d(input_channels, output_channels, 1, bias=False)
            self.shortcut_norm = MaskedBatchNorm(output_channels)

    def forward(self, maps: Tensor, frames: RealFrames) -> tuple[Tensor, RealFrames]:
        """Return maps [B, C', F', T'], zero past the end, and their real frames.

        Args:
            maps: [B, C, F, T], zero past the end.
            frames: Their real frames.
        """
        if self.stride > 1:  # subsample once, instead of in two strided 1x1 convolutions
            maps = F.avg_pool2d(maps, 1, self.stride)
            frames = RealFrames((frames.lengths + self.stride - 1) // self.stride, maps, frames.all_real)
        # 1x1 convolutions keep zeros, and what comes before each ignores gradients of padding, as a ReLU of zero does.
        inner = self.narrow_norm(self.narrow(maps), frames, rectify=True, zero_padded=True)
        inner = self.look_around_norm(self.look_around(inner), frames, rectify=True)
        inner = self.widen_norm(self.widen(inner), frames, zero_padded=True)
        if self.shortcut is not None:
            maps = self.shortcut_norm(self.shortcut(maps), frames, zero_padded=True)
        inner, gates = self.excitation(inner, frames)
        if torch.compiler.is_compiling():  # the compiler fuses steps itself
            return torch.addcmul(maps, inner, gates).relu(), frames
        result: Tensor = _GatedSum.apply(maps, inner, gates)  # type: ignore[no-untyped-call]  # torch leaves it so
        return result, frames


class ThinSEResNet34(Encoder):
    """Turn a spectrogram of any length into one descriptor for every 16 frames.

    A 7x7 convolution with 2x2 max pooling, four stages of bottleneck blocks (all but the first halve bins and frames),
    3x1 max pooling of stride 2 over bins, and a convolution over all remaining bins (7 of 257) to D channels with ReLU.
    Padding never changes the result: frames past the end are zero before every convolution. Pooling drops a last odd
    frame; an utterance of one frame is padded to two with zeros. Supports channels_last.

    Args:
        input_dim: F of the input.
        channels: Channels of the first convolution. All widths scale with it; D is eight times as many.
        reduction: Reduction of squeeze-and-excitation.
        initialisation: Of the convolutions' weights: ``kaiming`` normal, or ``orthogonal`` as in the reference network.

    Raises:
        ValueError: If no bin remains, or there is no channel.
    """

    reduction_in_time = 16

    def __init__(
        self,
        input_dim: int,
        channels: int = FULL_WIDTH,
        reduction: int = 16,
        initialisation: Literal["kaiming", "orthogonal"] = "kaiming",
    ) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels is {channels} and reduction {reduction}; both must be at least 1")
        num_bins = (-(-(input_dim // 2) // 2 ** (len(STAGES) - 1)) - 1) // 2
        if num_bins < 1:
            raise ValueError(f"{input_dim} bins are too few: the strides need at least 34")
        self.input_dim = input_dim
        self.convolution = nn.Conv2d(1, channels, 7, padding=3, bias=False)
        self.norm = MaskedBatchNorm(channels)
        blocks, width = [], channels
        for stage, (depth, *widths) in enumerate(STAGES):
            inner, outer = (max(1, round(w * channels / FULL_WIDTH)) for w in widths)
            for number in range(depth):
                blocks.append(BottleneckBlock(width, inner, outer, 2 if stage and not number else 1, reduction))
                width = outer
        self.blocks = nn.ModuleList(blocks)
        self.output_dim = 8 * channels
        self.join_bins = nn.Conv2d(width, self.output_dim, (num_bins, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and initialisation == "orthogonal":
                nn.init.orthogonal_(module.weight)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors [B, T', D] of ``frames`` [B, T, F] with ``lengths`` [B], and their lengths [B]."""
        if frames.shape[2] != self.input_dim:  # also lets the compiler assume a fixed number of bins
            raise ValueError(f"frames have {frames.shape[2]} bins; this network needs {self.input_dim}")
        if torch.compiler.is_compiling():  # else each remainder of T after each stride is compiled separately
            frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % self.reduction_in_time))
        past_the_end = ~frame_mask(lengths, frames.shape[1])
        maps = frames.transpose(1, 2).unsqueeze(1).masked_fill(past_the_end[:, None, None], 0.0).contiguous()
        if maps.shape[3] < 2:
            maps = F.pad(maps, (0, 1))
        if self._channels_last(maps.device):
            maps = maps.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2)
        lengths = lengths.clamp(min=2)
        maps = self.convolution(maps)
        real_frames = RealFrames(lengths, maps)
        maps = F.max_pool2d(self.norm(maps, real_frames, rectify=True), 2)
        real_frames = RealFrames(lengths // 2, maps, real_frames.all_real)
        maps = real_frames.zero_padding(maps)  # a window may hold an odd last frame
        for block in self.blocks:
            maps, real_frames = block(maps, real_frames)
        # Bins are one resolution more, but masks of frames do not depend on them.
        maps = real_frames.zero_padding(self.join_bins(F.max_pool2d(maps, (3, 1), (2, 1)))).relu()
        return maps.squeeze(2).transpose(1, 2), real_frames.lengths

    def _channels_last(self, device: torch.device) -> bool:
        """Return whether to use channels_last maps: if weights do, and always on a CPU, where it halves the time.

        A convolution follows its input's strides, so those of the one-channel input decide for all layers. The compiler
        chooses the layout itself, and fails at such strides.
        """
        weights = self.join_bins.weight
        last = device.type == "cpu" or weights.is_contiguous(memory_format=torch.channels_last)
        return last and not torch.compiler.is_compiling()
