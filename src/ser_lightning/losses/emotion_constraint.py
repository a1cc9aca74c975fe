"""Triplet loss with an emotion constraint (Mocanu et al. 2021, section 3.3, eqs. 5 to 7)."""
# Shapes: B utterances, E embedding dimensions, C classes.

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ser_lightning.losses.metric_loss import MetricLoss, distances_between, in_dtype_of
from ser_lightning.losses.triplet import semi_hard_sums


class EmotionConstraint(MetricLoss):
    """Separate emotions, and keep related ones closer to each other than to those of another polarity.

    Eq. 7 is missing from the paper's text. This is the mean over the batch's anchors of

        [D(a, p) - D(a, r1) + alpha]+ + [D(a, r2) - D(a, n) + beta]+

    where r1 is the anchor's nearest and r2 its farthest utterance of a related emotion, another one of its polarity.
    Choices that the paper leaves open:

    - p: the first term is the mean over all of the anchor's positives, because eq. 5 should hold for each; with the
      hardest alone, one outlier would decide an anchor's gradient.
    - n: negatives are of another polarity; the second term is the mean over those that ``negatives`` selects.
    - An anchor whose emotion has no related one contributes the mean of D(a, p) - D(a, n) + margin over its semi-hard
      triplets, with negatives of any other emotion.
    - An anchor without active terms counts as zero in the mean.

    The number of terms counts pairs (a, p), pairs (a, n) and triplets with a positive loss; violations are of eq. 6.

    Args:
        class_names: The emotions, in the order of labels.
        alpha: Margin between positives and related, in distances of unit vectors (0 to 2).
        beta: Margin between related and negatives.
        polarities: The emotions of each polarity; may name emotions that the corpus lacks. An emotion that is the only
            one of its polarity in the corpus, or in none, has no related one.
        margin: Margin of the plain triplets.
        same_related: Use r1 for r2 too: the nearest related utterance is in both terms.
        negatives: Which n of those that violate eq. 6 count: ``hinge`` all; ``band`` those with D(a, r2) < D(a, n), as
            in semi-hard triplets, which leaves the worst violations without gradient; ``nearest`` the nearest one.

    Raises:
        ValueError: If an emotion is in two polarities, or may be misspelt, or none has a related one.
    """

    polarity: Tensor
    alone: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        alpha: float,
        beta: float,
        polarities: Mapping[str, Sequence[str]],
        margin: float = 0.1,
        same_related: bool = False,
        negatives: Literal["hinge", "band", "nearest"] = "hinge",
    ) -> None:
        super().__init__(class_names)
        for name, value in (("alpha", alpha), ("beta", beta), ("margin", margin)):
            if value <= 0:
                raise ValueError(f"{name} is {value}; the emotion constraint needs positive margins")
        self.alpha = alpha
        self.beta = beta
        self.margin = margin
        self.same_related = same_related
        self.negatives = negatives
        polarity = _polarity_indices(self.class_names, polarities)
        alone = [polarity.count(index) == 1 for index in polarity]
        if all(alone):
            raise ValueError(
                f"polarities {dict(polarities)} relate no two of the emotions {', '.join(self.class_names)}; "
                "name at least two in one polarity, or use TripletLoss"
            )
        self.has_alone = any(alone)
        # Not persistent: these are settings, not learned state.
        self.register_buffer("polarity", torch.tensor(polarity), persistent=False)
        self.register_buffer("alone", torch.tensor(alone), persistent=False)

    def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of ``embeddings`` [B, E] with ``labels`` [B], and the number of terms above zero."""
        distances = distances_between(embeddings)
        pairs = self._pairs(distances, labels)
        pulls = (distances - pairs.nearest + self.alpha).relu().masked_fill(~pairs.positive, 0.0)
        pushes = torch.where(pairs.seen, pairs.farthest - distances + self.beta, 0.0)
        losses = _mean(pulls, pairs.positive) + _mean(pushes, pairs.seen)
        terms = (pulls > 0).sum(1) + pairs.seen.sum(1)
        if self.has_alone:
            alone = self.alone[labels]
            sums, counts = semi_hard_sums(distances, pairs.positive, labels.unsqueeze(1) != labels, self.margin)
            losses = torch.where(alone, sums / counts.clamp(min=1), losses)
            terms = torch.where(alone, counts, terms)
        return in_dtype_of(embeddings, losses.mean()), terms.sum()

    @torch.no_grad()
    def violations(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Count pairs (a, n) of anchors with related utterances, violations of eq. 6, and the selected ones [3]."""
        pairs = self._pairs(distances_between(embeddings), labels)
        return torch.stack([chosen.sum() for chosen in (pairs.negative, pairs.violated, pairs.seen)])

    def _pairs(self, distances: Tensor, labels: Tensor) -> "_Pairs":
        """Return which columns of ``distances`` [B, B] count for the anchor of each row, and how far r1 and r2 are."""
        polarity = self.polarity[labels]
        same = labels.unsqueeze(1) == labels
        same_polarity = polarity.unsqueeze(1) == polarity
        related = same_polarity & ~same
        nearest = distances.masked_fill(~related, torch.inf).amin(1, keepdim=True)
        farthest = nearest if self.same_related else distances.masked_fill(~related, -torch.inf).amax(1, keepdim=True)
        negative = ~same_polarity & related.any(1, keepdim=True)
        violated = seen = negative & (distances < farthest + self.beta)
        if self.negatives == "band":
            seen = violated & (farthest < distances)
        elif self.negatives == "nearest":
            seen = violated & (distances == distances.masked_fill(~negative, torch.inf).amin(1, keepdim=True))
        return _Pairs(same.clone().fill_diagonal_(False), nearest, farthest, negative, violated, seen)


class _Pairs(NamedTuple):
    """Pairs of an anchor, in a row, and another utterance, in a column [B, B]; distances [B, 1].

    Attributes:
        positive: Of the same emotion.
        nearest: D(a, r1); infinite if the anchor has no related utterance.
        farthest: D(a, r2); infinite if the anchor has no related utterance.
        negative: Of another polarity, if the anchor has a related utterance.
        violated: Negatives that violate eq. 6.
        seen: Violated ones that contribute to the loss.
    """

    positive: Tensor
    nearest: Tensor
    farthest: Tensor
    negative: Tensor
    violated: Tensor
    seen: Tensor


def _mean(losses: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean [B] of ``losses`` [B, B] over the ``chosen`` pairs of each row, outside which they are zero."""
    return losses.sum(1) / chosen.sum(1).clamp(min=1)


def _polarity_indices(class_names: tuple[str, ...], polarities: Mapping[str, Sequence[str]]) -> list[int]:
    """Return the polarity index of each class."""
    polarity_of: dict[str, str] = {}
    for polarity, emotions in polarities.items():
        for emotion in emotions:
            if emotion in polarity_of:
                raise ValueError(
                    f"polarities: {emotion} is in {polarity_of[emotion]} and in {polarity}; give it one polarity"
                )
            polarity_of[emotion] = polarity
    # A wheel for several corpora may name other emotions; a class without polarity may then be a misspelt one.
    missing = [name for name in class_names if name not in polarity_of]
    if missing and (extra := [emotion for emotion in polarity_of if emotion not in class_names]):
        raise ValueError(
            f"polarities name {', '.join(extra)}, not in the corpus, but not {missing[0]}; give {missing[0]} a polarity"
        )
    order = list(polarities)
    return [
        order.index(polarity_of[name]) if name in polarity_of else len(order) + index  # one to itself
        for index, name in enumerate(class_names)
    ]
