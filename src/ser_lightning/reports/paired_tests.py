"""Is one system better than another, or were its speakers easier? Paired tests over speakers on the same split."""
# Shapes: S speakers.

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ser_lightning.reports.uncertainty import FEWEST_SPEAKERS, RESAMPLES, SCORES, SpeakerCounts, bootstrap_interval
from ser_lightning.runs.gathering import CrossValidation, folds_in_all

SIGNIFICANT = 0.05
MOST_IN_ALL_PAIRS = 5  # with more systems, each is compared with the first alone
# What two systems must share, the most telling first.
SAME_SPLIT = ("corpus", "synthetic", "class_names", "protocol_hash")


@dataclass(frozen=True)
class Contestant:
    """A system in a comparison: its name, and the seeds of its cross-validation, at least one."""

    name: str
    runs: Sequence[CrossValidation]


@dataclass(frozen=True)
class PairedTest:
    """Two systems on the same speakers.

    Attributes:
        first: Name of a system.
        second: Name of the other.
        metric: ``UA`` or ``WA``, each speaker's own.
        speakers: How many.
        difference: Mean over speakers of the second's score less the first's, between -1 and 1.
        low: Where the difference's 95% interval over speakers begins; None without one.
        high: Where it ends; None without one.
        p_value: Of the permutation test, two-sided.
        adjusted: The same, corrected by Holm for all tests of the page.
        least_adjusted: What ``adjusted`` would be if every speaker of every test had gained.
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
        """What may be said: that the systems differ, that nothing shows it, or that so few speakers cannot show it."""
        if self.adjusted < SIGNIFICANT:
            return "differ"
        return "no difference shown" if self.least_adjusted < SIGNIFICANT else "cannot be shown"


@dataclass(frozen=True)
class Refusal:
    """Two systems that must not be paired, and why."""

    first: str
    second: str
    reason: str


def sign_flip_p_value(differences: NDArray[np.float64], resamples: int = RESAMPLES) -> float:
    """Return the two-sided p-value of the mean of ``differences`` [S] under flips of each sign.

    If two systems are alike, each speaker's difference could as well have had the other sign. All 2^S flips are tried
    where they are at most ``resamples``, else so many random ones.
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
    """Return the least p-value that ``sign_flip_p_value`` can give of so many speakers, whatever they scored."""
    return 2 / min(1 << speakers, resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): each times the hypotheses not yet rejected."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def paired_tests(systems: Sequence[Contestant]) -> tuple[list[PairedTest], list[Refusal]]:
    """Compare systems in UA and WA, speaker by speaker, and correct for all comparisons together.

    Up to five systems are compared each with each, more of them with the first. Only folds that both have finished
    count; with several seeds, a speaker's score is the mean over them.

    Returns:
        The tests, and the pairs that cannot be tested, with the reason.
    """
    everyone = itertools.combinations(systems, 2)
    pairs = list(everyone if len(systems) <= MOST_IN_ALL_PAIRS else ((systems[0], other) for other in systems[1:]))
    tests: list[PairedTest] = []
    refused: list[Refusal] = []
    for first, second in pairs:
        found = _compare(first, second)
        if isinstance(found, str):
            refused.append(Refusal(first.name, second.name, found))
        else:
            tests += found
    corrected = holm([test.p_value for test in tests])
    least = holm([least_p_value(test.speakers) for test in tests])
    adjusted = zip(tests, corrected, least, strict=True)
    return [replace(test, adjusted=p_value, least_adjusted=bound) for test, p_value, bound in adjusted], refused


def _compare(first: Contestant, second: Contestant) -> list[PairedTest] | str:
    """Return the tests of a pair, or why it has none."""
    if {run.folder for run in first.runs} & {run.folder for run in second.runs}:
        return "they share a run"
    one, other = first.runs[0].facts, second.runs[0].facts
    for key in SAME_SPLIT:
        ours, theirs = getattr(one, key), getattr(other, key)
        if ours != theirs:
            what = "the splits differ" if key == "protocol_hash" else f"{key.replace('_', ' ')} differs"
            return f"{what}: {_shown(ours)} and {_shown(theirs)}"
    # Every seed of both, or a speaker's mean would be over other seeds than the next one's.
    folds = folds_in_all([*first.runs, *second.runs])
    if not folds:
        return "no fold is finished in both"
    left, right = (SpeakerCounts.of(system.runs, folds).scores() for system in (first, second))
    if list(left.index) != list(right.index) or list(left["utterances"]) != list(right["utterances"]):
        return "they were tested on different utterances although the splits are the same: audio was skipped in one"
    speakers = len(left)
    least = least_p_value(speakers)
    if least > SIGNIFICANT:
        return f"{speakers} speakers: no p-value below {least:.3g} is possible, whatever they scored"
    tests = []
    for metric in SCORES:
        differences = (right[metric] - left[metric]).to_numpy(dtype=np.float64)
        low, high = _interval(differences)
        p_value = sign_flip_p_value(differences)
        mean = float(differences.mean())
        tests.append(PairedTest(first.name, second.name, metric, speakers, mean, low, high, p_value, p_value, least))
    return tests


def _interval(differences: NDArray[np.float64]) -> tuple[float | None, float | None]:
    if len(differences) < FEWEST_SPEAKERS or np.ptp(differences) < 1e-12:
        return None, None
    low, high = bootstrap_interval(differences, np.mean)
    return (low, high) if np.isfinite(low) and np.isfinite(high) else (None, None)


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
