"""SyncBatchNorm's kernels, which exist on CUDA alone, in plain steps that follow their contracts."""
# Shapes: B utterances, C channels, F bins, T frames.

import pytest
import torch
from torch import Tensor

from ser_lightning.nn.encoders import masked_batch_norm
from ser_lightning.nn.tensors import at_least_float32


def update_stats(
    maps: Tensor, running_mean: Tensor | None, running_variance: Tensor | None, momentum: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of all of ``maps`` [B, C, F, T], at least in float32."""
    assert running_mean is None
    assert running_variance is None
    variance, mean = torch.var_mean(at_least_float32(maps), (0, 2, 3), correction=0)
    return mean, variance


def elemt(maps: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, epsilon: float) -> Tensor:
    """Normalised maps, computed at least in float32, in the dtype and the layout of ``maps``."""
    mean, inverse, weight, bias = (vector[:, None, None] for vector in (mean, inverse, weight, bias))
    return ((at_least_float32(maps) - mean) * inverse * weight + bias).to(maps.dtype)


def _assert_one_layout(gradient: Tensor, maps: Tensor) -> None:
    """A kernel would read one in the layout of the other."""
    layouts = torch.contiguous_format, torch.channels_last
    assert any(gradient.is_contiguous(memory_format=f) and maps.is_contiguous(memory_format=f) for f in layouts)


def backward_reduce(
    gradient: Tensor, maps: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor, *needed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums [C] of gradients and of their products with deviations, and the gradients of weight and bias."""
    assert all(needed)
    assert len(needed) == 3
    _assert_one_layout(gradient, maps)
    exact = at_least_float32(gradient)
    gradients = exact.sum((0, 2, 3))
    products = (exact * (at_least_float32(maps) - mean[:, None, None])).sum((0, 2, 3))
    return gradients, products, (products * inverse).to(weight.dtype), gradients.to(weight.dtype)


def backward_elemt(
    gradient: Tensor,
    maps: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor,
    sum_of_gradients: Tensor,
    sum_of_products: Tensor,
    counts: Tensor,
) -> Tensor:
    """Gradient of the maps at all values, as if all that ``counts`` holds were real."""
    assert counts.dtype == torch.int32
    assert counts.dim() == 1
    _assert_one_layout(gradient, maps)
    total = counts.sum().to(mean.dtype)
    slope = (inverse.square() * sum_of_products / total)[:, None, None]
    deviations = at_least_float32(maps) - mean[:, None, None]
    result = at_least_float32(gradient) - (sum_of_gradients / total)[:, None, None] - deviations * slope
    return (result * (weight * inverse)[:, None, None]).to(maps.dtype)


STAND_INS = {
    "batch_norm_update_stats": update_stats,
    "batch_norm_elemt": elemt,
    "batch_norm_backward_reduce": backward_reduce,
    "batch_norm_backward_elemt": backward_elemt,
}


def use_stand_ins(patch: pytest.MonkeyPatch) -> None:
    """Let batch norm on this CPU take the path for CUDA."""
    patch.setattr(masked_batch_norm, "_has_kernels", lambda maps: True)
    for name, stand_in in STAND_INS.items():
        patch.setattr(torch, name, stand_in)
