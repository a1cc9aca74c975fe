"""Which frames of padded maps are real."""
# Shapes: B utterances, C channels, F bins, T frames (padded).

import math

import torch
from torch import Tensor

from ser_lightning.nn.tensors import frame_mask


class RealFrames:
    """The real frames of all maps of one resolution: masks and a count that the layers at this resolution share.

    Nothing waits for a GPU, which cannot be asked whether there is padding.

    Args:
        lengths: Real frames of each utterance [B], none of them zero.
        maps: Any maps [B, C, F, T] of this resolution.
        all_real: Whether every length is known to be T.

    Attributes:
        lengths: [B].
        mask: True for real frames [B, 1, 1, T]; None if all are known to be real.
        real: ``mask`` as ones and zeros of the maps' dtype.
        limits: Zero, and [B, 1, 1, T] that is infinite for real frames and zero past the end: clamping maps between
            these is ReLU and masking at once.
        count: Number of real values of a channel, a scalar.
        padding: Number of values past the end for each real one, a scalar.
    """

    mask: Tensor | None = None
    real: Tensor | None = None
    limits: tuple[Tensor, Tensor] | None = None

    def __init__(self, lengths: Tensor, maps: Tensor, all_real: bool = False) -> None:
        batch, _, num_bins, num_frames = maps.shape
        self.lengths = lengths
        self.count = (lengths.sum() * num_bins).to(torch.promote_types(maps.dtype, torch.float32))
        self.padding = (batch * num_bins * num_frames - self.count) / self.count
        mask = frame_mask(lengths, num_frames)[:, None, None]
        if not all_real and maps.device.type == "cpu" and not torch.compiler.is_compiling():
            all_real = bool(mask.all())
        if not all_real:
            self.mask = mask
            self.real = mask.to(maps.dtype)
            self.limits = maps.new_zeros(()), maps.new_zeros(mask.shape).masked_fill_(mask, math.inf)

    @property
    def all_real(self) -> bool:
        """Whether no frame is known to be padding."""
        return self.mask is None

    def zero_padding(self, maps: Tensor) -> Tensor:
        """Return ``maps`` [B, C, F, T] with zeros past the end."""
        return maps if self.mask is None else maps.masked_fill(~self.mask, 0.0)
