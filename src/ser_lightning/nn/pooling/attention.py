"""Attentive pooling: a learned vector or a small network scores the frames."""
# Shapes: B utterances, T frames (padded), D channels, H hidden units.

import torch
from torch import Tensor, nn

from ser_lightning.nn.pooling.pooling import Pooling


class WeightedPooling(Pooling):
    """Sum frames with softmax weights; a frame's score is its product with one learned vector.

    Huang et al. 2020, section 4.2, figure 4d, do not state the scorer; one vector is the simplest that the figure
    allows. Zhou & Liu 2020, eq. 4, use h_t W q (Luong) and do not state the query q: if q is learned, W q is one
    learned vector, so this is their attention too.

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


class SelfAttentionPooling(Pooling):
    """Sum frames with the weights of one-head structured self-attention, a = softmax_t(w tanh(W h_t)).

    Lin et al. 2017, "A structured self-attentive sentence embedding", eqs. 5-7. Ando et al. 2019, table 2, name a
    one-head self-attention and state neither its equation nor its size.

    Args:
        input_dim: D.
        hidden_dim: H, rows of W.
    """

    def __init__(self, input_dim: int, hidden_dim: int = 128) -> None:
        super().__init__()
        self.output_dim = input_dim
        self.hidden = nn.Linear(input_dim, hidden_dim, bias=False)
        self.score = nn.Linear(hidden_dim, 1, bias=False)

    def weights(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return the attention [B, T] over ``frames`` [B, T, D]: zero outside ``mask`` [B, T], a row sums to one."""
        scores: Tensor = self.score(self.hidden(frames).tanh()).squeeze(2)
        return scores.masked_fill(~mask, -torch.inf).softmax(1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Sum ``frames`` [B, T, D] with their attention under ``mask`` [B, T] to [B, D]."""
        return torch.einsum("bt,btd->bd", self.weights(frames, mask), frames)
