"""Soft scores: of a fold, in its file, averaged over folds, and in words."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.report import write_report
from ser_lightning.reports.systems import find_systems
from ser_lightning.reports.terminal import summary_table
from ser_lightning.runs.gathering import CrossValidation, finished_folds, gather
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.scores import SOFT_SCORES, fold_scores, mean_soft_scores, soft_scores_in_words, write_scores
from ser_lightning.runs.summary import summarize, write_summary

pytestmark = pytest.mark.usefixtures("small_pictures")


def averaged(*folders: Path) -> list[CrossValidation]:
    runs, left_out = gather([fold for folder in folders for fold in finished_folds(folder)])
    assert not left_out
    return runs


def score_all(seed_folder: Path) -> list[dict[str, float]]:
    """Write the scores of each fold, whose evaluators all voted for the class decided on."""
    found = []
    for folder in sorted(seed_folder.glob("fold-*")):
        predictions = Predictions.read(folder / "predictions.csv")
        decided = torch.tensor([predictions.class_names.index(name) for name in predictions.table["predicted"]])
        found.append(fold_scores(predictions, torch.eye(len(predictions.class_names))[decided]))
        write_scores(folder, found[-1])
    return found


def test_fold_scores_match_values_by_hand(seed_folder: Path) -> None:
    first = score_all(seed_folder)[0]  # 6 of 8 are right, all with a confidence of 0.7
    assert first["WA"] == pytest.approx(6 / 8)
    assert first["UA"] == pytest.approx((1 + 1 / 2 + 1 + 1 / 2) / 4)
    assert first["ECE"] == pytest.approx(0.05, abs=1e-6)
    assert first["vote_cross_entropy"] == pytest.approx(-np.log(0.7))
    assert first["vote_KL"] == pytest.approx(-np.log(0.7))
    assert json.loads((seed_folder / "fold-00" / "scores.json").read_text()) == first


def test_without_votes_there_are_no_scores_on_votes(seed_folder: Path) -> None:
    predictions = Predictions.read(seed_folder / "fold-00" / "predictions.csv")
    assert set(fold_scores(predictions, torch.zeros(8, 4))) == {"UA", "WA", "macro_F1", "ECE"}


def test_summary_table_and_report_show_the_mean_over_folds(seed_folder: Path) -> None:
    found = score_all(seed_folder)
    means = {name: np.mean([fold[name] for fold in found]) for name in SOFT_SCORES}
    summary = json.loads(write_summary(seed_folder, summarize(averaged(seed_folder))).read_text())
    assert summary["seeds"][0]["soft_scores"] == pytest.approx(means)
    words = f"expected calibration error {100 * means['ECE']:.1f}%"
    assert words in str(summary_table(summarize(averaged(seed_folder))).caption)
    assert words in write_report(find_systems([seed_folder])[0], seed_folder).read_text()


def test_there_is_no_mean_over_some_of_the_folds(seed_folder: Path) -> None:
    score_all(seed_folder)
    (seed_folder / "fold-01" / "scores.json").unlink()
    assert mean_soft_scores(sorted(seed_folder.glob("fold-*"))) == {}
    assert summarize(averaged(seed_folder)).seeds[0].soft_scores == {}
    page = write_report(find_systems([seed_folder])[0], seed_folder)
    assert "Probabilities, mean over folds" not in page.read_text()


@pytest.mark.parametrize("content", ["", "[0.3]", '{"ECE": "low"}', '{"ECE": null}'])
def test_a_malformed_scores_file_is_named(content: str, seed_folder: Path) -> None:
    (seed_folder / "fold-02" / "scores.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"fold-02/scores\.json"):
        mean_soft_scores([seed_folder / "fold-02"])


def test_each_of_several_seeds_has_its_line(seed_folder: Path, write_fold: Callable[..., Path]) -> None:
    other = seed_folder.with_name("seed-1")
    write_fold(other, 0, ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 2)))
    score_all(seed_folder)
    score_all(other)
    caption = str(summary_table(summarize(averaged(seed_folder, other))).caption)
    assert "seed 0, probabilities, mean over folds: expected calibration error" in caption
    assert "seed 1, probabilities, mean over folds: expected calibration error 30.0%" in caption


def test_no_scores_give_an_empty_line() -> None:
    assert soft_scores_in_words({}) == ""


def test_without_votes_the_line_names_labels() -> None:
    labels = soft_scores_in_words({"ECE": 0.1, "vote_cross_entropy": 1.25, "vote_KL": 1.25 + 1e-9})
    assert labels.endswith("calibration error 10.0%, cross entropy under the labels 1.250 nats")
    votes = soft_scores_in_words({"ECE": 0.1, "vote_cross_entropy": 1.25, "vote_KL": 0.5})
    assert votes.endswith("under the evaluators' votes 1.250 nats, KL divergence from the evaluators' votes 0.500 nats")
