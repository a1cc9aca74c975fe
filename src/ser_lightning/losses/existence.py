"""Existence of each emotion (Ando et al. 2019, section 3.1, eq. 6)."""
# Shapes: B utterances, C classes.

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.losses.criterion import Criterion


class ExistenceLoss(Criterion):
    """Binary cross entropy of each class, weighted for presence and absence, summed over classes.

    The paper uses inverse frequencies of presence and absence of each class (section 4.1) and does not state their
    scale; here they are 1 / (2 prior_k) and 1 / (2 (1 - prior_k)), which is 1 for a prior of one half. Presence or
    absence that never occurs in the training split has weight zero.
    """

    reads: ClassVar[tuple[str, ...]] = ("hard", "existence")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return existence probabilities [B, C] of ``logits`` [B, C], divided by their sum: a row sums to one.

        Eq. 7 decides by the logits, because the sigmoid of a logit above about 17 rounds to one in float32.
        """
        return F.logsigmoid(logits.float()).softmax(1)

    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the mean loss of ``logits`` [B, C], before the sigmoid, against ``targets`` [B, C] of 0 and 1."""
        targets, existent = targets.to(logits.dtype), class_prior.to(logits.dtype)
        presence = torch.where(existent > 0, 0.5 / existent, 0.0)
        absence = torch.where(existent < 1, 0.5 / (1.0 - existent), 0.0)
        weights = targets * presence + (1.0 - targets) * absence
        return F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="none").sum(1).mean()
