"""Uniform and unigram label smoothing (Huang et al. 2020, section 2.2, eq. 2)."""
# Shapes: B utterances, C classes.

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.losses.criterion import Criterion


class LabelSmoothing(Criterion):
    """Cross entropy against eq. 2's targets, q'(k) = (1 - alpha) delta(k, y) + alpha u(k).

    Args:
        alpha: Smoothing weight in [0, 1]; 0 is plain cross entropy.
        prior: u: ``uniform`` is 1 / C, ``unigram`` the class distribution of the training split.
    """

    def __init__(self, alpha: float = 0.0, prior: Literal["uniform", "unigram"] = "uniform") -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha is {alpha}; label smoothing needs a weight from 0 to 1")
        self.alpha = alpha
        self.prior = prior

    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the mean cross entropy of ``logits`` [B, C] against smoothed ``targets`` [B, C]."""
        smoothing = class_prior if self.prior == "unigram" else torch.full_like(class_prior, 1.0 / len(class_prior))
        smoothed = (1.0 - self.alpha) * targets + self.alpha * smoothing
        return F.cross_entropy(logits, smoothed.to(logits.dtype))
