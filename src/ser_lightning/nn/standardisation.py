"""Zero mean and unit deviation: of every feature over the training split, or within each utterance."""
# Shapes: B utterances, T frames (padded), F features.

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Normalisation = Literal["per_frame", "per_spectrogram", "per_bin", "none"]
_DIMS: dict[Normalisation, tuple[int, ...]] = {
    "per_frame": (2,),
    "per_spectrogram": (1, 2),
    "per_bin": (1,),
    "none": (),
}
"""Dimensions of frames [B, T, F] over which a mean and a deviation are taken."""


class Moments(Protocol):
    """Mean and deviation of each feature over the training split; reading them may need a pass over all frames."""

    @property
    def mean(self) -> Tensor:
        """Mean of each feature [F]."""

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each feature [F]."""


class Standardisation(nn.Module):
    """Standardise by the training split's mean and deviation, which are stored in the checkpoint.

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
        """Copy the training split's moments; a constant feature is only centred."""
        self.mean.copy_(training.mean)
        deviation = training.deviation
        self.deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def invert(self, standardised: Tensor) -> Tensor:
        """Return the frames [T, F] of ``standardised`` frames [T, F]."""
        return self.mean + self.deviation * standardised

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Standardise ``frames`` [B, T, F]; frames outside ``mask`` [B, T] become zero."""
        return ((frames - self.mean) / self.deviation).masked_fill(~mask.unsqueeze(2), 0.0)


class UtteranceStandardisation(nn.Module):
    """Standardise each utterance by its own means and deviations, over real frames only.

    What is constant, up to rounding, is only centred.

    Args:
        normalisation: What has a mean and a deviation of its own: ``per_frame`` each frame, over its features;
            ``per_spectrogram`` the utterance, over frames and features; ``per_bin`` each feature, over frames; ``none``
            leaves frames as they are.
    """

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.dims = _DIMS[normalisation]

    def fit(self, training: Moments) -> None:
        """Do nothing."""

    def invert(self, standardised: Tensor) -> Tensor:
        """Return ``standardised`` [T, F] unchanged; the utterance's means and deviations are not known."""
        return standardised

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Standardise ``frames`` [B, T, F] over those under ``mask`` [B, T]; the others become zero."""
        past_the_end, dims = ~mask.unsqueeze(2), self.dims
        frames = frames.masked_fill(past_the_end, 0.0)
        if not dims:
            return frames
        count = mask.unsqueeze(2).expand_as(frames).sum(dims, keepdim=True).clamp(min=1)
        mean = frames.sum(dims, keepdim=True) / count
        centred = (frames - mean).masked_fill(past_the_end, 0.0)
        # Subtract the rounding error of the mean, which matters if deviations are small relative to the mean.
        centred = (centred - centred.sum(dims, keepdim=True) / count).masked_fill(past_the_end, 0.0)
        # Scaled to at most one against overflow of the squares; the result does not depend on the scale.
        with torch.no_grad():
            scale = centred.abs().amax(dims, keepdim=True)
            constant = scale <= 4 * torch.finfo(frames.dtype).eps * mean.abs()
            scale = scale.masked_fill(constant, 1.0)
        scaled = centred / scale
        variance = scaled.square().sum(dims, keepdim=True) / count
        return scaled * variance.masked_fill(constant, 1.0).rsqrt()
