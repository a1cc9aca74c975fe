"""Focal loss (Zhou & Liu 2020, section 2.3, eq. 3)."""
# Shapes: B utterances, C classes.

from math import inf

import torch
from torch import Tensor

from ser_lightning.losses.criterion import Criterion


class FocalLoss(Criterion):
    """Cross entropy in which well-recognised utterances count less: -alpha (1 - p)^gamma log p, p of the target.

    One alpha serves all classes, as in the paper; an optimiser that adapts to the gradient's scale, such as Adam,
    hardly notices it.

    Args:
        gamma: Focusing parameter; with 0 (and alpha 1) this is cross entropy.
        alpha: Factor of the loss.

    Raises:
        ValueError: If a number is out of range, NaN or infinite.
    """

    def __init__(self, gamma: float = 0.0, alpha: float = 1.0) -> None:
        super().__init__()
        if not 0 <= gamma < inf:  # nor NaN
            raise ValueError(f"gamma is {gamma}; focal loss needs 0 or more, and a finite one")
        if not 0 < alpha < inf:
            raise ValueError(f"alpha is {alpha}; focal loss needs a positive factor that is finite")
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the mean loss of ``logits`` [B, C] against one-hot ``targets`` [B, C]."""
        log_p = (targets * logits.log_softmax(1)).sum(1)
        # At p = 1 the power of zero would have an infinite gradient if gamma < 1, and infinity times log 1 is NaN.
        miss = (1.0 - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).tiny)
        return (-self.alpha * miss.pow(self.gamma) * log_p).mean()
