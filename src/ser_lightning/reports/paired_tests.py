"""Paired tests over speakers between systems on the same split."""
# Shapes: S speakers.

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ser_lightning.reports.uncertainty import RESAMPLES, SCORES, SpeakerCounts, bootstrap_interval
from ser_lightning.runs.gathering import CrossValidation, folds_in_all

SIGNIFICANT = 0.05
MAX_SYSTEMS_IN_ALL_PAIRS = 5  # more systems are each compared only with the first
# Facts that two systems must share, the most informative first.
SAME_SPLIT = ("corpus", "synthetic", "class_names", "protocol_hash")


@dataclass(frozen=True)
class ComparedSystem:
    """A system to compare: its name and its cross-validations, one per seed, at least one."""

    name: str
    runs: Sequence[CrossValidation]


@dataclass(frozen=True)
class PairedTest:
    """Comparison of two systems on the same speakers.

    Attributes:
        first: Name of the first system.
        second: Name of the second system.
        metric: ``UA`` or ``WA``, per speaker.
        speakers: Number of speakers.
        difference: Mean over speakers of the second's score minus the first's, between -1 and 1.
        low: Lower end of the difference's 95% interval over speakers, or None.
        high: Upper end, or None.
        p_value: Two-sided, of the permutation test.
        adjusted: ``p_value`` with Holm's correction for all tests of the page.
        least_adjusted: The smallest possible ``adjusted``: that of equal signs in all tests.
    """

    first: str
    second: str
    metric: str
    speakers: int
    difference: float
    low: float | None
    high: float | None
    p_value: float
    adjusted: float
    least_adjusted: float

    @property
    def verdict(self) -> str:
        """Whether a difference is shown, is not shown, or cannot be shown with this number of speakers."""
        if self.adjusted < SIGNIFICANT:
            return "differ"
        return "no difference shown" if self.least_adjusted < SIGNIFICANT else "cannot be shown"


@dataclass(frozen=True)
class SkippedPair:
    """Two systems that cannot be compared, and why."""

    first: str
    second: str
    reason: str


def sign_flip_p_value(differences: NDArray[np.float64], resamples: int = RESAMPLES) -> float:
    """Return the two-sided p-value of the mean of ``differences`` [S] under random sign flips.

    Tries all 2^S flips if they are at most ``resamples``, else ``resamples`` random ones.
    """
    found = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def least_p_value(speakers: int, resamples: int = RESAMPLES) -> float:
    """Return the smallest p-value that ``sign_flip_p_value`` can return for this number of speakers."""
    return 2 / min(1 << speakers, resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values with Holm's correction (1979): each times the number of hypotheses not yet rejected."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def paired_tests(systems: Sequence[ComparedSystem]) -> tuple[list[PairedTest], list[SkippedPair]]:
    """Compare the speakers' UA and WA between systems, with Holm's correction over all tests.

    Up to five systems are compared in all pairs, more only with the first. Only folds that both have finished count;
    with several seeds, a speaker's score is the mean over seeds.

    Returns:
        The tests, and the pairs that cannot be tested.
    """
    everyone = itertools.combinations(systems, 2)
    pairs = list(
        everyone if len(systems) <= MAX_SYSTEMS_IN_ALL_PAIRS else ((systems[0], other) for other in systems[1:])
    )
    tests: list[PairedTest] = []
    skipped: list[SkippedPair] = []
    for first, second in pairs:
        found = _compare(first, second)
        if isinstance(found, str):
            skipped.append(SkippedPair(first.name, second.name, found))
        else:
            tests += found
    corrected = holm([test.p_value for test in tests])
    least = holm([least_p_value(test.speakers) for test in tests])
    adjusted = zip(tests, corrected, least, strict=True)
    return [replace(test, adjusted=p_value, least_adjusted=bound) for test, p_value, bound in adjusted], skipped


def same_speakers(first: ComparedSystem, second: ComparedSystem) -> tuple[SpeakerCounts, SpeakerCounts] | str:
    """Return the decisions of two systems on the folds that both have finished, or why they cannot be paired."""
    if {run.folder for run in first.runs} & {run.folder for run in second.runs}:
        return "they share a run"
    one, other = first.runs[0].facts, second.runs[0].facts
    for key in SAME_SPLIT:
        ours, theirs = getattr(one, key), getattr(other, key)
        if ours != theirs:
            what = "the splits differ" if key == "protocol_hash" else f"{key.replace('_', ' ')} differs"
            return f"{what}: {_shown(ours)} and {_shown(theirs)}"
    # Finished in every seed of both, so that all speakers' means are over the same seeds.
    folds = folds_in_all([*first.runs, *second.runs])
    if not folds:
        return "no fold is finished in both"
    left, right = (SpeakerCounts.of(system.runs, folds) for system in (first, second))
    if left.speakers != right.speakers or not torch.equal(left.utterances, right.utterances):
        return "they were tested on different utterances of the same split: audio was skipped in one"
    return left, right


def _compare(first: ComparedSystem, second: ComparedSystem) -> list[PairedTest] | str:
    """Return the tests of a pair, or why it has none."""
    found = same_speakers(first, second)
    if isinstance(found, str):
        return found
    left, right = (counts.scores() for counts in found)
    speakers = len(left)
    least = least_p_value(speakers)
    if least > SIGNIFICANT:
        return f"{speakers} speakers: no p-value below {least:.3g} is possible"
    tests = []
    for metric in SCORES:
        differences = (right[metric] - left[metric]).to_numpy(dtype=np.float64)
        low, high = _interval(differences)
        p_value = sign_flip_p_value(differences)
        mean = float(differences.mean())
        tests.append(PairedTest(first.name, second.name, metric, speakers, mean, low, high, p_value, p_value, least))
    return tests


def _interval(differences: NDArray[np.float64]) -> tuple[float | None, float | None]:
    if np.ptp(differences) < 1e-12:
        return None, None
    low, high = bootstrap_interval(differences, np.mean)
    return (low, high) if np.isfinite(low) and np.isfinite(high) else (None, None)


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
