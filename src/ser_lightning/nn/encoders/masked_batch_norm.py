"""Batch normalisation with statistics of real frames only."""
# Shapes: B utterances, C channels, F bins, T frames (padded).

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ser_lightning.nn.encoders.real_frames import RealFrames
from ser_lightning.nn.tensors import gather_batch, is_distributed, sum_over_processes


def _sum_over_processes(*parts: Tensor) -> tuple[Tensor, ...]:
    """Sum each of ``parts``, all one-dimensional, over processes in one call, outside autograd."""
    if not is_distributed():
        return parts
    joined = torch.cat(parts)
    dist.all_reduce(joined)
    return torch.split(joined, [len(part) for part in parts])


def _has_kernels(maps: Tensor) -> bool:
    """Return whether SyncBatchNorm's kernels take ``maps``: they exist on CUDA alone."""
    return maps.is_cuda


def _statistics(known: Tensor, frames: RealFrames, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance [C] and number (a scalar) of real values, over all processes.

    Args:
        known: Maps [B, C, F, T], zero past the end.
        frames: Their real frames.
        dtype: Precision of the statistics.
    """
    unused = None
    if not _has_kernels(known):  # there, running statistics set the precision, even for half-precision maps
        unused = known.new_ones(known.shape[1], dtype=dtype)
    mean, variance = torch.batch_norm_update_stats(known, unused, unused, 0.0)
    if not frames.all_real:  # correct for the zeros past the end
        shift = mean * frames.padding
        variance = torch.addcmul(variance, mean, shift, value=-1).clamp_(min=0)
        variance = torch.addcmul(variance, variance, frames.padding)
        mean = mean + shift
    if not is_distributed():
        return mean, variance, frames.count
    row = torch.cat([mean, variance, frames.count.to(mean.dtype).reshape(1)])
    means, variances, counts = torch.split(gather_batch(row.unsqueeze(0)), [len(mean), len(mean), 1], 1)
    count = counts.sum()
    shares = counts / count
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), count


def _over_real(values: Tensor, real: Tensor | None, maps: Tensor) -> Tensor:
    """Return ``values`` [C] for real frames and zero past the end as [B, C, 1, T], laid out in memory as ``maps``."""
    columns = values[:, None, None]
    if real is None:
        return columns
    return torch.mul(columns, real, out=torch.empty_like(maps[:, :, :1], dtype=values.dtype))


class _Normalisation(torch.autograd.Function):
    """Batch norm over real frames, optionally with ReLU, with a fused backward pass.

    Memory traffic dominates the time. Unfused, autograd would keep four maps and read a dozen; this keeps the input and
    a rectified output. On a CPU, a normalised map that is zero past the end is one sum and product of maps: scale and
    offset are zero past the end.
    """

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        frames: RealFrames,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        rectify: bool,
        zero_padded: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return normalised ``maps`` [B, C, F, T], zero past the end, with mean, variance [C] and number of values."""
        real = None if frames.real is None else frames.real.to(maps.dtype)
        known = maps if real is None or zero_padded else maps * real
        mean, variance, count = _statistics(known, frames, weight.dtype)
        inverse = (variance + epsilon).rsqrt()
        if _has_kernels(maps):
            result = torch.batch_norm_elemt(known, weight, bias, mean, inverse, epsilon)
            if rectify and frames.limits is not None:
                result.clamp_(*frames.limits)
            elif rectify:
                result.relu_()
            elif real is not None:
                result.mul_(real)
        else:
            scale = weight * inverse
            offset = _over_real(bias - scale * mean, real, maps)
            result = torch.empty_like(maps) if known is maps else known
            torch.addcmul(offset, known, scale[:, None, None], out=result)
            if rectify:
                result.relu_()
        ctx.save_for_backward(maps, real, weight, mean, inverse, count, result if rectify else None)
        ctx.zero_padded = zero_padded
        ctx.mark_non_differentiable(mean, variance, count)
        return result, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of maps, weight and bias."""
        maps, real, weight, mean, inverse, count, result = ctx.saved_tensors
        if result is not None:  # zero past the end
            target = gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        elif real is not None and not ctx.zero_padded:
            target = gradient = gradient * real
        else:  # the incoming gradient must not be changed in place
            target = None
        if _has_kernels(maps):
            target, for_weight, for_bias = _gradients_by_kernels(gradient, maps, weight, mean, inverse, count)
            if real is not None and not ctx.zero_padded:
                target.mul_(real)
            return target, None, for_weight, for_bias, None, None, None
        _, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, maps, weight, None, None, mean, inverse, True, 0.0, [False, True, True]
        )
        sum_of_products, sum_of_gradients = _sum_over_processes(for_weight, for_bias)
        slope = -inverse * sum_of_products / count
        scale = weight * inverse
        offset = scale * (-sum_of_gradients / count - slope * mean)
        target = torch.empty_like(gradient) if target is None else target
        torch.addcmul(gradient, maps, slope[:, None, None], out=target)
        torch.addcmul(_over_real(offset, real, maps), target, _over_real(scale, real, maps), out=target)
        return target, None, for_weight, for_bias, None, None, None


def _gradients_by_kernels(
    gradient: Tensor, maps: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of maps, not zero past the end, weight and bias, by SyncBatchNorm's kernels.

    Args:
        gradient: Gradient of the normalised maps [B, C, F, T], zero past the end.
        maps: [B, C, F, T].
        weight: [C].
        mean: [C].
        inverse: One over the standard deviation [C].
        count: Number of real values, over all processes.
    """
    channels_last = maps.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # The kernels look at the layout of the gradient alone.
    gradient, maps = gradient.contiguous(memory_format=layout), maps.contiguous(memory_format=layout)
    *sums, for_weight, for_bias = torch.batch_norm_backward_reduce(
        gradient, maps, mean, inverse, weight, True, True, True
    )
    sum_of_gradients, sum_of_products = _sum_over_processes(*sums)
    for_maps = torch.batch_norm_backward_elemt(
        gradient, maps, mean, inverse, weight, sum_of_gradients, sum_of_products, count.to(torch.int32).reshape(1)
    )
    return for_maps, for_weight, for_bias


class MaskedBatchNorm(nn.Module):
    """Batch norm whose training statistics ignore padding.

    Counted in, padding would make training statistics differ from evaluation. Under DDP the statistics are those of
    the joint batch, so all processes must call this equally often.

    Args:
        channels: C.
        momentum: Weight of a batch in the running statistics.
        epsilon: Added to variances.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))

    def forward(self, maps: Tensor, frames: RealFrames, rectify: bool = False, zero_padded: bool = False) -> Tensor:
        """Normalise ``maps`` [B, C, F, T], in training with the statistics of real frames.

        Args:
            maps: Finite values. In the result, frames past the end are zero.
            frames: Real frames of ``maps``.
            rectify: Whether a ReLU follows.
            zero_padded: Whether maps and the gradient of the result are zero past the end already, and the gradient of
                maps is not used there. That holds between a convolution of one frame without bias, of maps that are
                zero past the end, and a next step that has no gradient there. Masks are then not multiplied by zeros.
        """
        if not self.training:
            statistics = self.running_mean, self.running_variance
            result = F.batch_norm(maps, *statistics, self.weight, self.bias, eps=self.epsilon)
            result = result if frames.real is None else result.mul_(frames.real)
            return result.relu_() if rectify else result
        if torch.compiler.is_compiling():  # the compiler fuses steps itself
            result, mean, variance, count = self._in_steps(maps, frames)
            result = result.relu() if rectify else result
        else:
            result, mean, variance, count = _Normalisation.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
                maps, frames, self.weight, self.bias, self.epsilon, rectify, zero_padded
            )
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            unbiased = torch.addcdiv(variance, variance, (count - 1).clamp(min=1))
            self.running_variance.lerp_(unbiased, self.momentum)
        return result

    def _in_steps(self, maps: Tensor, frames: RealFrames) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the result of ``_Normalisation``, without ReLU."""
        exact = maps.to(self.weight.dtype)  # half precision is too coarse for the sums
        count = sum_over_processes(frames.count)
        mean = sum_over_processes(frames.zero_padding(exact).sum((0, 2, 3))) / count
        deviations = frames.zero_padding(exact - mean[:, None, None])
        variance = sum_over_processes(deviations.square().sum((0, 2, 3))) / count
        scale = self.weight * (variance + self.epsilon).rsqrt()
        result = deviations * scale[:, None, None] + self.bias[:, None, None]
        return frames.zero_padding(result).to(maps.dtype), mean, variance, count
