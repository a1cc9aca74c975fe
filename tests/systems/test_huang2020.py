"""Huang et al. 2020: invariance to padding, batch mates and order, and the paper's training."""

import pytest
import torch
from torch import Tensor

from ser_lightning.losses import LabelSmoothing
from ser_lightning.nn.pooling import FinalPooling, MaxPooling, MeanPooling, NetVLAD, WeightedPooling
from ser_lightning.systems import PooledLSTM

POOLINGS = {
    "final": FinalPooling,
    "max": MaxPooling,
    "mean": MeanPooling,
    "weighted": WeightedPooling,
    "NetVLAD": lambda dim: NetVLAD(dim, clusters=3),
}
LENGTHS = torch.tensor([9, 4, 1, 6])


def system(pooling: str, **arguments: float) -> PooledLSTM:
    torch.manual_seed(0)
    return PooledLSTM(6, ["a", "b", "c"], POOLINGS[pooling], LabelSmoothing(), cells=5, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(4, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_padding_batch_mates_and_order_never_change_a_prediction(
    pooling: str, dtype: torch.dtype, tolerance: float, frames: Tensor
) -> None:
    model, frames = system(pooling, dropout=0.5, input_noise=0.1).to(dtype).eval(), frames.to(dtype)
    together = model(frames, LENGTHS)
    reordered = model(frames.flip(0), LENGTHS.flip(0)).flip(0)
    longer = model(torch.cat([frames, torch.full((4, 30, 6), 1e4, dtype=dtype)], 1), LENGTHS)
    torch.testing.assert_close(reordered, together, atol=tolerance, rtol=0)
    torch.testing.assert_close(longer, together, atol=tolerance, rtol=0)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(frames[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=tolerance, rtol=0)


def test_noise_and_dropout_act_in_training_alone(frames: Tensor) -> None:
    model = system("mean", input_noise=0.5).double()
    assert not torch.equal(model(frames, LENGTHS), model(frames, LENGTHS))
    model.eval()
    assert torch.equal(model(frames, LENGTHS), model(frames, LENGTHS))
    model = system("mean", dropout=0.5).double()
    assert not torch.equal(model(frames, LENGTHS), model(frames, LENGTHS))


def test_the_noise_has_the_stated_deviation() -> None:
    model = system("mean", input_noise=0.01)
    seen: list[Tensor] = []
    model.lstm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.zeros(8, 500, 6), torch.full((8,), 500))
    assert seen[0].std().item() == pytest.approx(0.01, rel=0.02)


def test_the_layers_have_the_papers_sizes() -> None:
    model = PooledLSTM(147, list("abcd"), lambda dim: NetVLAD(dim, 4), LabelSmoothing(), cells=64)
    assert model.lstm.hidden_size == 64
    assert model.lstm.num_layers == 1
    assert not model.lstm.bidirectional
    assert model.output.in_features == 4 * 64
    lstm = 4 * 64 * (147 + 64 + 2)
    assert sum(p.numel() for p in model.parameters()) == lstm + (64 * 4 + 4) + 4 * 64 + (256 * 4 + 4)


def test_gradients_reach_every_parameter(frames: Tensor) -> None:
    for pooling in POOLINGS:
        model = system(pooling).double()
        model.criterion(
            model(frames, LENGTHS), torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]], model.class_prior
        ).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, (pooling, name)
