"""Unweighted accuracy, weighted accuracy and macro F1, defined once, on a confusion matrix; scores of probabilities.

Every number of the suite, in training logs, summaries and reports, comes from the functions of this file, so that two
places cannot disagree about what a score means. A confusion matrix has one row for each reference class and one column
for each predicted class; its entries count utterances.
"""
# Shapes: B utterances of a batch, N of a set, C classes, M bins; ... any number of matrices side by side, or none.

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

CALIBRATION_BINS = 15


def recalls(confusion: Tensor) -> Tensor:
    """Return the recall of each class [..., C] in float64; NaN for a class that no reference has.

    Args:
        confusion: Counts [..., C, C], reference classes in rows.
    """
    counts = confusion.double()
    # 0 / 0 is NaN, which is what an absent class should be.
    return counts.diagonal(dim1=-2, dim2=-1) / counts.sum(dim=-1)


def unweighted_accuracy(confusion: Tensor) -> Tensor:
    """Return UA [...], the mean recall over the classes that occur in the reference, in float64.

    A class that is predicted but never the reference lowers the recall of others, not the number of terms:
    torchmetrics' macro average counts such a class as a recall of zero (0.444 where UA is 0.667).

    Args:
        confusion: Counts [..., C, C], reference classes in rows. Without any utterance the result is NaN.
    """
    return recalls(confusion).nanmean(dim=-1)


def weighted_accuracy(confusion: Tensor) -> Tensor:
    """Return WA [...], the share of utterances that are recognised, in float64.

    Args:
        confusion: Counts [..., C, C], reference classes in rows. Without any utterance the result is NaN.
    """
    counts = confusion.double()
    return counts.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / counts.sum(dim=(-2, -1))


def macro_f1(confusion: Tensor) -> Tensor:
    """Return the mean F1 over the classes that occur in the reference or the prediction, as a float64 scalar.

    This is scikit-learn's ``f1_score(average="macro")`` without explicit labels. A class that is predicted but never
    the reference therefore counts as an F1 of zero, unlike in ``unweighted_accuracy``.

    Args:
        confusion: Counts [C, C], reference classes in rows. Without any utterance the result is NaN.
    """
    counts = confusion.double()
    f1 = 2 * counts.diagonal() / (counts.sum(dim=0) + counts.sum(dim=1))  # NaN where a class never occurs
    return f1.nanmean()


def scores(confusion: Tensor) -> dict[str, Tensor]:
    """Return ``UA``, ``WA`` and ``macro_F1`` of a confusion matrix [C, C], each a float64 scalar between 0 and 1."""
    return {
        "UA": unweighted_accuracy(confusion),
        "WA": weighted_accuracy(confusion),
        "macro_F1": macro_f1(confusion),
    }


@dataclass(frozen=True)
class Calibration:
    """How sure a system is and how often it is right, in bins of equal width of its confidence (Guo et al. 2017).

    Attributes:
        edges: Of the bins [M + 1], from 0 to 1. A bin holds its upper edge, not its lower one.
        utterances: How many each bin holds [M].
        confidence: Mean confidence in each bin [M]; NaN in an empty one.
        accuracy: Share of decisions that are right in each bin [M]; NaN in an empty one.
    """

    edges: Tensor
    utterances: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> Tensor:
        """The expected calibration error (eq. 3), a scalar from 0 to 1: the mean distance of confidence and accuracy.

        Each bin counts as much as it has utterances.
        """
        distance = (self.confidence - self.accuracy).abs().nan_to_num(0.0)
        return (distance * self.utterances).sum() / self.utterances.sum()


def calibration(probabilities: Tensor, labels: Tensor, predicted: Tensor) -> Calibration:
    """Return confidence and accuracy of decisions in 15 bins, in float64 on the device of ``probabilities``.

    Confidence is the probability of the class decided on, which need not be the most probable one (a support vector
    machine). torchmetrics' own error takes the most probable class for the decision, and puts what is exactly 1, as
    overfitted networks say it in float32, into a sixteenth bin (1.9).

    Args:
        probabilities: Of each class [N, C]; a row sums to one.
        labels: Reference class of each utterance [N].
        predicted: Class decided on for each utterance [N].
    """
    confidence = probabilities.double().gather(1, predicted.unsqueeze(1)).squeeze(1)
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, dtype=torch.float64, device=confidence.device)
    bins = (torch.bucketize(confidence, edges) - 1).clamp(0, CALIBRATION_BINS - 1)
    empty = torch.zeros_like(edges[1:])
    utterances, sure, right = (
        empty.index_add(0, bins, values)
        for values in (torch.ones_like(confidence), confidence, (predicted == labels).double())
    )
    return Calibration(edges, utterances, sure / utterances, right / utterances)


