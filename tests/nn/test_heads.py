"""The cosine head."""

import torch
from torch.nn import functional as F

from ser_lightning.nn.heads import CosineHead


def test_it_gives_cosines_for_any_lengths() -> None:
    torch.manual_seed(0)
    head, features = CosineHead(6, 4).double(), torch.randn(3, 6, dtype=torch.float64)
    cosines = head(features)
    torch.testing.assert_close(cosines, F.cosine_similarity(features.unsqueeze(1), head.weight.unsqueeze(0), dim=2))
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[0.1], [2.0], [30.0], [1.0]]))
    torch.testing.assert_close(head(7 * features), cosines)


def test_it_has_no_bias() -> None:
    assert [(name, tuple(p.shape)) for name, p in CosineHead(6, 4).named_parameters()] == [("weight", (4, 6))]


def test_a_feature_of_zeros_has_finite_gradients() -> None:
    features = torch.zeros(2, 6, requires_grad=True)
    cosines = CosineHead(6, 4)(features)
    cosines.sum().backward()
    assert not cosines.any()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
