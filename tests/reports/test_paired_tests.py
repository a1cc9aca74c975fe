"""Paired tests over speakers: against scipy, by hand, and how often they cry wolf."""

import itertools
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
    Contestant,
    holm,
    least_p_value,
    paired_tests,
    sign_flip_p_value,
)
from ser_lightning.reports.uncertainty import RESAMPLES
from ser_lightning.runs.gathering import find_cross_validations

WriteFold = Callable[..., Path]
RIGHT = ((4, 0), (0, 4))
HALF = ((2, 2), (2, 2))
OTHERS: tuple[Others, Others] = ("leave_out", "keep")


def test_the_p_value_counts_the_flips_that_go_as_far() -> None:
    differences = np.array([3.0, 1.0, 2.0, 4.0, -1.0, 2.0, 5.0])
    sums = [
        sum(sign * d for sign, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    by_hand = 2 * sum(total >= differences.sum() for total in sums) / len(sums)
    assert sign_flip_p_value(differences) == pytest.approx(by_hand)


def test_if_every_speaker_gains_the_p_value_is_the_least_there_is() -> None:
    for speakers in (6, 8, 10):
        assert sign_flip_p_value(np.arange(1.0, speakers + 1)) == pytest.approx(2 / 2**speakers)


@pytest.mark.parametrize("speakers", [5, 6, 13, 14, 30])
def test_no_p_value_is_less_than_the_least(speakers: int) -> None:
    assert sign_flip_p_value(np.full(speakers, 0.5)) == pytest.approx(least_p_value(speakers))


def test_of_ten_speakers_no_difference_can_be_shown_in_twenty_six_tests() -> None:
    assert min(holm([least_p_value(10)] * 26)) > 0.05 > min(holm([least_p_value(10)] * 25))


def test_it_is_wilcoxons_signed_rank_test_on_ranks() -> None:
    signs = np.random.default_rng(2).choice([-1, 1], size=11)
    ranks = signs * np.arange(1.0, 12)
    theirs = stats.wilcoxon(ranks, method="exact").pvalue
    assert sign_flip_p_value(ranks) == pytest.approx(theirs)


def test_random_flips_agree_with_students_t_test_on_many_normal_differences() -> None:
    differences = np.random.default_rng(4).normal(0.15, 1, size=200)
    theirs = stats.ttest_1samp(differences, 0).pvalue
    assert sign_flip_p_value(differences) == pytest.approx(theirs, abs=0.01)


def test_no_difference_at_all_is_as_insignificant_as_can_be() -> None:
    assert sign_flip_p_value(np.zeros(9)) == 1


def test_holms_correction_is_that_of_a_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, the last raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def _null(generator: np.random.Generator, speakers: int = 24, utterances: int = 60) -> NDArray[np.float64]:
    """Differences of two systems that are equally good for each speaker, though speakers differ a lot."""
    shares = generator.beta(6, 4, size=speakers)
    one, other = generator.binomial(utterances, shares), generator.binomial(utterances, shares)
    difference: NDArray[np.float64] = (one - other) / utterances
    return difference


def _false_alarms(simulations: int, resamples: int) -> float:
    generator = np.random.default_rng(0)
    return float(np.mean([sign_flip_p_value(_null(generator), resamples) < 0.05 for _ in range(simulations)]))


def test_two_systems_that_are_alike_are_called_different_about_five_times_in_a_hundred() -> None:
    least, most = stats.binom.ppf((0.001, 0.999), 400, 0.05) / 400
    assert least <= _false_alarms(400, 499) <= most


@pytest.mark.slow
def test_two_systems_that_are_alike_are_called_different_five_times_in_a_hundred_of_two_thousand() -> None:
    rate = _false_alarms(2000, RESAMPLES)
    print(f"{100 * rate:.2f}%")
    least, most = stats.binom.ppf((0.001, 0.999), 2000, 0.05) / 2000
    assert least <= rate <= most


def test_among_ten_comparisons_of_systems_alike_a_false_alarm_is_as_rare_after_the_correction() -> None:
    generator = np.random.default_rng(8)
    families = [[sign_flip_p_value(_null(generator), 999) for _ in range(10)] for _ in range(100)]
    uncorrected = np.mean([min(family) < 0.05 for family in families])
    corrected = np.mean([min(holm(family)) < 0.05 for family in families])
    assert uncorrected > 0.25
    assert corrected <= stats.binom.ppf(0.999, 100, 0.05) / 100


def _system(name: str, folder: Path) -> Contestant:
    return Contestant(name, find_cross_validations([folder]))


@pytest.fixture
def write_system(tmp_path: Path, write_fold: WriteFold) -> Callable[..., Contestant]:
    """Write a system of four folds with two speakers each, right in everything or in half."""

    def write(name: str, matrices: Sequence[Sequence[Sequence[int]]], **facts: object) -> Contestant:
        folder = tmp_path / name / "seed-0"
        for fold, matrix in enumerate(matrices):
            said = {"class_names": ("a", "b"), "num_folds": 4, "experiment": name} | facts
            write_fold(folder, fold, matrix, **said)
        return _system(name, folder)

    return write


def test_a_difference_is_the_mean_over_speakers_of_the_second_less_the_first(
    write_system: Callable[..., Contestant],
) -> None:
    tests, refused = paired_tests([write_system("one", [HALF] * 4), write_system("two", [RIGHT] * 4)])
    assert not refused
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
    ],
)
def test_systems_on_other_splits_are_not_paired_and_the_reason_is_given(
    facts: dict[str, object], reason: str, write_system: Callable[..., Contestant]
) -> None:
    tests, (refusal,) = paired_tests([write_system("one", [HALF] * 4), write_system("two", [RIGHT] * 4, **facts)])
    assert not tests
    assert (refusal.first, refusal.second) == ("one", "two")
    assert reason in refusal.reason


