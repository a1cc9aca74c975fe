"""Confidence intervals of pooled scores, by a bootstrap over speakers.

Speakers are drawn with replacement, each with all utterances (BCa, Efron & Tibshirani 1993, chapter 14). An interval
covers the variation between speakers, not between trainings: that needs several seeds.

Intervals over few speakers are too narrow. Coverage of the mean of standard normal values in 3000 simulations (numpy's
``default_rng(2)``, 9999 resamples; standard error below 0.7 points): 83.2% for 5 values, 86.9% for 6, 90.3% for 10,
91.6% for 15, 93.2% for 20.
"""
# Shapes: R seeds, S speakers, C classes, B resamples.

import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from ser_lightning.metrics import recalls, unweighted_accuracy, weighted_accuracy
from ser_lightning.runs.gathering import CrossValidation, folds_in_all

LEVEL = 0.95
RESAMPLES = 9999
MIN_SPEAKERS = 5  # fewer have too few distinct resamples: four have 35
FEW_SPEAKERS = 20  # below, intervals are noticeably too narrow

Statistic = Callable[[Tensor], Tensor]  # confusion matrices [..., C, C] to scores [...]


@dataclass(frozen=True)
class Estimate:
    """A score with its confidence interval over speakers.

    Attributes:
        value: The score.
        low: Lower end of the interval, or None.
        high: Upper end of the interval, or None.
        speakers: Number of speakers.
        reason: Why there is no interval; empty if there is one.
    """

    value: float
    low: float | None
    high: float | None
    speakers: int
    reason: str = ""

    def in_words(self, scale: float = 100.0, decimals: int = 1, unit: str = "") -> str:
        """Return, for example, "55.3 [50.1, 60.2] (24 speakers)", or the reason instead of the interval."""
        value = f"{scale * self.value:.{decimals}f}{unit}"
        if self.low is None or self.high is None:
            return f"{value} (no interval: {self.reason})"
        return f"{value} {self.interval(scale, decimals)} ({self.speakers} speakers)"

    def interval(self, scale: float = 100.0, decimals: int = 1) -> str:
        """Return, for example, "[50.1, 60.2]", or a dash."""
        if self.low is None or self.high is None:
            return "-"
        return f"[{scale * self.low:.{decimals}f}, {scale * self.high:.{decimals}f}]"


def estimate(counts: Tensor, statistic: Statistic, resamples: int = RESAMPLES) -> Estimate:
    """Return a pooled score with its 95% interval over speakers.

    Args:
        counts: Confusion matrix of each seed and speaker [R, S, C, C]; the score is the mean over seeds.
        statistic: The score of a confusion matrix.
        resamples: Number of resamples.
    """
    speakers = counts.shape[1]
    matrices = counts.double()

    def score(indices: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        """Return the score of each draw of speakers [..., S]."""
        draws = torch.from_numpy(np.moveaxis(indices, axis, -1).copy())  # scipy's arrays are read-only
        flat = draws.reshape(-1, draws.shape[-1])
        times = torch.zeros(len(flat), speakers, dtype=torch.float64)
        times.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))
        pooled = torch.einsum("bs,rsij->brij", times, matrices)
        found: NDArray[np.float64] = statistic(pooled).nanmean(dim=1).reshape(draws.shape[:-1]).numpy()
        return found

    everyone = np.arange(speakers)
    value = float(score(everyone))
    if speakers < MIN_SPEAKERS:
        return Estimate(value, None, None, speakers, few_speakers(speakers))
    tested = matrices.sum(dim=(2, 3))
    if (tested != tested[0]).any():  # a draw without one seed's speakers would score only the other seeds
        return Estimate(value, None, None, speakers, "the seeds were not tested on the same utterances")
    if not np.isfinite(value):
        return Estimate(value, None, None, speakers, "it is not a finite number")
    without_one = score(np.stack([np.delete(everyone, index) for index in everyone]))
    if not np.isfinite(without_one).all():
        return Estimate(value, None, None, speakers, f"without one of {speakers} speakers it is not a finite number")
    if without_one.max() - without_one.min() < 1e-12:
        return Estimate(value, None, None, speakers, f"leaving out any of {speakers} speakers changes nothing")
    low, high = bootstrap_interval(everyone, score, resamples)
    if not (np.isfinite(low) and np.isfinite(high)):
        return Estimate(value, None, None, speakers, f"the resamples of {speakers} speakers have no spread")
    return Estimate(value, low, high, speakers)


def estimate_recall(counts: Tensor, index: int, resamples: int = RESAMPLES) -> Estimate:
    """Return the recall of class ``index`` with its interval, over the speakers with an utterance of it.

    Args:
        counts: Confusion matrix of each seed and speaker [R, S, C, C].
        index: The class.
        resamples: Number of resamples.
    """
    have = counts[:, :, index].sum(dim=(0, 2)) > 0
    if not have.any():
        return Estimate(float("nan"), None, None, 0, "no utterance")
    return estimate(counts[:, have], lambda matrices: recalls(matrices)[..., index], resamples)


