"""Computations that disable autocast to keep precision."""

import pytest
import torch
from torch import Tensor, nn

from ser_lightning.nn.heads import CosineHead
from ser_lightning.nn.pooling import AttentiveStatisticsPooling, NetVLAD, Pooling
from ser_lightning.nn.tensors import frame_mask, recurrent_states, without_autocast

LENGTHS = torch.tensor([30, 12, 20])
# Frames far from zero and close to each other: deviations are near the resolution of half precision.
FRAMES = (4 + 0.05 * torch.randn(3, 30, 6, generator=torch.Generator().manual_seed(0))).bfloat16()


def netvlad() -> NetVLAD:
    pooling = NetVLAD(6, clusters=3)
    with torch.no_grad():
        pooling.centres.add_(4.0)
    return pooling


@pytest.mark.parametrize("make", [netvlad, lambda: AttentiveStatisticsPooling(6)], ids=["NetVLAD", "statistics"])
def test_autocast_changes_nothing_of_a_pooling_of_differences(make: type[Pooling]) -> None:
    torch.manual_seed(0)
    pooling, mask = make(), frame_mask(LENGTHS, 30)
    expected = pooling(FRAMES.float(), mask)
    with torch.autocast("cpu", torch.bfloat16):
        result = pooling(FRAMES, mask)
    assert torch.equal(result, expected), (result - expected).abs().max()


def test_autocast_changes_nothing_of_cosines() -> None:
    torch.manual_seed(0)
    head, features = CosineHead(6, 4), torch.randn(3, 6).bfloat16()
    expected = head(features.float())
    with torch.autocast("cpu", torch.bfloat16):
        result = head(features)
    assert torch.equal(result, expected), (result - expected).abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [netvlad, lambda: AttentiveStatisticsPooling(6)], ids=["NetVLAD", "statistics"])
def test_a_model_of_one_precision_keeps_it(make: type[Pooling], dtype: torch.dtype) -> None:
    result: Tensor = make().to(dtype)(FRAMES.to(dtype), frame_mask(LENGTHS, 30))
    assert result.dtype == dtype
    assert CosineHead(result.shape[1], 4).to(dtype)(result).dtype == dtype


def test_autocast_changes_nothing_of_recurrent_states() -> None:
    torch.manual_seed(0)
    lstm, frames = nn.LSTM(5, 4, batch_first=True), torch.randn(2, 9, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states, of_halves = recurrent_states(lstm, frames), recurrent_states(lstm, frames.bfloat16())
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # other processors' LSTMs stay in float32 by themselves
            assert lstm(frames)[0].dtype == torch.bfloat16, "autocast leaves LSTMs alone by itself"
    assert torch.equal(states, lstm(frames)[0])
    assert of_halves.dtype == torch.float32
    assert recurrent_states(lstm.double(), frames.double()).dtype == torch.float64


def test_autocast_resumes_after_the_context() -> None:
    layer, inputs = nn.Linear(2, 2), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(inputs.device):
            assert layer(inputs).dtype == torch.float32
        assert layer(inputs).dtype == torch.bfloat16
