"""Eq. 2 of Zhou & Liu 2020."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ser_lightning.losses import AMSoftmax

COSINES = torch.tensor([[0.9, -0.2, 0.1], [0.3, 0.2, -0.4], [-0.5, 0.6, 0.99]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1])
TARGETS = F.one_hot(LABELS, 3).double()
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
def test_without_margin_it_is_cross_entropy_of_scaled_cosines(scale: float) -> None:
    torch.testing.assert_close(AMSoftmax(scale, 0.0)(COSINES, TARGETS, PRIOR), F.cross_entropy(scale * COSINES, LABELS))


@pytest.mark.parametrize(("scale", "margin"), [(10.0, 0.1), (30.0, 0.4)])
def test_loss_and_gradient_equal_equation_2_in_plain_loops(scale: float, margin: float) -> None:
    cosines = COSINES.clone().requires_grad_()
    loss = AMSoftmax(scale, margin)(cosines, TARGETS, PRIOR)
    loss.backward()
    total, gradient = 0.0, np.zeros((3, 3))
    for row, (cos, y) in enumerate(zip(COSINES.numpy(), LABELS.tolist(), strict=True)):
        target = np.exp(scale * (cos[y] - margin))
        others = [np.exp(scale * cos[j]) for j in range(3) if j != y]
        denominator = target + sum(others)
        total -= np.log(target / denominator)
        for j in range(3):
            p = (target if j == y else np.exp(scale * cos[j])) / denominator
            gradient[row, j] = scale * (p - (j == y)) / 3
    assert loss.item() == pytest.approx(total / 3, rel=1e-12)
    np.testing.assert_allclose(cosines.grad, gradient, atol=1e-12)


def test_its_gradient_survives_finite_differences() -> None:
    criterion = AMSoftmax(10.0, 0.2)
    torch.autograd.gradcheck(lambda cosines: criterion(cosines, TARGETS, PRIOR), COSINES.clone().requires_grad_())


def test_a_margin_asks_for_more() -> None:
    losses = [AMSoftmax(10.0, margin)(COSINES, TARGETS, PRIOR).item() for margin in (0.0, 0.1, 0.2, 0.4)]
    assert losses == sorted(losses)
    assert len(set(losses)) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", v) for v in (0.0, -1.0, math.nan, math.inf)] + [("margin", v) for v in (-0.1, math.nan, math.inf)],
)
def test_impossible_numbers_are_rejected_with_their_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        AMSoftmax(**{name: value})
