"""Triplet loss with semi-hard mining in the batch (Mocanu et al. 2021, section 3.3, eqs. 2 and 3)."""
# Shapes: B utterances, E embedding dimensions.

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.losses.metric_loss import MetricLoss, distances_between, in_dtype_of


class TripletLoss(MetricLoss):
    """The mean of D(a, p) - D(a, n) + m over all semi-hard triplets of the batch.

    A triplet is an anchor a, a positive p of its emotion and a negative n of another one; it is semi-hard if
    D(a, p) < D(a, n) < D(a, p) + m. Easier and harder triplets are ignored. The paper chooses triplets in the batch and
    does not say how many; here all of them count. Equal to pytorch-metric-learning's
    ``TripletMarginMiner(type_of_triplets="semihard")`` with ``TripletMarginLoss``.

    Args:
        class_names: The emotions, in the order of labels.
        margin: m, in distances of unit vectors (0 to 2).
    """

    def __init__(self, class_names: Sequence[str], margin: float) -> None:
        super().__init__(class_names)
        if margin <= 0:
            raise ValueError(f"margin is {margin}; it must be positive, or no triplet is semi-hard")
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of ``embeddings`` [B, E] with ``labels`` [B], and the number of semi-hard triplets."""
        distances = distances_between(embeddings)
        same = labels.unsqueeze(1) == labels
        sums, counts = semi_hard_sums(distances, same.clone().fill_diagonal_(False), ~same, self.margin)
        terms = counts.sum()
        return in_dtype_of(embeddings, sums.sum() / terms.clamp(min=1)), terms

    @torch.no_grad()
    def violations(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Count all triplets, those with D(a, n) < D(a, p) + m, and the semi-hard ones [3]."""
        distances = distances_between(embeddings)
        same = labels.unsqueeze(1) == labels
        positive = same.clone().fill_diagonal_(False)
        negatives = distances.masked_fill(same, torch.inf).sort(dim=1).values
        violated = positive * torch.searchsorted(negatives, distances + self.margin)
        _, semi_hard = semi_hard_sums(distances, positive, ~same, self.margin)
        return torch.stack([(positive.sum(1) * (~same).sum(1)).sum(), violated.sum(), semi_hard.sum()])


def semi_hard_sums(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return for each anchor the sum of D(a, p) - D(a, n) + margin over its semi-hard triplets, and their number [B].

    Args:
        distances: D [B, B], an anchor in each row.
        positive: Whether a column is a positive of the row's anchor [B, B].
        negative: Whether it is a negative [B, B].
        margin: Largest excess of a semi-hard negative's distance over the positive's.
    """
    pulls, pushes = semi_hard_counts(distances.detach(), positive, negative, margin)
    counts = pulls.sum(1)
    # The sum is linear in distances: each counts once per triplet that contains it.
    return ((pulls - pushes) * distances).sum(1) + margin * counts.to(distances.dtype), counts


def semi_hard_counts(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Count the semi-hard triplets of each anchor-positive pair and of each anchor-negative pair [B, B].

    No triplet is built: in a row of sorted distances, the semi-hard negatives of a positive are contiguous, and so are
    the positives for which a negative is semi-hard. Both counts compare the same sums D(a, p) + margin, so rounding
    cannot make them disagree.
    """
    ordered, order = distances.sort(dim=1)
    positive, negative = positive.gather(1, order), negative.gather(1, order)
    positives_before, negatives_before = _count_before(positive), _count_before(negative)

    # Searching in sorted order is three times as fast as in the batch's order.
    beyond_positive = torch.searchsorted(ordered, ordered, right=True)
    within_margin = torch.searchsorted(ordered, ordered + margin)
    pulls = positive * (negatives_before.gather(1, within_margin) - negatives_before.gather(1, beyond_positive))

    before_negative = torch.searchsorted(ordered, ordered)
    too_near = torch.searchsorted(ordered + margin, ordered, right=True)
    pushes = negative * (positives_before.gather(1, before_negative) - positives_before.gather(1, too_near))
    return torch.empty_like(pulls).scatter(1, order, pulls), torch.empty_like(pushes).scatter(1, order, pushes)


def _count_before(chosen: Tensor) -> Tensor:
    """Return the number of ``chosen`` [B, B] before each position of a row, and before its end [B, B + 1]."""
    return F.pad(chosen.cumsum(1), (1, 0))
