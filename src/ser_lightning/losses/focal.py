"""Focal loss (Zhou & Liu 2020, section 2.3, eq. 3)."""
# Shapes: B utterances, C classes.

from math import inf

import torch
from torch import Tensor

from ser_lightning.losses.criterion import Criterion


class FocalLoss(Criterion):
    """Cross entropy that down-weights easy utterances: -alpha (1 - p)^gamma log p, p of the target.

    As in the paper, all classes share one alpha; it hardly affects adaptive optimisers such as Adam.

    Args:
        gamma: Focusing parameter; with 0 (and alpha 1) this is cross entropy.
        alpha: Factor of the loss.

    Raises:
        ValueError: If a number is out of range, NaN or infinite.
    """

    def __init__(self, gamma: float = 0.0, alpha: float = 1.0) -> None:
        super().__init__()
        if not 0 <= gamma < inf:  # nor NaN
            raise ValueError(f"gamma is {gamma}; focal loss needs a finite number of 0 or more")
        if not 0 < alpha < inf:
            raise ValueError(f"alpha is {alpha}; focal loss needs a positive, finite factor")
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the mean loss of ``logits`` [B, C] against one-hot ``targets`` [B, C]."""
        log_p = (targets * logits.log_softmax(1)).sum(1)
        # At p = 1 the gradient of 0^gamma is infinite if gamma < 1, and infinity times log 1 is NaN.
        miss = (1.0 - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).tiny)
        return (-self.alpha * miss.pow(self.gamma) * log_p).mean()
