"""Reliability: bins as the expected calibration error has them."""

import pytest
import torch
from torch import Tensor

from ser_lightning.metrics import calibration_error
from ser_lightning.reports.figures import png
from ser_lightning.reports.reliability import expected_calibration_error, reliability_figure, reliability_table


def _case(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(300, 4, generator=generator).pow(3).double()
    return probabilities / probabilities.sum(1, keepdim=True), torch.randint(4, (300,), generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_the_bins_add_up_to_the_expected_calibration_error(seed: int) -> None:
    table = reliability_table(*_case(seed))
    assert table["utterances"].sum() == 300
    assert expected_calibration_error(table) == pytest.approx(calibration_error(*_case(seed)).item())


def test_a_bin_holds_the_means_of_its_utterances() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [1.0, 0.0]])
    table = reliability_table(probabilities, torch.tensor([0, 1, 1, 0]))
    present = table[table["utterances"] > 0]
    assert list(present["utterances"]) == [1, 2, 1]
    assert list(present["confidence"]) == pytest.approx([0.6, 0.91, 1.0])
    assert list(present["accuracy"]) == pytest.approx([1, 0.5, 1])
    assert list(present["to"]) == pytest.approx([10 / 15, 14 / 15, 1.0])


def test_the_picture_says_the_error() -> None:
    table = reliability_table(*_case(0))
    figure = reliability_figure(table, "system $x")
    assert f"{100 * expected_calibration_error(table):.1f}%" in figure.get_suptitle()
    assert png(figure).startswith(b"\x89PNG")
