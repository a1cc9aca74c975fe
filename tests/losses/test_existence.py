"""Eq. 6 of Ando et al. 2019."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ser_lightning.losses import ExistenceLoss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
EXISTENCE = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.float64)
PRIOR = torch.tensor([0.75, 0.5, 0.1], dtype=torch.float64)


def test_loss_equals_equation_6_in_plain_loops() -> None:
    total = 0.0
    for row, e in zip(LOGITS.numpy(), EXISTENCE.numpy(), strict=True):
        for k in range(3):
            p, share = 1 / (1 + np.exp(-row[k])), PRIOR[k].item()
            total -= e[k] * np.log(p) / (2 * share) + (1 - e[k]) * np.log(1 - p) / (2 * (1 - share))
    assert ExistenceLoss()(LOGITS, EXISTENCE, PRIOR).item() == pytest.approx(total / 4, rel=1e-12)


def test_loss_equals_torchs_weighted_one_summed_over_classes() -> None:
    weights = torch.where(EXISTENCE == 1, 1 / (2 * PRIOR), 1 / (2 * (1 - PRIOR)))
    expected = 3 * F.binary_cross_entropy_with_logits(LOGITS, EXISTENCE, weight=weights)
    torch.testing.assert_close(ExistenceLoss()(LOGITS, EXISTENCE, PRIOR), expected)


def test_presence_and_absence_have_equal_total_weight() -> None:
    existence = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    logits = torch.zeros(4, 2, requires_grad=True)
    ExistenceLoss()(logits, existence, existence.mean(0)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(2))


def test_a_class_never_or_always_present_keeps_losses_finite() -> None:
    logits = LOGITS.float().requires_grad_()
    existence = EXISTENCE.float()
    loss = ExistenceLoss()(logits, existence, torch.tensor([0.5, 0.0, 1.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[:, 1][existence[:, 1] == 1].any()
    assert logits.grad[:, 1][existence[:, 1] == 0].all()
    assert not logits.grad[:, 2][existence[:, 2] == 0].any()


def test_gradients_stay_finite_where_probabilities_reach_0_and_1() -> None:
    logits = torch.tensor([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
    ExistenceLoss()(logits, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.full((4,), 0.5)).backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.0, -1.0, 1.0, 0.0])