def test_systems_that_learned_from_more_are_paired_if_they_hear_and_test_the_same(
    synthetic_iemocap: Path, write_system: Callable[..., Contestant]
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
    tests, refused = paired_tests(systems)
    assert not refused
    assert [test.metric for test in tests] == ["UA", "WA"]


def test_only_folds_that_both_have_finished_count(write_system: Callable[..., Contestant]) -> None:
    tests, _ = paired_tests([write_system("one", [HALF] * 4), write_system("two", [RIGHT] * 3)])
    assert {test.speakers for test in tests} == {6}


def test_speakers_too_few_for_any_p_value_below_five_percent_are_not_tested(
    write_system: Callable[..., Contestant],
) -> None:
    tests, (refusal,) = paired_tests([write_system("one", [HALF] * 2), write_system("two", [RIGHT] * 2)])
    assert not tests
    assert refusal.reason == "4 speakers: no p-value below 0.125 is possible, whatever they scored"


def test_what_so_few_speakers_cannot_show_is_not_called_alike(write_system: Callable[..., Contestant]) -> None:
    one, two, alike = (write_system(name, [m] * 4) for name, m in (("one", HALF), ("two", RIGHT), ("alike", HALF)))
    assert [(test.least_adjusted, test.verdict) for test in paired_tests([one, two])[0]] == [(4 / 2**8, "differ")] * 2
    same = paired_tests([one, alike])[0]
    assert [test.verdict for test in same] == ["no difference shown"] * 2
    fewer = write_system("fewer", [RIGHT] * 3)  # 6 speakers: 2 / 2^6, times two tests
    tests, _ = paired_tests([one, fewer])
    assert [test.p_value for test in tests] == pytest.approx([2 / 2**6] * 2)
    assert [test.least_adjusted for test in tests] == pytest.approx([4 / 2**6] * 2)
    assert [test.verdict for test in tests] == ["cannot be shown"] * 2


def test_a_run_is_not_compared_with_itself(write_system: Callable[..., Contestant]) -> None:
    one = write_system("one", [HALF] * 4)
    _, (refusal,) = paired_tests([one, Contestant("again", one.runs)])
    assert refusal.reason == "they share a run"


def test_of_many_systems_each_is_compared_with_the_first(write_system: Callable[..., Contestant]) -> None:
    systems = [write_system(f"s{n}", [HALF] * 4) for n in range(6)]
    tests, _ = paired_tests(systems)
    assert {(test.first, test.second) for test in tests} == {("s0", f"s{n}") for n in range(1, 6)}
    assert len(paired_tests(systems[:4])[0]) == 2 * 6
