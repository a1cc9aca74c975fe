"""Eq. 2 of Ando et al. 2019 with class weights, against hard and soft targets."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.losses import WeightedCrossEntropy

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1])
HARD = F.one_hot(LABELS, 3).double()
SOFT = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.0, 1.0, 0.0], [0.1, 0.3, 0.6]], dtype=torch.float64)
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_loss_equals_plain_loops(targets: Tensor) -> None:
    total = 0.0
    for row, q in zip(LOGITS.numpy(), targets.numpy(), strict=True):
        log_p = row - np.log(np.exp(row).sum())
        for k in range(3):
            total -= 1 / (3 * PRIOR[k].item()) * q[k] * log_p[k]
    loss = WeightedCrossEntropy("inverse_frequency")(LOGITS, targets, PRIOR)
    assert loss.item() == pytest.approx(total / 4, rel=1e-12)


@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_loss_equals_torchs_with_the_same_weights(targets: Tensor) -> None:
    expected = F.cross_entropy(LOGITS, targets, weight=1 / (3 * PRIOR))
    torch.testing.assert_close(WeightedCrossEntropy("inverse_frequency")(LOGITS, targets, PRIOR), expected)


def test_unweighted_or_balanced_it_is_cross_entropy() -> None:
    expected = F.cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(WeightedCrossEntropy()(LOGITS, HARD, PRIOR), expected)
    flat = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(WeightedCrossEntropy("inverse_frequency")(LOGITS, HARD, flat), expected)


def test_every_class_has_equal_total_weight() -> None:
    targets = F.one_hot(torch.tensor([0] * 6 + [1] * 3 + [2]), 3).double()
    logits = torch.zeros(10, 3, dtype=torch.float64, requires_grad=True)
    WeightedCrossEntropy("inverse_frequency")(logits, targets, targets.mean(0)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(3, dtype=torch.float64))


def test_a_class_that_training_lacks_weighs_nothing() -> None:
    prior = torch.tensor([0.6, 0.4, 0.0])
    logits = LOGITS.float().requires_grad_()
    loss = WeightedCrossEntropy("inverse_frequency")(logits, HARD.float(), prior)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1].any()  # the only utterance of that class
