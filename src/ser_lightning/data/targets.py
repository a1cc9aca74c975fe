"""Training targets of Ando et al. 2019: hard (section 2.1, eq. 3), soft (2.2, eq. 4) and existence (3.1, eq. 5)."""
# K or C classes; h_nk: whether evaluator n gave label k; an evaluator may give several.
# Shapes: F features, [T, F] frames of one utterance.

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.types import TargetKind, Utterance

TrainingSet = Literal["dominant", "all"]


def vote_counts(utterance: Utterance, class_names: Sequence[str]) -> list[int]:
    """Return the number of evaluators who gave each of ``class_names``, the sum over n of h_nk.

    Without votes, the label counts as one vote.
    """
    votes = utterance.votes or ((utterance.label,),)
    return [sum(name in labels for labels in votes) for name in class_names]


def vote_distribution(utterance: Utterance, class_names: Sequence[str]) -> list[float] | None:
    """Return each class's share of the votes for ``class_names``, or None without such votes."""
    counts = vote_counts(utterance, class_names)
    return [count / sum(counts) for count in counts] if any(counts) else None


def existence_ratios(
    utterances: Sequence[Utterance], class_names: Sequence[str]
) -> dict[TrainingSet, dict[str, float]]:
    """Return the share of utterances in which each class exists (Ando et al. 2019, table 1).

    Args:
        utterances: All utterances, including those without a dominant emotion in ``class_names``.
        class_names: The target emotions.

    Returns:
        Ratios from 0 to 1 by class, over the utterances with a dominant emotion in ``class_names`` and over all.

    Raises:
        ValueError: If no utterance has a dominant emotion in ``class_names``.
    """
    dominant = [utterance for utterance in utterances if utterance.label in class_names]
    if not dominant:
        raise ValueError(f"none of {len(utterances)} utterances has a dominant emotion among {', '.join(class_names)}")
    sets: dict[TrainingSet, Sequence[Utterance]] = {"dominant": dominant, "all": utterances}
    return {
        name: {
            emotion: sum(vote_counts(utterance, [emotion])[0] > 0 for utterance in members) / len(members)
            for emotion in class_names
        }
        for name, members in sets.items()
    }


class Targets(ABC):
    """A rule from labels and votes to targets.

    Attributes:
        kind: Kind of target, for the criterion.
    """

    kind: ClassVar[TargetKind]

    @abstractmethod
    def of(self, utterance: Utterance, class_names: Sequence[str]) -> list[float]:
        """Return the target of each class [K]."""

    @abstractmethod
    def trains_on(self, utterance: Utterance, class_names: Sequence[str]) -> bool:
        """Return whether ``utterance`` is used for training."""


class HardTargets(Targets):
    """One for the dominant emotion, zero for the others (eq. 3).

    Utterances without a dominant emotion among the classes are not used for training.
    """

    kind: ClassVar[TargetKind] = "hard"

    def of(self, utterance: Utterance, class_names: Sequence[str]) -> list[float]:
        """Return a one-hot target [K]; all zeros if no class is dominant."""
        return [float(utterance.label == name) for name in class_names]

    def trains_on(self, utterance: Utterance, class_names: Sequence[str]) -> bool:
        """Return whether a class is dominant."""
        return utterance.label in class_names


class SoftTargets(Targets):
    """The distribution of the votes, smoothed (eq. 4): (alpha + votes for k) / (alpha K + votes for all classes).

    Utterances without a vote for any class are not used for training.

    Args:
        alpha: Pseudo-votes added to every class; 0 means no smoothing.

    Raises:
        ConfigurationError: If ``alpha`` is negative.
    """

    kind: ClassVar[TargetKind] = "soft"

    def __init__(self, alpha: float = 0.75) -> None:
        if not 0 <= alpha < float("inf"):
            raise ConfigurationError(f"alpha is {alpha}; soft targets need a number of votes of 0 or more")
        self.alpha = alpha

    def of(self, utterance: Utterance, class_names: Sequence[str]) -> list[float]:
        """Return a distribution [K]; uniform if there is no vote for any class."""
        counts = vote_counts(utterance, class_names)
        if not any(counts):
            return [1 / len(class_names)] * len(class_names)
        total = self.alpha * len(class_names) + sum(counts)
        return [(self.alpha + count) / total for count in counts]

    def trains_on(self, utterance: Utterance, class_names: Sequence[str]) -> bool:
        """Return whether there is a vote for a class."""
        return any(vote_counts(utterance, class_names))


class ExistenceTargets(Targets):
    """One for every emotion that at least one evaluator gave, zero for the others (eq. 5).

    Every utterance is used for training, including those in which no class exists.
    """

    kind: ClassVar[TargetKind] = "existence"

    def of(self, utterance: Utterance, class_names: Sequence[str]) -> list[float]:
        """Return the existence of each class [K]."""
        return [float(count > 0) for count in vote_counts(utterance, class_names)]

    def trains_on(self, utterance: Utterance, class_names: Sequence[str]) -> bool:
        """Return True."""
        return True


class TrainingStatistics:
    """Statistics of one fold's training split; mean and deviation are computed on first use.

    Args:
        frames: Frames [T, F] of each training utterance; read at most once.
        class_prior: Mean target of each class [C].
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

    Sums are in float64 around a common shift, which keeps precision for features with a large mean and a small
    deviation.

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
