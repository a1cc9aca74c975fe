"""Intervals over speakers: against scipy, against known distributions, and their coverage."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ser_lightning.metrics import recalls, unweighted_accuracy, weighted_accuracy
from ser_lightning.reports.uncertainty import (
    RESAMPLES,
    Estimate,
    SpeakerCounts,
    bootstrap_interval,
    estimate,
    estimate_recall,
    estimate_recall_change,
    too_narrow,
)
from ser_lightning.runs.gathering import finished_folds, gather


def _right_and_wrong(right: list[int], total: int) -> Tensor:
    """Matrices [1, S, 2, 2] of speakers with ``total`` utterances of the first class, ``right`` recognised."""
    return torch.tensor([[[[n, total - n], [0, 0]] for n in right]])


def test_the_interval_of_all_or_nothing_speakers_is_binomial() -> None:
    counts = _right_and_wrong([10] * 12 + [0] * 12, 10)
    found = estimate(counts, weighted_accuracy)
    assert found.value == 0.5
    # The number correct of 24 draws is binomial; 240 independent utterances would give 0.44 to 0.56.
    assert (found.low, found.high) == pytest.approx(tuple(stats.binom.ppf((0.025, 0.975), 24, 0.5) / 24))
    assert found.speakers == 24


def test_with_one_utterance_each_it_is_scipys_bootstrap() -> None:
    hits = np.random.default_rng(5).random(40) < 0.7
    found = estimate(_right_and_wrong([int(hit) for hit in hits], 1), weighted_accuracy)
    theirs = stats.bootstrap((hits.astype(float),), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval))


def test_with_unequal_speakers_it_is_scipys_bootstrap_of_a_ratio() -> None:
    generator = np.random.default_rng(3)
    total = generator.integers(1, 30, size=15)
    right = generator.binomial(total, 0.6)
    counts = torch.tensor([[[[r, n - r], [0, 0]] for r, n in zip(right, total, strict=True)]])

    def ratio(right: np.ndarray, total: np.ndarray, axis: int) -> np.ndarray:
        return right.sum(axis) / total.sum(axis)

    theirs = stats.bootstrap(
        (right, total), ratio, paired=True, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
    ).confidence_interval
    found = estimate(counts, weighted_accuracy)
    assert found.value == pytest.approx(right.sum() / total.sum())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_the_width_agrees_with_the_central_limit_theorem() -> None:
    shares = np.clip(np.random.default_rng(0).normal(0.6, 0.1, size=400), 0, 1)
    counts = _right_and_wrong([round(1000 * share) for share in shares], 1000)
    found = estimate(counts, weighted_accuracy)
    deviation = shares.std() / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx(
        (shares.mean() - 1.96 * deviation, shares.mean() + 1.96 * deviation), abs=0.1 * deviation
    )


def test_seeds_are_averaged_within_a_draw_of_speakers() -> None:
    one = _right_and_wrong([1, 5, 3, 8, 2, 9, 4], 10)
    twice = estimate(torch.cat([one, one]), unweighted_accuracy)
    assert twice == estimate(one, unweighted_accuracy)
    opposite = estimate(torch.cat([one, 10 - one]) * torch.tensor([[1, 1], [0, 0]]), weighted_accuracy)
    assert opposite.value == pytest.approx(0.5)
    assert opposite.low is None  # the seeds cancel for each speaker


def test_seeds_tested_on_other_speakers_have_no_interval() -> None:
    one = _right_and_wrong([1, 5, 3, 8, 2, 9, 4], 10)
    other = one.clone()
    other[:, 3:] = 0
    found = estimate(torch.cat([one, other]), weighted_accuracy)
    assert found.low is None
    assert found.reason == "the seeds were not tested on the same utterances"


def test_few_speakers_give_a_warning() -> None:
    assert too_narrow([]) == too_narrow([20, 24]) == ""
    assert "(19)" in too_narrow([19])
    assert "(6 to 10)" in too_narrow([24, 10, 6, 8])


@pytest.mark.slow
@pytest.mark.parametrize(("speakers", "covered"), [(5, 0.832), (6, 0.869), (10, 0.903)])
def test_the_coverage_with_few_speakers(speakers: int, covered: float) -> None:
    generator = np.random.default_rng(11)
    held = 0
    for _ in range(1000):
        interval = bootstrap_interval(generator.normal(size=speakers), np.mean, 1999)
        held += interval[0] <= 0 <= interval[1]
    assert held / 1000 == pytest.approx(covered, abs=4 * math.sqrt(0.14 / 1000))


@pytest.mark.parametrize("number", [1, 4])
def test_too_few_speakers_have_no_interval(number: int) -> None:
    found = estimate(_right_and_wrong([3, 7, 5, 9][:number], 10), weighted_accuracy)
    assert found.low is None
    assert found.high is None
    assert found.speakers == number
    assert found.reason == f"{number} speaker{'s' * (number > 1)}, at least 5 are needed"
    assert "no interval" in found.in_words()


def test_five_speakers_have_an_interval() -> None:
    found = estimate(_right_and_wrong([3, 7, 5, 9, 4], 10), weighted_accuracy)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.56 < found.high


def test_an_interval_is_written_in_its_scale_unit_and_decimals() -> None:
    found = Estimate(0.553, 0.501, 0.6024, 24)
    assert found.in_words() == "55.3 [50.1, 60.2] (24 speakers)"
    assert found.in_words(10, 2, "%") == "5.53% [5.01, 6.02] (24 speakers)"
    assert found.interval(1, 3) == "[0.501, 0.602]"


@pytest.mark.parametrize(("low", "high"), [(None, 0.6), (0.4, None), (None, None)])
def test_an_interval_without_an_end_is_not_shown(low: float | None, high: float | None) -> None:
    found = Estimate(0.5, low, high, 9, "few")
    assert found.interval() == "-"
    assert found.in_words() == "50.0 (no interval: few)"


@pytest.mark.parametrize("ends", [(math.nan, 0.6), (0.4, math.nan)])
def test_an_interval_that_is_not_finite_has_a_reason(
    ends: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_lightning.reports.uncertainty.bootstrap_interval", lambda *_: ends)
    found = estimate(_right_and_wrong([3, 7, 5, 9, 4], 10), weighted_accuracy)
    assert found == Estimate(found.value, None, None, 5, "the resamples of 5 speakers have no spread")


def test_speakers_with_equal_scores_have_no_interval() -> None:
    found = estimate(_right_and_wrong([10] * 8, 10), weighted_accuracy)
    assert (found.value, found.low) == (1, None)
    assert found.reason == "leaving out any of 8 speakers changes nothing"


def test_the_number_of_speakers_follows_the_interval() -> None:
    found = estimate(_right_and_wrong([1, 5, 3, 8, 2, 9, 4], 10), weighted_accuracy)
    assert found.in_words().endswith("] (7 speakers)")


def test_recall_counts_speakers_with_the_class() -> None:
    counts = torch.zeros(1, 8, 3, 3, dtype=torch.long)
    counts[0, :, 0, 0] = 4
    counts[0, :6, 1, 1] = torch.tensor([1, 2, 3, 1, 2, 0])
    counts[0, :6, 1, 0] = torch.tensor([3, 2, 1, 3, 2, 4])
    found = estimate_recall(counts, 1)
    assert found.speakers == 6
    assert found.value == pytest.approx(recalls(counts.sum(dim=(0, 1)))[1].item())
    assert found.low is not None
    counts[0, 6, 1, 1] = 1  # one utterance is enough
    assert estimate_recall(counts, 1).speakers == 7
    absent = estimate_recall(counts, 2)
    assert math.isnan(absent.value)
    assert (absent.low, absent.high, absent.speakers, absent.reason) == (None, None, 0, "no utterance")


@pytest.mark.parametrize("resamples", [499])
def test_the_coverage_is_about_95_percent(
    resamples: int,
) -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        shares = generator.beta(6, 4, size=24)  # accuracy of each speaker: 0.6 on average
        found = estimate(_right_and_wrong(list(generator.binomial(60, shares)), 60), weighted_accuracy, resamples)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.6 <= found.high
    # With 24 speakers the bootstrap covers slightly less than 95%; over independent utterances it would be 60%.
    assert 0.88 <= covered / 200 <= 0.99


def test_counts_are_the_confusion_matrices_of_finished_folds(tmp_path: Path, write_fold: Callable[..., Path]) -> None:
    # Neither class nor column is in alphabetical order; fold 1 never says "a".
    matrices = {0: ((3, 1), (2, 2)), 1: ((4, 0), (1, 0))}
    for fold, matrix in matrices.items():
        write_fold(tmp_path / "seed-0", fold, matrix, class_names=("b", "a"))
    runs, _ = gather(finished_folds(tmp_path / "seed-0"))
    every = SpeakerCounts.of(runs)
    assert every.speakers == ("01", "02", "03", "04")
    assert every.counts.shape == (1, 4, 2, 2)
    for fold, matrix in matrices.items():
        assert every.counts[0, 2 * fold : 2 * fold + 2].sum(0).tolist() == [list(row) for row in matrix]
        one = SpeakerCounts.of(runs, [fold])
        assert one.speakers == every.speakers[2 * fold : 2 * fold + 2]
        assert torch.equal(one.counts, every.counts[:, 2 * fold : 2 * fold + 2])


def test_a_speakers_scores_are_means_over_seeds() -> None:
    first, second = [[[2, 0], [0, 4]], [[1, 3], [0, 0]]], [[[1, 1], [0, 4]], [[4, 0], [0, 0]]]
    found = SpeakerCounts(("x", "y"), torch.tensor([first, second])).scores()
    assert list(found.index) == ["x", "y"]
    assert found.index.name == "speaker"
    assert found["UA"].tolist() == pytest.approx([(1 + 0.75) / 2, (0.25 + 1) / 2])
    assert found["WA"].tolist() == pytest.approx([(1 + 5 / 6) / 2, (0.25 + 1) / 2])
    assert found["utterances"].tolist() == [6, 4]


def _first_class(right: list[int], total: int) -> Tensor:
    """Matrices [1, S, 2, 2]: ``right`` of ``total`` utterances of the first class, and one of the second."""
    return torch.tensor([[[[n, total - n], [0, 1]] for n in right]])


def test_a_change_of_recall_is_a_difference_and_a_ratio() -> None:
    before, after = _first_class([2, 4, 4, 4, 6], 10), _first_class([5, 5, 6, 7, 7], 10)
    difference, ratio = (estimate_recall_change(before, after, 0, relative) for relative in (False, True))
    assert difference.value == pytest.approx(0.6 - 0.4)
    assert ratio.value == pytest.approx(0.6 / 0.4 - 1)
    assert difference.speakers == ratio.speakers == 5
    seeds = torch.cat([before, _first_class([4, 6, 6, 6, 8], 10)])  # recalls 0.4 and 0.6
    assert estimate_recall_change(seeds, after, 0, relative=False).value == pytest.approx(0.6 - 0.5)


def test_the_interval_of_a_change_is_paired_over_speakers() -> None:
    right = np.random.default_rng(0).integers(1, 9, size=12)
    gains = np.array([1, 0, 1, 1, 0, 1, 2, 1, 1, 0, 1, 1])
    before, after = _first_class(right.tolist(), 10), _first_class((right + gains).tolist(), 10)

    def relative(old: np.ndarray, new: np.ndarray, axis: int) -> np.ndarray:
        return (new.sum(axis) / 120) / (old.sum(axis) / 120) - 1  # rounded alike: BCa counts draws equal to the value

    def absolute(old: np.ndarray, new: np.ndarray, axis: int) -> np.ndarray:
        return new.sum(axis) / 120 - old.sum(axis) / 120

    for statistic in (relative, absolute):
        theirs = stats.bootstrap(
            (right, right + gains), statistic, paired=True, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
        found = estimate_recall_change(before, after, 0, relative=statistic is relative)
        assert (found.low, found.high) == pytest.approx(tuple(theirs))


def test_a_relative_change_from_nothing_has_a_reason() -> None:
    never, once, after = _first_class([0] * 6, 3), _first_class([1, 0, 0, 0, 0, 0], 3), _first_class([1] * 6, 3)
    for before, value, reason in ((never, math.inf, "not a finite"), (once, 5.0, "without one of 6 speakers")):
        found = estimate_recall_change(before, after, 0, relative=True)
        assert found.value == pytest.approx(value)
        assert found.low is None
        assert reason in found.reason
    few = estimate_recall_change(_first_class([1, 1, 0, 0, 0, 0], 3), after, 0, relative=True)
    assert few.value == pytest.approx(2.0)
    assert few.low is None  # too many draws leave out the first two speakers
    assert "6 speakers" in few.reason


def test_a_change_counts_speakers_with_the_class() -> None:
    before = torch.cat([_first_class([1] * 5, 2), torch.zeros(1, 2, 2, 2, dtype=torch.long)], 1)
    assert estimate_recall_change(before, before, 0, relative=False).speakers == 5
    assert estimate_recall_change(before[:, 5:], before[:, 5:], 0, relative=True).reason == "no utterance"
