"""Zero mean and unit deviation of every feature, with the training split's statistics."""
# Shapes: B utterances, T frames (padded), F features.

from typing import Protocol

import torch
from torch import Tensor, nn


class Moments(Protocol):
    """Mean and deviation of each feature over the training split; reading them may take a pass over its frames."""

    @property
    def mean(self) -> Tensor:
        """Mean of each feature [F]."""

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each feature [F]."""


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

    def fit(self, training: Moments) -> None:
        """Take over the training split's moments; a feature that never varies is only centred."""
        self.mean.copy_(training.mean)
        deviation = training.deviation
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def invert(self, standardised: Tensor) -> Tensor:
        """Return frames [T, F] that are ``standardised`` [T, F] once they are standardised."""
        return self.mean + self.deviation * standardised

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Standardise ``frames`` [B, T, F]; frames outside ``mask`` [B, T] become zero, that is, average."""
        return ((frames - self.mean) / self.deviation).masked_fill(~mask.unsqueeze(2), 0.0)


class UtteranceStandardisation(nn.Module):
    """Zero mean and unit deviation of every feature over each utterance's own frames; nothing is fitted.

    A feature that never varies in an utterance, but for rounding, is only centred.

    Args:
        num_features: F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def fit(self, training: Moments) -> None:
        """Do nothing, and read none of the training split's frames."""

    def invert(self, standardised: Tensor) -> Tensor:
        """Return ``standardised`` [T, F]: frames of any mean and deviation give the same result."""
        return standardised

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Standardise ``frames`` [B, T, F] over those under ``mask`` [B, T]; the others become zero."""
        real = mask.unsqueeze(2)
        count = real.sum(1, keepdim=True).clamp(min=1)
        mean = frames.masked_fill(~real, 0.0).sum(1, keepdim=True) / count
        centred = (frames - mean).masked_fill(~real, 0.0)
        # What the mean's rounding left, large beside deviations that are small beside the mean.
        centred = (centred - centred.sum(1, keepdim=True) / count).masked_fill(~real, 0.0)
        # Scaled to one, so that no square leaves the range of numbers; the result does not depend on the scale.
        with torch.no_grad():
            scale = centred.abs().amax(1, keepdim=True)
            constant = scale <= 4 * torch.finfo(frames.dtype).eps * mean.abs()
            scale = scale.masked_fill(constant, 1.0)
        scaled = centred / scale
        variance = scaled.square().sum(1, keepdim=True) / count
        return scaled * variance.masked_fill(constant, 1.0).rsqrt()
