"""Paired tests over speakers: against scipy, by hand, and their rate of false alarms."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from data_modules.iemocap import IEMOCAP, Others
from ser_lightning.data.corpora import protocol_hash
from ser_lightning.features import LogMelFilterbank
from ser_lightning.reports.paired_tests import (
    ComparedSystem,
    PairedTest,
    holm,
    least_p_value,
    paired_tests,
    sign_flip_p_value,
)
from ser_lightning.reports.uncertainty import RESAMPLES, SpeakerCounts
from ser_lightning.runs.gathering import CrossValidation, finished_folds, gather

WriteFold = Callable[..., Path]
RIGHT = ((4, 0), (0, 4))
HALF = ((2, 2), (2, 2))
OTHERS: tuple[Others, Others] = ("leave_out", "keep")


def averaged(*folders: Path) -> list[CrossValidation]:
    runs, left_out = gather([fold for folder in folders for fold in finished_folds(folder)])
    assert not left_out
    return runs


def test_the_p_value_counts_the_flips_that_go_as_far() -> None:
    differences = np.array([3.0, 1.0, 2.0, 4.0, -1.0, 2.0, 5.0])
    sums = [
        sum(sign * d for sign, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    by_hand = 2 * sum(total >= differences.sum() for total in sums) / len(sums)
    assert sign_flip_p_value(differences) == pytest.approx(by_hand)


def test_if_every_speaker_gains_the_p_value_is_minimal() -> None:
    for speakers in (6, 8, 10):
        assert sign_flip_p_value(np.arange(1.0, speakers + 1)) == pytest.approx(2 / 2**speakers)


@pytest.mark.parametrize("speakers", [5, 6, 13, 14, 30])
def test_no_p_value_is_less_than_the_least(speakers: int) -> None:
    assert sign_flip_p_value(np.full(speakers, 0.5)) == pytest.approx(least_p_value(speakers))


def test_ten_speakers_cannot_show_a_difference_in_26_tests() -> None:
    assert min(holm([least_p_value(10)] * 26)) > 0.05 > min(holm([least_p_value(10)] * 25))


def test_it_is_wilcoxons_signed_rank_test_on_ranks() -> None:
    signs = np.random.default_rng(2).choice([-1, 1], size=11)
    ranks = signs * np.arange(1.0, 12)
    theirs = stats.wilcoxon(ranks, method="exact").pvalue
    assert sign_flip_p_value(ranks) == pytest.approx(theirs)


def test_random_flips_agree_with_the_t_test() -> None:
    differences = np.random.default_rng(4).normal(0.15, 1, size=200)
    theirs = stats.ttest_1samp(differences, 0).pvalue
    assert sign_flip_p_value(differences) == pytest.approx(theirs, abs=0.01)
    assert sign_flip_p_value(differences) == sign_flip_p_value(differences)


def test_zero_differences_have_p_value_1() -> None:
    assert sign_flip_p_value(np.zeros(9)) == 1


def test_holms_correction_matches_values_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, the last raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def _null(generator: np.random.Generator, speakers: int = 24, utterances: int = 60) -> NDArray[np.float64]:
    """Differences of two systems that are equal for each speaker, where speakers differ much."""
    shares = generator.beta(6, 4, size=speakers)
    one, other = generator.binomial(utterances, shares), generator.binomial(utterances, shares)
    difference: NDArray[np.float64] = (one - other) / utterances
    return difference


def _false_alarms(simulations: int, resamples: int) -> float:
    generator = np.random.default_rng(0)
    return float(np.mean([sign_flip_p_value(_null(generator), resamples) < 0.05 for _ in range(simulations)]))


def test_the_false_alarm_rate_is_five_percent() -> None:
    least, most = stats.binom.ppf((0.001, 0.999), 400, 0.05) / 400
    assert least <= _false_alarms(400, 499) <= most


@pytest.mark.slow
def test_the_false_alarm_rate_is_five_percent_of_2000() -> None:
    rate = _false_alarms(2000, RESAMPLES)
    print(f"{100 * rate:.2f}%")
    least, most = stats.binom.ppf((0.001, 0.999), 2000, 0.05) / 2000
    assert least <= rate <= most


@pytest.mark.slow
def test_the_correction_bounds_false_alarms_in_ten_tests() -> None:
    generator = np.random.default_rng(8)
    families = [[sign_flip_p_value(_null(generator), 999) for _ in range(10)] for _ in range(100)]
    uncorrected = np.mean([min(family) < 0.05 for family in families])
    corrected = np.mean([min(holm(family)) < 0.05 for family in families])
    assert uncorrected > 0.25
    assert corrected <= stats.binom.ppf(0.999, 100, 0.05) / 100


def _system(name: str, folder: Path) -> ComparedSystem:
    return ComparedSystem(name, averaged(folder))


@pytest.fixture
def write_system(tmp_path: Path, write_fold: WriteFold) -> Callable[..., ComparedSystem]:
    """Write a system of four folds with two speakers each."""

    def write(name: str, matrices: Sequence[Sequence[Sequence[int]]], **facts: object) -> ComparedSystem:
        folder = tmp_path / name / "seed-0"
        for fold, matrix in enumerate(matrices):
            fields = {"class_names": ("a", "b"), "num_folds": 4, "experiment": name} | facts
            write_fold(folder, fold, matrix, **fields)
        return _system(name, folder)

    return write


def test_a_difference_is_the_mean_over_speakers(
    write_system: Callable[..., ComparedSystem],
) -> None:
    tests, skipped = paired_tests([write_system("one", [HALF] * 4), write_system("two", [RIGHT] * 4)])
    assert not skipped
    assert [(test.first, test.second, test.metric, test.speakers) for test in tests] == [
        ("one", "two", "UA", 8),
        ("one", "two", "WA", 8),
    ]
    assert [test.difference for test in tests] == pytest.approx([0.5, 0.5])
    assert [test.p_value for test in tests] == pytest.approx([2 / 2**8] * 2)
    assert [test.adjusted for test in tests] == pytest.approx([4 / 2**8] * 2)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"protocol_hash": "ba9876543210"}, "the splits differ: 0123456789ab and ba9876543210"),
        ({"corpus": "crema_d"}, "corpus differs: ravdess and crema_d"),
        ({"synthetic": False}, "synthetic differs"),
        ({"class_names": ("a", "c")}, "class names differs: a, b and a, c"),
    ],
)
def test_systems_on_other_splits_are_not_paired(
    facts: dict[str, object], reason: str, write_system: Callable[..., ComparedSystem]
) -> None:
    tests, (pair,) = paired_tests([write_system("one", [HALF] * 4), write_system("two", [RIGHT] * 4, **facts)])
    assert not tests
    assert (pair.first, pair.second) == ("one", "two")
    assert reason in pair.reason


def test_an_interval_of_a_difference_is_scipys_over_speakers(write_system: Callable[..., ComparedSystem]) -> None:
    systems = [write_system("one", [HALF] * 4), write_system("two", [RIGHT, HALF, ((3, 1), (0, 4)), RIGHT])]
    one, other = (SpeakerCounts.of(system.runs).scores() for system in systems)
    for test in paired_tests(systems)[0]:
        differences = (other[test.metric] - one[test.metric]).to_numpy()
        theirs = stats.bootstrap((differences,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0))
        assert (test.low, test.high) == pytest.approx(tuple(theirs.confidence_interval))
        assert test.difference == pytest.approx(differences.mean())


@pytest.mark.parametrize("ends", [(math.nan, 0.6), (0.4, math.nan)])
def test_an_interval_of_a_difference_that_is_not_finite_is_left_out(
    ends: tuple[float, float], write_system: Callable[..., ComparedSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_lightning.reports.paired_tests.bootstrap_interval", lambda *_: ends)
    tests, _ = paired_tests([write_system("one", [HALF] * 4), write_system("two", [RIGHT, HALF, HALF, HALF])])
    assert [(test.low, test.high) for test in tests] == [(None, None)] * 2


def test_systems_with_other_training_data_are_paired(
    synthetic_iemocap: Path, write_system: Callable[..., ComparedSystem]
) -> None:
    modules: list[Any] = [
        IEMOCAP(synthetic_iemocap, LogMelFilterbank(), dialogs="improvised", merge_excited=False, others=others)
        for others in OTHERS
    ]
    dominant, everything = modules
    systems = [
        write_system(name, [matrix] * 4, protocol_hash=protocol_hash(data), split_hash=data.split().hash)
        for name, matrix, data in (("dominant", HALF, dominant), ("all", RIGHT, everything))
    ]
    assert dominant.split().hash != everything.split().hash
    tests, skipped = paired_tests(systems)
    assert not skipped
    assert [test.metric for test in tests] == ["UA", "WA"]


def test_only_folds_that_both_have_finished_count(write_system: Callable[..., ComparedSystem]) -> None:
    tests, _ = paired_tests([write_system("one", [HALF] * 4), write_system("two", [RIGHT] * 3)])
    assert {test.speakers for test in tests} == {6}


def test_systems_without_a_fold_in_common_are_not_paired(tmp_path: Path, write_fold: WriteFold) -> None:
    systems = []
    for name, folds in (("one", (0, 1)), ("two", (2, 3))):
        for fold in folds:
            write_fold(tmp_path / name / "seed-0", fold, HALF, class_names=("a", "b"), num_folds=4, experiment=name)
        systems.append(_system(name, tmp_path / name / "seed-0"))
    tests, (pair,) = paired_tests(systems)
    assert not tests
    assert pair.reason == "no fold is finished in both"


def test_systems_tested_on_other_utterances_are_not_paired(write_system: Callable[..., ComparedSystem]) -> None:
    fewer = [RIGHT, RIGHT, RIGHT, ((3, 0), (0, 3))]
    tests, (pair,) = paired_tests([write_system("one", [HALF] * 4), write_system("two", fewer)])
    assert not tests
    assert pair.reason.startswith("they were tested on different utterances")


def test_too_few_speakers_are_not_tested(
    write_system: Callable[..., ComparedSystem],
) -> None:
    tests, (pair,) = paired_tests([write_system("one", [HALF] * 2), write_system("two", [RIGHT] * 2)])
    assert not tests
    assert pair.reason.startswith("4 speakers: no p-value below 0.125")


def test_the_verdict_depends_on_the_smallest_possible_p(write_system: Callable[..., ComparedSystem]) -> None:
    one, two, alike = (write_system(name, [m] * 4) for name, m in (("one", HALF), ("two", RIGHT), ("alike", HALF)))
    assert [(test.least_adjusted, test.verdict) for test in paired_tests([one, two])[0]] == [(4 / 2**8, "differ")] * 2
    same = paired_tests([one, alike])[0]
    assert [test.verdict for test in same] == ["no difference shown"] * 2
    fewer = write_system("fewer", [RIGHT] * 3)  # 6 speakers: 2 / 2^6, times two tests
    tests, _ = paired_tests([one, fewer])
    assert [test.p_value for test in tests] == pytest.approx([2 / 2**6] * 2)
    assert [test.least_adjusted for test in tests] == pytest.approx([4 / 2**6] * 2)
    assert [test.verdict for test in tests] == ["cannot be shown"] * 2


@pytest.mark.parametrize(
    ("adjusted", "least", "verdict"),
    [
        (0.0499, 0.01, "differ"),
        (0.05, 0.0499, "no difference shown"),
        (0.05, 0.05, "cannot be shown"),
    ],
)
def test_a_p_value_of_five_percent_is_not_significant(adjusted: float, least: float, verdict: str) -> None:
    assert PairedTest("a", "b", "UA", 9, 0.1, None, None, adjusted, adjusted, least).verdict == verdict


def test_a_run_is_not_compared_with_itself(write_system: Callable[..., ComparedSystem]) -> None:
    one = write_system("one", [HALF] * 4)
    _, (pair,) = paired_tests([one, ComparedSystem("again", one.runs)])
    assert pair.reason == "they share a run"


def test_of_many_systems_each_is_compared_with_the_first(write_system: Callable[..., ComparedSystem]) -> None:
    systems = [write_system(f"s{n}", [HALF] * 4) for n in range(6)]
    tests, _ = paired_tests(systems)
    assert {(test.first, test.second) for test in tests} == {("s0", f"s{n}") for n in range(1, 6)}
    assert len(paired_tests(systems[:5])[0]) == 2 * 10
