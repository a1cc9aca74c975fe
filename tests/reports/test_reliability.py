"""Reliability: the bins of the expected calibration error, as table and figure."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from ser_lightning.metrics import Calibration, calibration
from ser_lightning.reports.curves import reliability_figure, reliability_table
from ser_lightning.reports.figures import png
from ser_lightning.reports.report import write_report
from ser_lightning.reports.systems import find_systems
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.scores import fold_scores


def _case(seed: int) -> Calibration:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(300, 4, generator=generator).pow(3).double()
    probabilities /= probabilities.sum(1, keepdim=True)
    return calibration(probabilities, torch.randint(4, (300,), generator=generator), probabilities.argmax(1))


def test_a_bin_holds_the_means_of_its_utterances() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [1.0, 0.0]])
    found = calibration(probabilities, torch.tensor([0, 1, 1, 0]), probabilities.argmax(1))
    table = reliability_table(found)
    present = table[table["utterances"] > 0]
    assert list(present["utterances"]) == [1, 2, 1]
    assert list(present["confidence"]) == pytest.approx([0.6, 0.91, 1.0])
    assert list(present["accuracy"]) == pytest.approx([1, 0.5, 1])
    assert list(present["to"]) == pytest.approx([10 / 15, 14 / 15, 1.0])
    assert list(table["from"][1:]) == list(table["to"][:-1])


def test_the_figure_shows_the_calibration_error() -> None:
    figure = reliability_figure(_case(0), "system $x")
    assert f"{100 * _case(0).error.item():.1f}%" in figure.get_suptitle()
    assert png(figure).startswith(b"\x89PNG")


def test_all_scores_are_of_the_decisions(tmp_path: Path) -> None:
    predictions = Predictions.collect(
        utterances=["a", "b", "c", "d"],
        speakers=["01"] * 4,
        fold=0,
        targets=torch.tensor([0, 0, 1, 1]),
        predicted=torch.tensor([0, 0, 0, 0]),
        probabilities=torch.tensor([[0.4, 0.6]] * 4),
        class_names=("x", "y"),
    )
    scored = fold_scores(predictions, torch.zeros(4, 2))
    assert (scored["WA"], scored["ECE"]) == pytest.approx((0.5, 0.1))


def test_the_report_draws_the_decisions(seed_folder: Path, tmp_path: Path) -> None:
    for path in seed_folder.glob("fold-*/predictions.csv"):
        table = pd.read_csv(path, dtype={"speaker": str})
        columns = [name for name in table.columns if name.startswith("probability_")]
        table[columns] = table[columns].iloc[:, ::-1].to_numpy()  # the decision gets the lowest probability
        table.to_csv(path, index=False)
    write_report(find_systems([seed_folder])[0], tmp_path / "report")
    bins = pd.read_csv(tmp_path / "report" / "figures" / "reliability.csv")
    (present,) = bins[bins["utterances"] > 0].to_dict("records")
    assert present["confidence"] == pytest.approx(0.1)
    assert present["accuracy"] == pytest.approx(18 / 22)  # WA
