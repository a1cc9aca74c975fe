"""Eq. 3 of Zhou & Liu 2020."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ser_lightning.losses import FocalLoss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1])
TARGETS = F.one_hot(LABELS, 3).double()
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def test_without_focus_it_is_cross_entropy() -> None:
    torch.testing.assert_close(FocalLoss(0.0, 1.0)(LOGITS, TARGETS, PRIOR), F.cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize(("gamma", "alpha"), [(0.5, 1.0), (2.0, 1.0), (2.0, 4.0), (5.0, 2.0)])
def test_loss_equals_equation_3_in_plain_loops(gamma: float, alpha: float) -> None:
    total = 0.0
    for row, y in zip(LOGITS.numpy(), LABELS.tolist(), strict=True):
        p = np.exp(row[y]) / np.exp(row).sum()
        total -= alpha * (1 - p) ** gamma * np.log(p)
    assert FocalLoss(gamma, alpha)(LOGITS, TARGETS, PRIOR).item() == pytest.approx(total / 4, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_its_gradient_survives_finite_differences(gamma: float) -> None:
    criterion = FocalLoss(gamma, 2.0)
    torch.autograd.gradcheck(lambda logits: criterion(logits, TARGETS, PRIOR), LOGITS.clone().requires_grad_())


def test_well_recognised_utterances_count_less_than_hard_ones() -> None:
    easy, hard = LOGITS[:1], LOGITS[1:2]
    shares = [
        (FocalLoss(gamma)(easy, TARGETS[:1], PRIOR) / FocalLoss(gamma)(hard, TARGETS[1:2], PRIOR)).item()
        for gamma in (0.0, 1.0, 2.0, 5.0)
    ]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_stay_finite_where_probabilities_reach_0_and_1(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, 0.0], [-1e4, 0.0], [0.0, -1e4], [40.0, 0.0], [18.0, 0.0]], dtype=dtype)
    logits.requires_grad_()
    loss = FocalLoss(gamma)(logits, F.one_hot(torch.tensor([0, 0, 1, 0, 0]), 2).to(dtype), torch.tensor([0.5, 0.5]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all(), logits.grad
    assert loss.item() == pytest.approx(2e4 / 5, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", v) for v in (-1.0, math.nan, math.inf)] + [("alpha", v) for v in (0.0, -1.0, math.nan, math.inf)],
)
def test_impossible_numbers_are_rejected_with_their_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        FocalLoss(**{name: value})
