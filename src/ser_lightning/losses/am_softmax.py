"""Additive-margin softmax (Zhou & Liu 2020, section 2.2, eq. 2)."""
# Shapes: B utterances, D channels, C classes.

from math import inf

from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.losses.criterion import Criterion
from ser_lightning.nn.heads import CosineHead


class AMSoftmax(Criterion):
    """Cross entropy of scaled cosines, with the target's cosine made smaller by a margin: s (cos theta_y - m).

    Logits are cosines. The margin is part of the loss wherever it is computed, so that
    losses of training and validation compare. (Eq. 2 is printed without its minus sign.)

    Args:
        scale: s; with small values probabilities never come near one.
        margin: m; 0 is cross entropy of scaled cosines.

    Raises:
        ValueError: If a number is out of range, NaN or infinite.
    """

    def __init__(self, scale: float = 1.0, margin: float = 0.0) -> None:
        super().__init__()
        if not 0 < scale < inf:  # nor NaN
            raise ValueError(f"scale is {scale}; AM-softmax needs a positive one that is finite")
        if not 0 <= margin < inf:
            raise ValueError(f"margin is {margin}; AM-softmax needs 0 or more, and a finite one")
        self.scale = scale
        self.margin = margin

    def head(self, input_dim: int, num_classes: int) -> nn.Module:
        """Return the layer that makes cosines [B, num_classes] of vectors [B, input_dim]."""
        return CosineHead(input_dim, num_classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax of scaled cosines ``logits`` [B, C], without margin: nobody knows the target."""
        return super().probabilities(self.scale * logits)

    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the mean loss of cosines ``logits`` [B, C] against one-hot ``targets`` [B, C]."""
        targets = targets.to(logits.dtype)
        return F.cross_entropy(self.scale * (logits - self.margin * targets), targets)
