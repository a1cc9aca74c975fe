"""Cross entropy against hard or soft targets, with class weights (Ando et al. 2019, sections 2.1, 2.2 and 4.1)."""
# Shapes: B utterances, C classes.

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.losses.criterion import Criterion


class WeightedCrossEntropy(Criterion):
    """Eq. 2 with a weight for each class: -sum_k w_k q_k log p_k, averaged over utterances.

    The paper uses inverse class frequencies and does not state their scale; here w_k = 1 / (C prior_k), which is 1 for
    balanced classes, and 0 for a class that the training split lacks. (torch divides by the summed weights if targets
    are class indices; this is the mean over utterances, for hard and soft targets alike.)

    Args:
        weighting: Class weights; ``none`` is plain cross entropy.
    """

    reads: ClassVar[tuple[str, ...]] = ("hard", "soft")

    def __init__(self, weighting: Literal["none", "inverse_frequency"] = "none") -> None:
        super().__init__()
        self.weighting = weighting

    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the mean loss of ``logits`` [B, C] against distributions ``targets`` [B, C]."""
        targets = targets.to(logits.dtype)
        if self.weighting == "inverse_frequency":
            frequency = class_prior.to(logits.dtype)
            weights = torch.where(frequency > 0, 1.0 / (len(frequency) * frequency), 0.0)
            targets = targets * weights
        return F.cross_entropy(logits, targets)