def vote_cross_entropy(probabilities: Tensor, votes: Tensor) -> Tensor:
    """Return the cross entropy of predicted distributions under the evaluators', in nats, averaged over utterances.

    A probability counts as at least the resolution of float32, so that one which was rounded to zero stays a number.

    Args:
        probabilities: Of each class [N, C]; a row sums to one.
        votes: Each class's part of the votes [N, C]; a row sums to one, or is zero without a vote for any class. Such
            utterances are left out; if no other is left, the result is NaN.
    """
    voted = votes.sum(dim=1) > 0
    surprise = -probabilities[voted].double().clamp(min=torch.finfo(torch.float32).eps).log()
    return (votes[voted].double() * surprise).sum(dim=1).mean()


def vote_kl(probabilities: Tensor, votes: Tensor) -> Tensor:
    """Return the KL divergence of predicted distributions from the evaluators', in nats, averaged over utterances.

    It is the cross entropy less the entropy of the votes, which no system can avoid.

    Args:
        probabilities: As in ``vote_cross_entropy``.
        votes: As in ``vote_cross_entropy``.
    """
    chosen = votes[votes.sum(dim=1) > 0].double()
    entropy = -torch.xlogy(chosen, chosen).sum(dim=1).mean()
    return vote_cross_entropy(probabilities, votes) - entropy


class EmotionScores(Metric):
    """The confusion matrix [C, C] of all utterances seen, summed over devices; ``scores`` turns it into numbers.

    The matrix and not the scores is what batches and devices add up, so that batch size, unequal shares and the number
    of devices never change a result. ``update`` does not wait for the device: torchmetrics' own confusion matrix
    counts with ``bincount``, which does.

    Attributes:
        names: What ``scores`` returns.

    Args:
        num_classes: C.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    names: ClassVar[tuple[str, ...]] = ("UA", "WA", "macro_F1")

    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: Predicted class of each utterance [B], or a score for each class [B, C], the largest of which
                decides.
            targets: Reference class of each utterance [B], from 0 to C - 1.

        Raises:
            IndexError: If there is no such class, as where a label is missing (on a GPU: a device-side assertion, since
                nothing waits for it).
        """
        predicted = predictions.argmax(dim=1) if predictions.ndim == targets.ndim + 1 else predictions
        # An index of -1 would count as the last class.
        targets = targets.masked_fill(targets < 0, self.num_classes)
        ones = torch.ones_like(targets, dtype=self.confusion.dtype)
        self.confusion = self.confusion.index_put((targets, predicted), ones, accumulate=True)

    def compute(self) -> Tensor:
        """Return the counts [C, C], reference classes in rows."""
        return self.confusion

    @staticmethod
    def scores(confusion: Tensor) -> dict[str, Tensor]:
        """Return ``UA``, ``WA`` and ``macro_F1`` of what ``compute`` returned."""
        return scores(confusion)


class SpeakerScores(Metric):
    """How many utterances of each speaker are recognised, summed over devices, in memory that is linear in speakers.

    A confusion matrix of VoxCeleb2's 5,994 speakers would have 36 million entries.

    Attributes:
        names: What ``scores`` returns.

    Args:
        num_classes: C speakers.
        top: ``top_5`` counts an utterance whose speaker is among this many likeliest.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    names: ClassVar[tuple[str, ...]] = ("UA", "WA", "top_5")

    counts: Tensor

    def __init__(self, num_classes: int, top: int = 5) -> None:
        super().__init__()
        self.top = min(top, num_classes)
        # In rows: utterances, those recognised, those whose speaker is among the likeliest.
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Count a batch.

        Args:
            scores: Of each speaker [B, C], larger for likelier.
            targets: The speaker of each utterance [B], from 0 to C - 1.
        """
        hits = scores.topk(self.top, dim=1).indices == targets.unsqueeze(1)
        found = torch.stack([torch.ones_like(targets), hits[:, 0], hits.any(1)])
        self.counts = self.counts.index_add(1, targets, found.to(self.counts.dtype))

    def compute(self) -> Tensor:
        """Return the counts [3, C] of utterances, of those recognised, of those among the likeliest."""
        return self.counts

    @staticmethod
    def scores(counts: Tensor) -> dict[str, Tensor]:
        """Return ``UA``, the mean over speakers; ``WA``, that over utterances; ``top_5``; each a float64 scalar."""
        utterances, recognised, likely = counts.double()
        return {
            "UA": (recognised / utterances).nanmean(),
            "WA": recognised.sum() / utterances.sum(),
            "top_5": likely.sum() / utterances.sum(),
        }
