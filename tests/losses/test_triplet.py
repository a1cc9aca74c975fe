"""Semi-hard triplets, against plain loops and against pytorch-metric-learning."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from torch import Tensor

from ser_lightning.losses import TripletLoss
from ser_lightning.losses.metric_loss import distances_between
from ser_lightning.losses.triplet import semi_hard_counts

NAMES = ("angry", "happy", "neutral", "sad")


def random_batch(size: int, seed: int, dimension: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, dimension, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(len(NAMES), (size,), generator=generator)


def semi_hard_triplets(distances: NDArray[np.float64], labels: list[int], margin: float) -> list[tuple[int, int, int]]:
    size = range(len(labels))
    return [
        (a, p, n)
        for a, p, n in product(size, size, size)
        if a != p
        and labels[a] == labels[p] != labels[n]
        and distances[a, p] < distances[a, n] < distances[a, p] + margin
    ]


def counts_of(triplets: list[tuple[int, int, int]], size: int) -> tuple[Tensor, Tensor]:
    pulls, pushes = torch.zeros(size, size, dtype=torch.int64), torch.zeros(size, size, dtype=torch.int64)
    for a, p, n in triplets:
        pulls[a, p] += 1
        pushes[a, n] += 1
    return pulls, pushes


def our_counts(distances: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    same = labels.unsqueeze(1) == labels
    return semi_hard_counts(distances, same.clone().fill_diagonal_(False), ~same, margin)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("margin", [0.05, 0.3, 3.0])
def test_triplets_and_loss_equal_plain_loops(margin: float, seed: int) -> None:
    embeddings, labels = random_batch(17, seed)
    distances = distances_between(embeddings)
    triplets = semi_hard_triplets(distances.numpy(), labels.tolist(), margin)
    assert triplets
    expected = np.mean([distances[a, p] - distances[a, n] + margin for a, p, n in triplets])
    loss, terms = TripletLoss(NAMES, margin)(embeddings, labels)
    assert terms.item() == len(triplets)
    size = range(17)
    every = [(a, p, n) for a, p, n in product(size, size, size) if a != p and labels[a] == labels[p] != labels[n]]
    violated = sum(bool(distances[a, n] < distances[a, p] + margin) for a, p, n in every)
    expected_counts = [len(every), violated, len(triplets)]
    assert TripletLoss(NAMES, margin).violations(embeddings, labels).tolist() == expected_counts
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    for ours, theirs in zip(our_counts(distances, labels, margin), counts_of(triplets, 17), strict=True):
        assert torch.equal(ours, theirs)


def test_ties_are_neither_nearer_nor_farther() -> None:
    # Distances in whole steps, so that every kind of tie occurs, with negatives and at the margin's end.
    generator = torch.Generator().manual_seed(0)
    distances = torch.randint(0, 5, (12, 12), generator=generator).double()
    labels = torch.tensor([0, 1, 2] * 4)
    expected = counts_of(semi_hard_triplets(distances.numpy(), labels.tolist(), 2.0), 12)
    for ours, theirs in zip(our_counts(distances, labels, 2.0), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_loss_and_gradient_equal_pytorch_metric_learning(margin: float, seed: int) -> None:
    embeddings, labels = random_batch(40, seed, dimension=16)
    ours, theirs = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    mined = TripletMarginMiner(margin=margin, type_of_triplets="semihard")(theirs, labels)
    expected = TripletMarginLoss(margin=margin)(theirs, labels, mined)
    loss, terms = TripletLoss(NAMES, margin)(ours, labels)
    assert terms.item() == len(mined[0]) > 0
    triplets = list(zip(*(column.tolist() for column in mined), strict=True))
    for counts, library in zip(
        our_counts(distances_between(embeddings), labels, margin), counts_of(triplets, 40), strict=True
    ):
        assert torch.equal(counts, library)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)


def test_its_gradient_survives_finite_differences() -> None:
    embeddings, labels = random_batch(9, 0)
    torch.autograd.gradcheck(lambda inputs: TripletLoss(NAMES, 0.3)(inputs, labels)[0], embeddings.requires_grad_())


def test_the_order_of_the_batch_does_not_matter() -> None:
    embeddings, labels = random_batch(30, 0)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    loss, terms = TripletLoss(NAMES, 0.2)(embeddings, labels)
    shuffled, shuffled_terms = TripletLoss(NAMES, 0.2)(embeddings[order], labels[order])
    torch.testing.assert_close(shuffled, loss, rtol=1e-12, atol=0)
    assert shuffled_terms == terms


@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        (torch.eye(4), [0, 1, 2, 3]),  # no positive
        (torch.eye(4), [1, 1, 1, 1]),  # no negative
        (torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]]), [0, 0, 1, 1]),  # satisfied
        (torch.ones(4, 2), [0, 0, 1, 1]),  # identical embeddings
        (torch.eye(1), [0]),
    ],
    ids=["no positive", "no negative", "satisfied", "identical", "alone"],
)
def test_without_a_semi_hard_triplet_loss_and_gradient_are_zero(embeddings: Tensor, labels: list[int]) -> None:
    embeddings = embeddings.clone().requires_grad_()
    loss, terms = TripletLoss(NAMES, 0.1)(embeddings, torch.tensor(labels))
    assert loss.item() == 0.0
    assert terms.item() == 0
    loss.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0.0


def test_gradients_are_finite_if_anchor_equals_positive() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.05], [0.0, 1.0]], requires_grad=True)
    loss, terms = TripletLoss(NAMES, 0.1)(embeddings, torch.tensor([0, 0, 1, 2]))
    assert terms.item() == 2
    loss.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad[2].abs().max() > 0


def test_autocast_does_not_change_half_precision_embeddings() -> None:
    embeddings, labels = random_batch(30, 0)
    rounded = embeddings.bfloat16()
    expected = TripletLoss(NAMES, 0.2)(rounded.float(), labels)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = TripletLoss(NAMES, 0.2)(rounded, labels)[0]
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("margin", [0.0, -0.1])
def test_a_margin_that_is_not_positive_is_rejected(margin: float) -> None:
    with pytest.raises(ValueError, match=rf"margin is {margin}"):
        TripletLoss(NAMES, margin)
