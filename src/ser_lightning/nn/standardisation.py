"""Zero mean and unit deviation of every feature, with the training split's statistics."""
# Shapes: B utterances, T frames (padded), F features.

import torch
from torch import Tensor, nn


class Standardisation(nn.Module):
    """Subtract a mean and divide by a deviation that were fitted on the training split and travel in the checkpoint.

    Args:
        num_features: F.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))

    def fit(self, mean: Tensor, deviation: Tensor) -> None:
        """Take over ``mean`` [F] and ``deviation`` [F]; a feature that never varies is only centred."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Standardise ``frames`` [B, T, F]; frames outside ``mask`` [B, T] become zero, that is, average."""
        return ((frames - self.mean) / self.deviation).masked_fill(~mask.unsqueeze(2), 0.0)
