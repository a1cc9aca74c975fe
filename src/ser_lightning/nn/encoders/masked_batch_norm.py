"""Batch normalisation with statistics of real frames only."""
# Shapes: B utterances, C channels, F bins, T frames (padded).

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ser_lightning.nn.tensors import is_distributed, sum_over_processes


def _sum_over_processes(*parts: Tensor) -> tuple[Tensor, ...]:
    """Sum each of ``parts``, all one-dimensional, over processes in one call, outside autograd."""
    if not is_distributed():
        return parts
    joined = torch.cat(parts)
    dist.all_reduce(joined)
    return torch.split(joined, [len(part) for part in parts])


class _Normalisation(torch.autograd.Function):
    """Batch norm over real frames, optionally with ReLU, with a fused backward pass.

    Memory traffic dominates the time. Unfused, autograd would keep four maps and read a dozen; this keeps the input and
    a rectified output, and works in place after one copy.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, real: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, rectify: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return normalised ``maps`` [B, C, F, T], zero past the end, with mean, variance [C] and count [1] of values.

        ``real`` [B, 1, 1, T] is one for real frames and zero past the end; None without padding.
        """
        positions = maps.numel() // maps.shape[1]
        known = maps if real is None else maps * real
        # The unused running statistics set the precision of the result, even for half-precision maps.
        unused = torch.zeros_like(weight), torch.ones_like(weight)
        mean, variance = torch.batch_norm_update_stats(known, *unused, 0.0)
        if real is None:
            count = weight.new_full((1,), positions)
        else:  # correct for the zeros past the end
            count = real.sum(dtype=weight.dtype).reshape(1) * maps.shape[2]
            share = positions / count
            variance = (share * (variance - (share - 1) * mean.square())).clamp(min=0)
            mean = share * mean
        if is_distributed():
            local_count, local_mean = count, mean
            count, total = _sum_over_processes(local_count, local_mean * local_count)
            mean = total / count
            (squares,) = _sum_over_processes(local_count * (variance + (local_mean - mean).square()))
            variance = squares / count
        inverse = (variance + epsilon).rsqrt()
        if real is None or maps.is_cuda:  # fused on CUDA, with one rounding in half precision
            result = F.batch_norm(maps, mean, variance, weight, bias, eps=epsilon)
            result = result if real is None else result.mul_(real)
        else:
            scale = weight * inverse
            known.mul_(scale[:, None, None]).add_((bias - scale * mean)[:, None, None])
            result = known.mul_(real)
        if rectify:
            result.relu_()
        ctx.save_for_backward(maps, real, weight, mean, inverse, count, result if rectify else None)
        ctx.mark_non_differentiable(mean, variance, count)
        return result, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of maps, weight and bias."""
        maps, real, weight, mean, inverse, count, result = ctx.saved_tensors
        if result is not None:  # zero past the end
            target = gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        elif real is not None:
            target = gradient = gradient * real
        else:  # the incoming gradient must not be changed in place
            target = torch.empty_like(gradient)
        _, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, maps, weight, None, None, mean, inverse, True, 0.0, [False, True, True]
        )
        sum_of_products, sum_of_gradients = _sum_over_processes(for_weight, for_bias)
        slope = -inverse * sum_of_products / count
        offset = -sum_of_gradients / count - slope * mean
        torch.addcmul(gradient, maps, slope[:, None, None], out=target)
        target.add_(offset[:, None, None]).mul_((weight * inverse)[:, None, None])
        if real is not None:
            target.mul_(real)
        return target, None, for_weight, for_bias, None, None


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

    def forward(self, maps: Tensor, mask: Tensor | None, rectify: bool = False) -> Tensor:
        """Normalise ``maps`` [B, C, F, T], in training with the statistics of frames under ``mask`` [B, T].

        Frames past the end, whose values must be finite, become zero. Without a mask, all frames are real. With
        ``rectify`` a ReLU follows.
        """
        if torch.compiler.is_compiling() and self.training:  # the compiler fuses steps itself
            result, mean, variance, count = self._in_steps(maps, mask)
            result = result.relu() if rectify else result
        else:
            # Only on a CPU does a check for padding need no synchronisation.
            can_check = maps.device.type == "cpu" and not torch.compiler.is_compiling()
            all_real = mask is None or (can_check and bool(mask.all()))
            real = None if mask is None or all_real else mask[:, None, None].to(maps.dtype)
            if not self.training:
                statistics = self.running_mean, self.running_variance
                result = F.batch_norm(maps, *statistics, self.weight, self.bias, eps=self.epsilon)
                result = result if real is None else result.mul_(real)
                return result.relu_() if rectify else result
            result, mean, variance, count = _Normalisation.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
                maps, real, self.weight, self.bias, self.epsilon, rectify
            )
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        return result

    def _in_steps(self, maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the result of ``_Normalisation``, without ReLU."""
        if mask is None:
            mask = maps.new_ones((maps.shape[0], maps.shape[3]), dtype=torch.bool)
        exact = maps.to(self.weight.dtype)  # half precision is too coarse for the sums
        past_the_end = ~mask[:, None, None]
        count = sum_over_processes(mask.sum() * maps.shape[2])
        mean = sum_over_processes(exact.masked_fill(past_the_end, 0.0).sum((0, 2, 3))) / count
        deviations = (exact - mean[:, None, None]).masked_fill(past_the_end, 0.0)
        variance = sum_over_processes(deviations.square().sum((0, 2, 3))) / count
        scale = self.weight * (variance + self.epsilon).rsqrt()
        result = deviations * scale[:, None, None] + self.bias[:, None, None]
        return result.masked_fill(past_the_end, 0.0).to(maps.dtype), mean, variance, count
