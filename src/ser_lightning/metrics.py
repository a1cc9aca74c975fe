"""Unweighted accuracy, weighted accuracy and macro F1 of a confusion matrix; scores of probabilities.

All logs, summaries and reports use these functions. A confusion matrix counts utterances, with one row for each
reference class and one column for each predicted class.
"""
# Shapes: B utterances of a batch, N of a set, C classes, M bins; ... any number of batch dimensions.

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

CALIBRATION_BINS = 15


def recalls(confusion: Tensor) -> Tensor:
    """Return the recall of each class [..., C] in float64; NaN for a class without reference utterances.

    Args:
        confusion: Counts [..., C, C], reference classes in rows.
    """
    counts = confusion.double()
    return counts.diagonal(dim1=-2, dim2=-1) / counts.sum(dim=-1)


def unweighted_accuracy(confusion: Tensor) -> Tensor:
    """Return UA [...], the mean recall over the classes that occur in the reference, in float64.

    A class that is predicted but never the reference is not a term of the mean; torchmetrics' macro average counts it
    as a recall of zero.

    Args:
        confusion: Counts [..., C, C], reference classes in rows. Without any utterance the result is NaN.
    """
    return recalls(confusion).nanmean(dim=-1)


def weighted_accuracy(confusion: Tensor) -> Tensor:
    """Return WA [...], the share of correctly classified utterances, in float64.

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
    """Accuracy as a function of confidence, in confidence bins of equal width (Guo et al. 2017).

    Attributes:
        edges: Bin edges [M + 1], from 0 to 1. A bin includes its upper edge, not its lower one.
        utterances: Number of utterances in each bin [M].
        confidence: Mean confidence in each bin [M]; NaN in an empty one.
        accuracy: Share of correct decisions in each bin [M]; NaN in an empty one.
    """

    edges: Tensor
    utterances: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> Tensor:
        """Expected calibration error (eq. 3), 0 to 1: mean |confidence - accuracy|, weighted by utterances per bin."""
        distance = (self.confidence - self.accuracy).abs().nan_to_num(0.0)
        return (distance * self.utterances).sum() / self.utterances.sum()


def calibration(probabilities: Tensor, labels: Tensor, predicted: Tensor) -> Calibration:
    """Return confidence and accuracy of decisions in 15 bins, in float64 on the device of ``probabilities``.

    Confidence is the probability of the predicted class, which need not be the most probable one (support vector
    machine). torchmetrics 1.9 assumes the most probable class, and puts a confidence of exactly 1 into a sixteenth bin.

    Args:
        probabilities: Class probabilities [N, C]; a row sums to one.
        labels: Reference class of each utterance [N].
        predicted: Predicted class of each utterance [N].
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

    Probabilities are clamped to the resolution of float32, so that the result is finite.

    Args:
        probabilities: Class probabilities [N, C]; a row sums to one.
        votes: Each class's share of the votes [N, C]; a row sums to one, or is zero without a vote for any class. Such
            utterances are skipped; if none remains, the result is NaN.
    """
    voted = votes.sum(dim=1) > 0
    surprise = -probabilities[voted].double().clamp(min=torch.finfo(torch.float32).eps).log()
    return (votes[voted].double() * surprise).sum(dim=1).mean()


def vote_kl(probabilities: Tensor, votes: Tensor) -> Tensor:
    """Return the KL divergence of predicted distributions from the evaluators', in nats, averaged over utterances.

    It is the cross entropy minus the entropy of the votes.

    Args:
        probabilities: As in ``vote_cross_entropy``.
        votes: As in ``vote_cross_entropy``.
    """
    chosen = votes[votes.sum(dim=1) > 0].double()
    entropy = -torch.xlogy(chosen, chosen).sum(dim=1).mean()
    return vote_cross_entropy(probabilities, votes) - entropy


class EmotionScores(Metric):
    """The confusion matrix [C, C] of all utterances seen, summed over devices; ``scores`` turns it into numbers.

    Batches and devices add up the matrix, not the scores, so batch size and the number of devices do not change a
    result. ``update`` does not synchronise with the device, unlike torchmetrics' ``bincount``.

    Attributes:
        names: Keys of ``scores``.

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
            predictions: Predicted class of each utterance [B], or a score for each class [B, C].
            targets: Reference class of each utterance [B], from 0 to C - 1.

        Raises:
            IndexError: If a class is out of range, such as a missing label (on a GPU, a device-side assertion).
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
        """Return ``UA``, ``WA`` and ``macro_F1`` of the counts that ``compute`` returned."""
        return scores(confusion)


class SpeakerScores(Metric):
    """Correctly classified utterances of each speaker, summed over devices, in memory linear in speakers.

    A confusion matrix of VoxCeleb2's 5,994 speakers would have 36 million entries.

    Attributes:
        names: Keys of ``scores``.

    Args:
        num_classes: C speakers.
        top: ``top_5`` counts an utterance whose speaker is among this many most probable ones.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    names: ClassVar[tuple[str, ...]] = ("UA", "WA", "top_5")

    counts: Tensor

    def __init__(self, num_classes: int, top: int = 5) -> None:
        super().__init__()
        self.top = min(top, num_classes)
        # Rows: utterances, correct ones, those whose speaker is among the top.
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Count a batch.

        Args:
            scores: Score of each speaker [B, C].
            targets: Speaker of each utterance [B], from 0 to C - 1.
        """
        hits = scores.topk(self.top, dim=1).indices == targets.unsqueeze(1)
        found = torch.stack([torch.ones_like(targets), hits[:, 0], hits.any(1)])
        self.counts = self.counts.index_add(1, targets, found.to(self.counts.dtype))

    def compute(self) -> Tensor:
        """Return the counts [3, C]: utterances, correct ones, and those with the speaker among the top."""
        return self.counts

    @staticmethod
    def scores(counts: Tensor) -> dict[str, Tensor]:
        """Return ``UA``, the mean over speakers; ``WA``, the mean over utterances; ``top_5``; as float64 scalars."""
        utterances, correct, in_top = counts.double()
        return {
            "UA": (correct / utterances).nanmean(),
            "WA": correct.sum() / utterances.sum(),
            "top_5": in_top.sum() / utterances.sum(),
        }
