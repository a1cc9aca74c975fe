"""What is fitted on the training split of a fold, and on nothing else."""
# Shapes: F features, C classes, [T, F] frames of one utterance.

from collections.abc import Iterable
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor


class TrainingStatistics:
    """Statistics of one fold's training split; what needs all of its frames is computed when it is first asked for.

    Args:
        frames: Frames [T, F] of each training utterance; gone through once at most.
        class_prior: Mean target of each class [C]: the class's share of utterances (one label each), of the evaluators'
            votes (soft targets), or the share of utterances in which it exists.
        speakers: Sorted training speakers.
    """

    def __init__(self, frames: Iterable[Tensor], class_prior: Tensor, speakers: tuple[str, ...]) -> None:
        self._frames = frames
        self.class_prior = class_prior
        self.speakers = speakers

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        return mean_and_deviation(self._frames)

    @property
    def mean(self) -> Tensor:
        """Mean of each feature over all training frames [F]."""
        return self._moments[0]

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each feature over all training frames [F]."""
        return self._moments[1]


def mean_and_deviation(frames: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean [F] and the standard deviation [F] over all frames of all utterances.

    Each utterance's sums are taken in float64 around a common shift, so that features with a large mean and a small
    deviation keep their digits.

    Args:
        frames: Frames [T, F] of each utterance; at least one.
    """
    utterances = iter(frames)
    first = next(utterances)
    shift = first.mean(0, dtype=torch.float64)
    count = 0
    total = torch.zeros_like(shift)
    squares = torch.zeros_like(shift)
    for utterance in chain([first], utterances):
        shifted = utterance.double() - shift
        count += shifted.shape[0]
        total += shifted.sum(0)
        squares += shifted.square().sum(0)
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0.0)
    return (mean + shift).float(), variance.sqrt().float()
