"""Final, max and mean pooling over time (Huang et al. 2020, section 4.2, figure 4a-c)."""
# Shapes: B utterances, T frames (padded), D channels.

import torch
from torch import Tensor

from ser_lightning.nn.pooling.pooling import Pooling


class FinalPooling(Pooling):
    """Keep the last real frame.

    Args:
        input_dim: D.
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return frame ``length - 1`` of ``frames`` [B, T, D] under ``mask`` [B, T] as [B, D]."""
        last = (mask.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, frames.shape[2])
        return frames.gather(1, last).squeeze(1)


class MaxPooling(Pooling):
    """Keep each channel's maximum over real frames.

    Args:
        input_dim: D.
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Maximise ``frames`` [B, T, D] under ``mask`` [B, T] to [B, D]."""
        return frames.masked_fill(~mask.unsqueeze(2), -torch.inf).amax(1)


class MeanPooling(Pooling):
    """Average real frames.

    Args:
        input_dim: D.
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Average ``frames`` [B, T, D] under ``mask`` [B, T] to [B, D]."""
        weights = mask.to(frames.dtype) / mask.sum(1, keepdim=True)
        return torch.einsum("bt,btd->bd", weights.to(frames.dtype), frames)
