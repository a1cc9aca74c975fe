"""Combined attentive pooling (Zhou & Liu 2020, eq. 5), and self-attention, against plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ser_lightning.nn.pooling import AttentiveStatisticsPooling, SelfAttentionPooling, WeightedPooling
from ser_lightning.nn.tensors import frame_mask

LENGTHS = torch.tensor([7, 2, 4])


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_combined_pooling_equals_equation_5_in_plain_loops(frames: Tensor) -> None:
    pooling = AttentiveStatisticsPooling(5).double()
    vector = pooling.attention.score.weight.detach().numpy()[0]
    result = pooling(frames, frame_mask(LENGTHS, 7)).detach()
    for row, length in enumerate(LENGTHS.tolist()):
        real = frames[row, :length].numpy()
        e = [np.exp(h @ vector) for h in real]
        mu, second = np.zeros(5), np.zeros(5)
        for t, h in enumerate(real):
            for d in range(5):
                mu[d] += e[t] / sum(e) * h[d]
                second[d] += e[t] / sum(e) * h[d] * h[d]
        sigma = np.sqrt(np.maximum(second - mu * mu, 0))
        np.testing.assert_allclose(result[row], np.concatenate([mu, sigma]), rtol=1e-9)


def test_the_mean_of_combined_pooling_is_weighted_pooling(frames: Tensor) -> None:
    combined, weighted = AttentiveStatisticsPooling(5).double(), WeightedPooling(5).double()
    weighted.load_state_dict(combined.attention.state_dict())
    mask = frame_mask(LENGTHS, 7)
    torch.testing.assert_close(combined(frames, mask)[:, :5], weighted(frames, mask))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("num_frames", [1, 6])
def test_constant_frames_have_finite_gradients_and_no_deviation(dtype: torch.dtype, num_frames: int) -> None:
    pooling = AttentiveStatisticsPooling(3).to(dtype)
    frames = torch.tensor([1.0, -200.0, 0.1], dtype=dtype).expand(2, num_frames, 3).clone().requires_grad_()
    result = pooling(frames, frame_mask(torch.tensor([num_frames, 1]), num_frames))
    result.sum().backward()
    assert frames.grad is not None
    assert torch.isfinite(frames.grad).all()
    assert pooling.attention.score.weight.grad is not None
    assert torch.isfinite(pooling.attention.score.weight.grad).all()
    assert (result[:, 3:] < 1e-4).all()


@pytest.mark.parametrize("floor", [0.0, -1e-10, 1e-50, math.nan, math.inf])
def test_a_floor_that_gives_nan_gradients_is_rejected(floor: float) -> None:
    with pytest.raises(ValueError, match=f"variance_floor is {floor}"):
        AttentiveStatisticsPooling(3, floor)


def test_the_smallest_normal_number_is_a_floor() -> None:
    assert AttentiveStatisticsPooling(3, torch.finfo(torch.float32).tiny).variance_floor > 0


def test_gradients_of_the_attention_equal_finite_differences(frames: Tensor) -> None:
    pooling, mask = AttentiveStatisticsPooling(5).double(), frame_mask(LENGTHS, 7)

    def pool(frames: Tensor, vector: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(pooling, {"attention.score.weight": vector}, (frames, mask))
        return result

    vector = pooling.attention.score.weight.detach().clone().requires_grad_()
    torch.autograd.gradcheck(pool, (frames.requires_grad_(), vector))


def test_gradients_of_nearly_constant_frames_are_bounded() -> None:
    pooling = AttentiveStatisticsPooling(1)
    torch.nn.init.zeros_(pooling.attention.score.weight)
    for spread in (1e-2, 1e-4, 3e-5, 1e-6):
        frames = (spread * torch.randn(1, 50, 1)).requires_grad_()
        pooling(frames, torch.ones(1, 50, dtype=torch.bool))[0, 1].backward()
        assert frames.grad is not None
        assert frames.grad.abs().sum() <= 1.0, spread


def test_self_attention_equals_its_equations_in_plain_loops(frames: Tensor) -> None:
    pooling = SelfAttentionPooling(5, hidden_dim=4).double()
    hidden, score = pooling.hidden.weight.detach().numpy(), pooling.score.weight.detach().numpy()[0]
    result = pooling(frames, frame_mask(LENGTHS, 7)).detach()
    for row, length in enumerate(LENGTHS.tolist()):
        real = frames[row, :length].numpy()
        e = np.array([np.exp(score @ np.tanh(hidden @ h)) for h in real])
        np.testing.assert_allclose(result[row], sum(a * h for a, h in zip(e / e.sum(), real, strict=True)), rtol=1e-10)


@pytest.mark.parametrize("pooling", [WeightedPooling(5), AttentiveStatisticsPooling(5), SelfAttentionPooling(5)])
def test_attention_sums_to_one_over_real_frames(
    pooling: WeightedPooling | AttentiveStatisticsPooling | SelfAttentionPooling, frames: Tensor
) -> None:
    mask = frame_mask(LENGTHS, 7)
    weights = pooling.double().weights(frames, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert (weights[mask] > 0).all()
    assert not weights[~mask].any()
