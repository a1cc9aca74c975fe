"""What every criterion offers: defaults, its head, its probabilities and the dtype of its loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ser_lightning.losses import (
    AMSoftmax,
    Criterion,
    ExistenceLoss,
    FocalLoss,
    LabelSmoothing,
    WeightedCrossEntropy,
)
from ser_lightning.nn.heads import CosineHead

LOGITS = torch.tensor([[0.9, -0.2, 0.1], [0.3, 0.2, -0.4], [-0.5, 0.6, 0.99]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1])
TARGETS = F.one_hot(LABELS, 3).double()
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("kind", [AMSoftmax, FocalLoss, LabelSmoothing, WeightedCrossEntropy])
def test_without_arguments_it_is_cross_entropy(kind: type[Criterion]) -> None:
    torch.testing.assert_close(kind()(LOGITS, TARGETS, PRIOR), F.cross_entropy(LOGITS, LABELS))


def test_label_smoothing_is_uniform_unless_unigram_is_asked_for() -> None:
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.3)
    torch.testing.assert_close(LabelSmoothing(0.3)(LOGITS, TARGETS, PRIOR), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "criterion",
    [
        AMSoftmax(10.0, 0.1),
        ExistenceLoss(),
        LabelSmoothing(0.1, "unigram"),
        LabelSmoothing(0.1, "uniform"),
        WeightedCrossEntropy("inverse_frequency"),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
def test_the_loss_has_the_dtype_of_the_logits(criterion: Criterion, dtype: torch.dtype) -> None:
    assert criterion(LOGITS.to(dtype), TARGETS, PRIOR).dtype == dtype


@pytest.mark.parametrize(("criterion", "kind"), [(AMSoftmax(), CosineHead), (FocalLoss(), nn.Linear)])
def test_a_head_maps_vectors_to_one_logit_for_each_class(criterion: Criterion, kind: type[nn.Module]) -> None:
    head = criterion.head(5, 3)
    assert type(head) is kind
    assert head(torch.ones(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_probabilities_are_in_float32_and_of_the_criterions_kind(dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype)
    existence = logits.float().sigmoid()
    for criterion, expected in (
        (FocalLoss(), logits.float().softmax(1)),
        (AMSoftmax(10.0), (10.0 * logits).float().softmax(1)),
        (ExistenceLoss(), existence / existence.sum(1, keepdim=True)),
    ):
        found = criterion.probabilities(logits)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
