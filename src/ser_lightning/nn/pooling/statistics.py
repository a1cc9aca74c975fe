"""Attentive mean and deviation, combined (Zhou & Liu 2020, section 3.3, eqs. 4-5)."""
# Shapes: B utterances, T frames (padded), D channels.

from math import inf

import torch
from torch import Tensor

from ser_lightning.nn.pooling.attention import WeightedPooling
from ser_lightning.nn.pooling.pooling import Pooling
from ser_lightning.nn.tensors import without_autocast


class AttentiveStatisticsPooling(Pooling):
    """Combined attentive pooling: [mu, sigma] under the attention of ``WeightedPooling``.

    Eq. 5, sigma = sqrt(max(sum_t a_t h_t h_t - mu mu, 0)), is computed as the weighted mean of squared deviations from
    mu, which avoids cancellation. The root's gradient is infinite at zero (one frame, a constant channel), so the
    variance has a floor, below which the gradient is zero. Autocast is disabled: half precision is too coarse.

    Args:
        input_dim: D.
        variance_floor: Smallest variance under the root.

    Raises:
        ValueError: If the floor is not positive in single precision.
    """

    def __init__(self, input_dim: int, variance_floor: float = 1e-10) -> None:
        super().__init__()
        if not torch.finfo(torch.float32).tiny <= variance_floor < inf:
            raise ValueError(f"variance_floor is {variance_floor}; gradients need a positive, finite one")
        self.output_dim = 2 * input_dim
        self.variance_floor = variance_floor
        self.attention = WeightedPooling(input_dim)

    def weights(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return the attention [B, T] over ``frames`` [B, T, D]: zero outside ``mask`` [B, T], a row sums to one."""
        with without_autocast(frames.device):
            return self.attention.weights(frames.to(self.attention.score.weight.dtype), mask)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool ``frames`` [B, T, D] under ``mask`` [B, T] to mean and deviation [B, 2D]."""
        weights = self.weights(frames, mask)
        with without_autocast(frames.device):
            frames = frames.to(weights.dtype)
            mean = torch.einsum("bt,btd->bd", weights, frames)
            variance = torch.einsum("bt,btd->bd", weights, (frames - mean.unsqueeze(1)).square())
            return torch.cat([mean, variance.clamp(min=self.variance_floor).sqrt()], 1)
