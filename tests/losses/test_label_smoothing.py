"""Eq. 2 of Huang et al. 2020."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ser_lightning.losses import LabelSmoothing

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1])
TARGETS = F.one_hot(LABELS, 3).double()
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("prior", ["uniform", "unigram"])
def test_smoothed_loss_equals_equation_2_in_plain_loops(prior: str) -> None:
    alpha, u = 0.2, PRIOR.numpy() if prior == "unigram" else np.full(3, 1 / 3)
    total = 0.0
    for row, y in zip(LOGITS.numpy(), LABELS.tolist(), strict=True):
        log_p = row - np.log(np.exp(row).sum())
        for k in range(3):
            q = (1 - alpha) * (k == y) + alpha * u[k]
            total -= q * log_p[k]
    loss = LabelSmoothing(alpha, prior)(LOGITS, TARGETS, PRIOR)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(total / 4, rel=1e-12)


def test_uniform_smoothing_equals_torchs_own() -> None:
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.3)
    torch.testing.assert_close(LabelSmoothing(0.3, "uniform")(LOGITS, TARGETS, PRIOR), expected)


def test_no_smoothing_is_cross_entropy_whatever_the_prior() -> None:
    for prior in ("uniform", "unigram"):
        loss = LabelSmoothing(0.0, prior)(LOGITS, TARGETS, PRIOR)  # type: ignore[arg-type]
        torch.testing.assert_close(loss, F.cross_entropy(LOGITS, LABELS))


def test_unigram_smoothing_with_uniform_prior_is_uniform() -> None:
    flat = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(
        LabelSmoothing(0.4, "unigram")(LOGITS, TARGETS, flat), LabelSmoothing(0.4, "uniform")(LOGITS, TARGETS, PRIOR)
    )


def test_full_unigram_smoothing_is_least_at_the_prior() -> None:
    at_prior = PRIOR.log().expand(4, 3)
    criterion = LabelSmoothing(1.0, "unigram")
    best = criterion(at_prior, TARGETS, PRIOR)
    for _ in range(20):
        assert criterion(at_prior + 0.1 * torch.randn(4, 3), TARGETS, PRIOR) >= best


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_an_impossible_weight_is_rejected_with_its_value(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha is {alpha}"):
        LabelSmoothing(alpha)
