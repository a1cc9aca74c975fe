"""A low-rank change of a weight."""

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """Add a learned product of rank ``rank``, zero at first, to a weight (LoRA, Hu et al. 2022, section 4.1).

    A parametrisation of ``torch.nn.utils.parametrize``. The product is not scaled: the learning rate does that.

    Args:
        rows: Rows of the weight.
        columns: Its columns.
        rank: Rank of the product.
    """

    def __init__(self, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed ``weight`` [rows, columns]."""
        return weight + self.up @ self.down
