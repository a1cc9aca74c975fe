"""What is fitted on the training split of a fold, and on nothing else."""
# Shapes: F features, C classes, [T, F] frames of one utterance.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of one fold's training split.

    Attributes:
        mean: Mean of each feature over all training frames [F].
        deviation: Standard deviation of each feature over all training frames [F].
        class_prior: Mean target of each class [C]: the class's share of utterances (one label each), of the evaluators'
            votes (soft targets), or the share of utterances in which it exists.
        speakers: Sorted training speakers.
    """

    mean: Tensor
    deviation: Tensor
    class_prior: Tensor
    speakers: tuple[str, ...]


def mean_and_deviation(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean [F] and the standard deviation [F] over all frames of all utterances.

    Each utterance's sums are taken in float64 around a common shift, so that features with a large mean and a small
    deviation keep their digits.

    Args:
        frames: Frames [T, F] of each utterance; at least one.
    """
    shift = frames[0].mean(0, dtype=torch.float64)
    count = 0
    total = torch.zeros_like(shift)
    squares = torch.zeros_like(shift)
    for utterance in frames:
        shifted = utterance.double() - shift
        count += shifted.shape[0]
        total += shifted.sum(0)
        squares += shifted.square().sum(0)
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0.0)
    return (mean + shift).float(), variance.sqrt().float()
