"""GhostVLAD (Mocanu et al. 2021): ghosts absorb frames; without them it is NetVLAD."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ser_lightning.nn.pooling import GhostVLAD, NetVLAD
from ser_lightning.nn.tensors import frame_mask

LENGTHS = torch.tensor([7, 1, 4])


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_without_ghosts_it_equals_NetVLAD_gradients_included(frames: Tensor) -> None:
    plain, ghostly = NetVLAD(5, clusters=3).double(), GhostVLAD(5, clusters=3, ghosts=0).double()
    ghostly.load_state_dict(plain.state_dict())
    direction, results = torch.randn(15, dtype=torch.float64), []
    for pooling in (plain, ghostly):
        pooled = pooling(frames, frame_mask(LENGTHS, 7))
        (pooled @ direction).sum().backward()
        results.append([pooled.detach(), *(p.grad for p in pooling.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_it_equals_plain_loops(frames: Tensor) -> None:
    pooling = GhostVLAD(5, clusters=3, ghosts=2).double()
    ghosts = pooling.ghost_assignment
    assert ghosts is not None
    w = torch.cat([pooling.assignment.weight, ghosts.weight]).detach().numpy()
    b = torch.cat([pooling.assignment.bias, ghosts.bias]).detach().numpy()
    c = pooling.centres.detach().numpy()
    result = pooling(frames, frame_mask(LENGTHS, 7)).detach().numpy()
    for row, length in enumerate(LENGTHS.tolist()):
        vlad = np.zeros((3, 5))
        for x in frames[row, :length].numpy():
            weights = np.exp(w @ x + b)
            for k in range(3):
                for j in range(5):
                    vlad[k, j] += weights[k] / weights.sum() * (x[j] - c[k, j])
        for k in range(3):
            vlad[k] /= np.sqrt((vlad[k] ** 2).sum())
        vlad /= np.sqrt((vlad**2).sum())
        np.testing.assert_allclose(result[row], vlad.flatten(), atol=1e-12)


def swallowing() -> GhostVLAD:
    """A ghost that takes all frames whose last channel is large, and almost nothing of others."""
    torch.manual_seed(2)
    pooling = GhostVLAD(5, clusters=3, ghosts=1).double()
    assert pooling.ghost_assignment is not None
    with torch.no_grad():
        pooling.ghost_assignment.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0, 10.0]]))
        pooling.ghost_assignment.bias.fill_(-50.0)
    return pooling


def test_a_ghost_absorbs_a_noisy_frame(frames: Tensor) -> None:
    pooling, clean = swallowing(), frames[:1]
    noise = torch.tensor([[[3.0, -2.0, 4.0, 1.0, 20.0]]], dtype=torch.float64)
    noisy = torch.cat([clean[:, :4], noise, clean[:, 4:]], 1)
    expected = pooling(clean, torch.ones(1, 7, dtype=torch.bool))
    result = pooling(noisy, torch.ones(1, 8, dtype=torch.bool))
    torch.testing.assert_close(result, expected, atol=1e-8, rtol=0)
    plain = NetVLAD(5, clusters=3).double()
    plain.load_state_dict(pooling.state_dict(), strict=False)
    assert (plain(noisy, torch.ones(1, 8, dtype=torch.bool)) - expected).abs().max() > 0.1


def test_an_utterance_assigned_to_ghosts_has_finite_gradients(frames: Tensor) -> None:
    pooling, noise = swallowing().float(), frames.float()
    noise[:, :, 4] = 1e3
    noise.requires_grad_()
    result = pooling(noise, frame_mask(LENGTHS, 7))
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert noise.grad is not None
    assert torch.isfinite(noise.grad).all()


def test_assignment_is_the_softmax_over_clusters_and_ghosts() -> None:
    pooling = GhostVLAD(1, clusters=2, ghosts=1).double()
    with torch.no_grad():
        pooling.load_state_dict(
            {
                "assignment.weight": torch.tensor([[0.0], [1.0]]),
                "assignment.bias": torch.zeros(2),
                "ghost_assignment.weight": torch.tensor([[0.0]]),
                "ghost_assignment.bias": torch.full((1,), np.log(2.0)),
                "centres": torch.zeros(2, 1),
            }
        )
    frames = torch.tensor([[[0.0], [np.log(5.0)], [7.0]]], dtype=torch.float64)
    by_hand = torch.tensor([[1 / 4, 1 / 4, 2 / 4], [1 / 8, 5 / 8, 2 / 8], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(pooling.assign(frames, frame_mask(torch.tensor([2]), 3))[0], by_hand)
    assert (pooling.clusters, pooling.ghosts) == (2, 1)


def test_a_checkpoint_of_NetVLAD_loads_and_only_ghosts_are_new() -> None:
    pooling, plain = GhostVLAD(5, clusters=3, ghosts=2), NetVLAD(5, clusters=3)
    keys = pooling.load_state_dict(plain.state_dict(), strict=False)
    assert set(keys.missing_keys) == {"ghost_assignment.weight", "ghost_assignment.bias"}
    assert not keys.unexpected_keys
    assert torch.equal(pooling.centres, plain.centres)


def test_autocast_changes_nothing() -> None:
    torch.manual_seed(0)
    pooling, mask = GhostVLAD(6, clusters=3, ghosts=2), frame_mask(LENGTHS, 7)
    with torch.no_grad():
        pooling.centres.add_(4.0)
    close_to_centres = (4 + 0.05 * torch.randn(3, 7, 6)).bfloat16()
    expected = pooling(close_to_centres.float(), mask)
    with torch.autocast("cpu", torch.bfloat16):
        result, assigned = pooling(close_to_centres, mask), pooling.assign(close_to_centres, mask)
    assert torch.equal(result, expected), (result - expected).abs().max()
    assert torch.equal(assigned, pooling.assign(close_to_centres.float(), mask))


def test_without_a_number_there_is_no_ghost() -> None:
    assert GhostVLAD(4, clusters=2).ghost_assignment is None


def test_a_negative_number_of_ghosts_is_rejected_with_the_number() -> None:
    with pytest.raises(ValueError, match="ghosts is -1"):
        GhostVLAD(4, clusters=2, ghosts=-1)
