"""Additive-margin softmax (Zhou & Liu 2020, section 2.2, eq. 2)."""
# Shapes: B utterances, D channels, C classes.

from math import inf

from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.losses.criterion import Criterion
from ser_lightning.nn.heads import CosineHead


class AMSoftmax(Criterion):
    """Cross entropy of scaled cosines, with a margin subtracted from the target's cosine: s (cos theta_y - m).

    Logits are cosines. The margin applies in training and validation, so that their losses are comparable.
    (Eq. 2 is printed without its minus sign.)

    Args:
        scale: s; with small values, probabilities stay far from one.
        margin: m; 0 is cross entropy of scaled cosines.

    Raises:
        ValueError: If a number is out of range, NaN or infinite.
    """

    def __init__(self, scale: float = 1.0, margin: float = 0.0) -> None:
        super().__init__()
        if not 0 < scale < inf:  # nor NaN
            raise ValueError(f"scale is {scale}; AM-softmax needs a positive, finite number")
        if not 0 <= margin < inf:
            raise ValueError(f"margin is {margin}; AM-softmax needs a finite number of 0 or more")
        self.scale = scale
        self.margin = margin

    def head(self, input_dim: int, num_classes: int) -> nn.Module:
        """Return the layer from vectors [B, input_dim] to cosines [B, num_classes]."""
        return CosineHead(input_dim, num_classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax of scaled cosines ``logits`` [B, C], without margin."""
        return super().probabilities(self.scale * logits)

    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the mean loss of cosines ``logits`` [B, C] against one-hot ``targets`` [B, C]."""
        targets = targets.to(logits.dtype)
        return F.cross_entropy(self.scale * (logits - self.margin * targets), targets)
