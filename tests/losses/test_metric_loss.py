"""Distances between the directions of embeddings, and properties of every metric loss."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from ser_lightning.losses import EmotionConstraint, MetricLoss, TripletLoss
from ser_lightning.losses.metric_loss import distances_between

NAMES = ("sad", "angry", "happy", "neutral")
POLARITIES = {"negative": ["sad", "angry"], "positive": ["happy"], "centre": ["neutral"]}
LOSSES = pytest.mark.parametrize(
    "loss",
    [TripletLoss(NAMES, 0.1), EmotionConstraint(NAMES, 0.1, 0.15, POLARITIES, 0.1)],
    ids=["triplet", "constraint"],
)
EMBEDDINGS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def test_distances_equal_those_of_a_plain_loop_over_unit_vectors() -> None:
    unit = EMBEDDINGS.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = np.array([[np.linalg.norm(a - b) for b in unit] for a in unit])
    np.testing.assert_allclose(distances_between(EMBEDDINGS), expected, rtol=1e-12, atol=1e-12)


def test_the_length_of_an_embedding_does_not_matter() -> None:
    scaled = EMBEDDINGS * torch.tensor([1e-4, 1.0, 1e4, 3.0, 0.1, 7.0, 2.0]).unsqueeze(1)
    torch.testing.assert_close(distances_between(scaled), distances_between(EMBEDDINGS), rtol=1e-5, atol=1e-6)


def test_close_embeddings_keep_their_digits() -> None:
    turn = 1e-5
    embeddings = torch.tensor([[1.0, 0.0], [np.cos(turn), np.sin(turn)]], dtype=torch.float64)
    distance = distances_between(embeddings)[0, 1].item()
    assert distance == pytest.approx(2 * np.sin(turn / 2), rel=1e-5)


def test_identical_directions_are_at_zero_and_their_gradient_too() -> None:
    embeddings = (torch.randn(1, 64) * torch.tensor([[1.0], [1.0], [2.0]])).requires_grad_()
    distances = distances_between(embeddings)
    assert distances.abs().max() == 0.0
    distances.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0.0


def test_gradients_survive_finite_differences() -> None:
    torch.autograd.gradcheck(distances_between, EMBEDDINGS.double().requires_grad_())


def test_nan_is_kept() -> None:
    embeddings = EMBEDDINGS.clone()
    embeddings[2, 1] = torch.nan
    assert distances_between(embeddings)[2].isnan().all()


@LOSSES
def test_losses_have_no_syncs_or_data_dependent_shapes(loss: MetricLoss) -> None:
    # Meta tensors: any synchronisation fails.
    with FakeTensorMode(allow_non_fake_inputs=True):
        embeddings, labels = torch.empty(16, 8, requires_grad=True), torch.empty(16, dtype=torch.int64)
        value, terms = loss(embeddings, labels)
        value.backward()
    assert value.shape == terms.shape == ()
    assert embeddings.grad is not None


@pytest.mark.gpu
@LOSSES
def test_a_gpu_agrees_and_is_not_waited_for(loss: MetricLoss) -> None:
    embeddings = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % len(NAMES)
    expected, expected_terms = loss(embeddings, labels)
    on_gpu, inputs, classes = loss.cuda(), embeddings.cuda().requires_grad_(), labels.cuda()
    try:
        torch.cuda.set_sync_debug_mode("error")
        value, terms = on_gpu(inputs, classes)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        loss.cpu()
    torch.testing.assert_close(value.detach().cpu(), expected)
    assert terms.item() == expected_terms.item()