def estimate_recall_change(
    baseline: Tensor, counts: Tensor, index: int, relative: bool, resamples: int = RESAMPLES
) -> Estimate:
    """Return the change of a class's recall from a baseline, with its interval over the speakers with the class.

    The interval is paired: a drawn speaker counts in both systems. With several seeds, recalls are means over seeds.

    Args:
        baseline: Confusion matrix of each of the baseline's seeds and speakers [R, S, C, C].
        counts: The same of the other system on the same utterances; R may differ.
        index: The class.
        relative: Whether the change is relative to the baseline's recall; otherwise it is a difference.
        resamples: Number of resamples.
    """
    rows = [found[:, :, index].sum(0) for found in (baseline, counts)]  # [S, C]
    both = torch.stack([torch.stack([row[:, index], row.sum(1)], 1) for row in rows], 1)  # recognised and total
    have = both[:, 0, 1] > 0
    if not have.any():
        return Estimate(float("nan"), None, None, 0, "no utterance")

    def change(pooled: Tensor) -> Tensor:
        before, after = (pooled[..., system, 0] / pooled[..., system, 1] for system in (0, 1))
        return after / before - 1 if relative else after - before

    return estimate(both[None, have], change, resamples)


def bootstrap_interval(
    data: NDArray[np.int64] | NDArray[np.float64],
    statistic: Callable[..., NDArray[np.float64]],
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return scipy's 95% BCa interval of ``statistic(data, axis)``, with a fixed seed; NaN for degenerate data."""
    # A relative change is infinite in a draw of speakers with recall zero; callers say why an end is not finite.
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (data,),
            statistic,
            n_resamples=resamples,
            confidence_level=LEVEL,
            method="BCa",
            vectorized=True,
            rng=np.random.default_rng(0),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def too_narrow(numbers: Iterable[int]) -> str:
    """Return a warning if any of these numbers of speakers is small, else an empty string."""
    few = sorted({int(number) for number in numbers if number < FEW_SPEAKERS})
    if not few:
        return ""
    small = f"{few[0]}" if len(few) == 1 else f"{few[0]} to {few[-1]}"
    return (
        f"Intervals over few speakers ({small}) are too narrow: the coverage is 83% with 5 speakers, 87% with 6 and "
        "90% with 10, instead of 95%."
    )


def at_chance(found: Estimate, chance: float) -> bool:
    """Whether a score is not above that of guessing: its interval includes it, or without one, the score itself."""
    return (found.value if found.low is None else found.low) <= chance


def few_speakers(number: int) -> str:
    """Return the reason why too few speakers have no interval."""
    return f"{number} {'speaker' if number == 1 else 'speakers'}, at least {MIN_SPEAKERS} are needed"


SCORES = {"UA": unweighted_accuracy, "WA": weighted_accuracy}


@dataclass(frozen=True)
class SpeakerCounts:
    """Confusion matrices of speakers.

    Attributes:
        speakers: The test speakers, sorted.
        counts: Confusion matrix of each seed and speaker [R, S, C, C], over all folds that test the speaker.
    """

    speakers: tuple[str, ...]
    counts: Tensor

    @classmethod
    def of(
        cls,
        runs: Sequence[CrossValidation],
        folds: Collection[int] | None = None,
        group: tuple[str, str] | None = None,
    ) -> "SpeakerCounts":
        """Count the decisions of one experiment's seeds.

        Args:
            runs: The seeds.
            folds: Folds to count; None: those that all seeds have finished, or if there are none, all finished folds
                of each seed.
            group: Column of predictions and its value, to count only those utterances.
        """
        counted = folds_in_all(runs) if folds is None else folds
        tables = [
            pd.concat([run.predictions.table for run in seed.folds if not counted or run.facts.fold in counted])
            for seed in runs
        ]
        if group is not None:
            tables = [table[table[group[0]] == group[1]] for table in tables]
        speakers = tuple(sorted({speaker for table in tables for speaker in table["speaker"]}))
        class_names = runs[0].facts.class_names
        counts = torch.zeros(len(runs), len(speakers), len(class_names), len(class_names), dtype=torch.long)
        for seed, table in zip(counts, tables, strict=True):
            places = (
                torch.from_numpy(pd.Categorical(column, categories=list(names)).codes.astype("int64"))
                for column, names in (
                    (table["speaker"], speakers),
                    (table["target"], class_names),
                    (table["predicted"], class_names),
                )
            )
            seed.index_put_(tuple(places), torch.ones(len(table), dtype=torch.long), accumulate=True)
        return cls(speakers, counts)

    @property
    def utterances(self) -> Tensor:
        """Utterances of each speaker [S], the most over seeds."""
        return self.counts.sum(dim=(-2, -1)).amax(dim=0)

    def scores(self) -> pd.DataFrame:
        """Return ``UA`` (over the classes in the speaker's utterances), ``WA`` and ``utterances`` by speaker.

        Scores are means over seeds.
        """
        columns = {name: score(self.counts).nanmean(dim=0).numpy() for name, score in SCORES.items()}
        columns["utterances"] = self.utterances.numpy()
        return pd.DataFrame(columns, index=pd.Index(self.speakers, name="speaker"))
