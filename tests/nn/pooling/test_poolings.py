"""Poolings against plain loops, and under padding."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from ser_lightning.nn.pooling import (
    AttentiveStatisticsPooling,
    FinalPooling,
    GhostVLAD,
    MaxPooling,
    MeanPooling,
    NetVLAD,
    Pooling,
    SelfAttentionPooling,
    WeightedPooling,
)
from ser_lightning.nn.tensors import frame_mask

POOLINGS: dict[str, Callable[[], Pooling]] = {
    "final": lambda: FinalPooling(5),
    "max": lambda: MaxPooling(5),
    "mean": lambda: MeanPooling(5),
    "weighted": lambda: WeightedPooling(5),
    "attentive statistics": lambda: AttentiveStatisticsPooling(5),
    "self-attention": lambda: SelfAttentionPooling(5, hidden_dim=4),
    "NetVLAD": lambda: NetVLAD(5, clusters=3),
    "GhostVLAD": lambda: GhostVLAD(5, clusters=3, ghosts=2),
}
LENGTHS = torch.tensor([7, 1, 4])


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=POOLINGS)
def pooling(request: pytest.FixtureRequest) -> Pooling:
    torch.manual_seed(1)
    return POOLINGS[request.param]().double()


def test_the_result_has_the_announced_size(pooling: Pooling, frames: Tensor) -> None:
    assert pooling(frames, frame_mask(LENGTHS, 7)).shape == (3, pooling.output_dim)


def test_frames_past_the_end_never_matter(pooling: Pooling, frames: Tensor) -> None:
    mask = frame_mask(LENGTHS, 7)
    noisy = torch.where(mask.unsqueeze(2), frames, 1e3 * torch.randn_like(frames))
    torch.testing.assert_close(pooling(noisy, mask), pooling(frames, mask), atol=1e-12, rtol=0)


def test_batch_mates_and_padding_never_matter(pooling: Pooling, frames: Tensor) -> None:
    together = pooling(frames, frame_mask(LENGTHS, 7))
    for row, length in enumerate(LENGTHS.tolist()):
        alone = pooling(frames[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-12, rtol=0)


def test_gradients_stay_finite_and_spare_padding(pooling: Pooling, frames: Tensor) -> None:
    mask = frame_mask(LENGTHS, 7)
    frames.requires_grad_()
    pooling(frames, mask).square().sum().backward()
    assert frames.grad is not None
    assert torch.isfinite(frames.grad).all()
    assert not frames.grad[~mask].any()


def test_final_max_and_mean_equal_plain_loops(frames: Tensor) -> None:
    mask = frame_mask(LENGTHS, 7)
    for row, length in enumerate(LENGTHS.tolist()):
        real = frames[row, :length].numpy()
        np.testing.assert_allclose(FinalPooling(5)(frames, mask)[row], real[-1])
        np.testing.assert_allclose(MaxPooling(5)(frames, mask)[row], real.max(0))
        np.testing.assert_allclose(MeanPooling(5)(frames, mask)[row], real.sum(0) / length, rtol=1e-12)


def test_weighted_pooling_equals_a_plain_loop(frames: Tensor) -> None:
    pooling = WeightedPooling(5).double()
    vector = pooling.score.weight.detach().numpy()[0]
    result = pooling(frames, frame_mask(LENGTHS, 7)).detach()
    for row, length in enumerate(LENGTHS.tolist()):
        real = frames[row, :length].numpy()
        scores = np.exp(real @ vector)
        np.testing.assert_allclose(result[row], (scores / scores.sum()) @ real, rtol=1e-10)


def test_NetVLAD_equals_equation_1_in_plain_loops(frames: Tensor) -> None:
    pooling = NetVLAD(5, clusters=3).double()
    w, b = pooling.assignment.weight.detach().numpy(), pooling.assignment.bias.detach().numpy()
    c = pooling.centres.detach().numpy()
    result = pooling(frames, frame_mask(LENGTHS, 7)).detach().numpy()
    for row, length in enumerate(LENGTHS.tolist()):
        vlad = np.zeros((3, 5))
        for x in frames[row, :length].numpy():
            weights = np.exp(w @ x + b)
            for k in range(3):
                for j in range(5):
                    vlad[k, j] += weights[k] / weights.sum() * (x[j] - c[k, j])
        for k in range(3):  # intra-normalisation
            vlad[k] /= np.sqrt((vlad[k] ** 2).sum())
        vlad /= np.sqrt((vlad**2).sum())
        np.testing.assert_allclose(result[row], vlad.flatten(), atol=1e-12)


def test_NetVLAD_survives_frames_that_lie_on_their_centre() -> None:
    pooling = NetVLAD(4, clusters=1)
    frames = pooling.centres.detach().expand(2, 3, 4).clone().requires_grad_()
    result = pooling(frames, torch.ones(2, 3, dtype=torch.bool))
    result.sum().backward()
    assert frames.grad is not None
    assert torch.isfinite(result).all()
    assert torch.isfinite(frames.grad).all()


@pytest.mark.parametrize("make", [NetVLAD, partial(GhostVLAD, ghosts=2)], ids=["NetVLAD", "GhostVLAD"])
def test_clusters_follow_the_classes_unless_given(make: Callable[..., NetVLAD]) -> None:
    torch.manual_seed(0)
    following = make(4)
    following.fit_to_classes(3)
    torch.manual_seed(0)
    given = make(4, clusters=3)
    given.fit_to_classes(7)
    assert following.output_dim == given.output_dim == 12
    assert following.state_dict().keys() == given.state_dict().keys()
    for name, value in given.state_dict().items():
        assert torch.equal(following.state_dict()[name], value), name


def test_NetVLADs_first_centres_have_about_unit_length() -> None:
    torch.manual_seed(0)
    lengths = NetVLAD(10_000, clusters=2).centres.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(2), atol=0.05, rtol=0)


def test_NetVLAD_without_clusters_is_rejected_with_the_number() -> None:
    with pytest.raises(ValueError, match="clusters is 0"):
        NetVLAD(4, clusters=0)
