"""Weighted pooling: a learned attention over frames (Huang et al. 2020, section 4.2, figure 4d)."""
# Shapes: B utterances, T frames (padded), D channels.

import torch
from torch import Tensor, nn

from ser_lightning.nn.pooling.pooling import Pooling


class WeightedPooling(Pooling):
    """Sum frames with softmax weights whose scores are the product with one learned vector.

    The paper does not state its scorer; one vector is the simplest that its figure allows.

    Args:
        input_dim: D.
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.output_dim = input_dim
        self.score = nn.Linear(input_dim, 1, bias=False)

    def weights(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return the attention [B, T] over ``frames`` [B, T, D]: zero outside ``mask`` [B, T], a row sums to one."""
        scores: Tensor = self.score(frames).squeeze(2)
        return scores.masked_fill(~mask, -torch.inf).softmax(1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Sum ``frames`` [B, T, D] with their attention under ``mask`` [B, T] to [B, D]."""
        return torch.einsum("bt,btd->bd", self.weights(frames, mask), frames)
