"""Batch norm of real frames against torch's on those frames alone."""

import pytest
import torch
from torch import Tensor, nn

from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.tensors import frame_mask

LENGTHS = torch.tensor([6, 1, 3])


def real_frames(maps: Tensor, lengths: Tensor) -> Tensor:
    """All real frames [1, C, F, sum of lengths], concatenated over utterances."""
    return torch.cat([maps[row, :, :, :length] for row, length in enumerate(lengths.tolist())], 2).unsqueeze(0)


def compare(lengths: Tensor) -> None:
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(4).double(), nn.BatchNorm2d(4).double()
    maps = (3 + 2 * torch.randn(3, 4, 5, 6, dtype=torch.float64)).requires_grad_()
    copy = maps.detach().clone().requires_grad_()
    for _ in range(2):
        result = real_frames(ours(maps, frame_mask(lengths, 6)), lengths)
        expected = theirs(real_frames(copy, lengths))
        torch.testing.assert_close(result, expected, atol=1e-10, rtol=0)
    weights = torch.randn_like(expected)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(maps.grad, copy.grad, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    torch.testing.assert_close(
        real_frames(ours.eval()(maps, frame_mask(lengths, 6)), lengths), theirs.eval()(real_frames(copy, lengths))
    )


def test_padded_frames_take_no_part() -> None:
    compare(LENGTHS)


def test_without_padding_it_is_torchs_own() -> None:
    compare(torch.tensor([6, 6, 6]))


def test_a_single_value_is_normalised_to_the_bias() -> None:
    norm = MaskedBatchNorm(2)
    result = norm(torch.full((1, 2, 1, 1), 7.0), torch.ones(1, 1, dtype=torch.bool))
    assert not result.any()
    assert torch.isfinite(norm.running_variance).all()


def step(norm: MaskedBatchNorm, maps: Tensor, lengths: Tensor, rectify: bool) -> list[Tensor]:
    """Results, running statistics, and gradients of input and parameters after a training step."""
    maps = maps.clone(memory_format=torch.preserve_format).requires_grad_()
    result = norm(maps, frame_mask(lengths, maps.shape[3]), rectify)
    (result * torch.linspace(-1, 1, result.numel()).view(result.shape)).float().sum().backward()
    assert maps.grad is not None
    gradients = [p.grad for p in norm.parameters() if p.grad is not None]
    return [result.detach(), maps.grad, norm.running_mean, norm.running_variance, *gradients]


def random_maps(offset: float = 3.0) -> Tensor:
    return offset + 2 * torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("lengths", [LENGTHS, torch.tensor([6, 6, 6])])
@pytest.mark.parametrize("rectify", [False, True])
def test_the_fused_backward_pass_equals_autograd(
    lengths: Tensor, rectify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = step(MaskedBatchNorm(4).double(), random_maps(), lengths, rectify)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    in_steps = step(MaskedBatchNorm(4).double(), random_maps(), lengths, rectify)
    for one, other in zip(at_once, in_steps, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rectify", [False, True])
def test_frames_past_the_end_become_zero_and_get_no_gradient(training: bool, rectify: bool) -> None:
    norm = MaskedBatchNorm(4).double().train(training)
    nn.init.ones_(norm.bias)
    result, gradient, *_ = step(norm, random_maps(), LENGTHS, rectify)
    past = ~frame_mask(LENGTHS, 6)[:, None, None].expand_as(result)
    assert not result[past].any()
    assert not gradient[past].any()
    assert result[~past].any()
    assert gradient[~past].any()


@pytest.mark.parametrize("lengths", [LENGTHS, torch.tensor([6, 6, 6])])
def test_channels_last_gives_the_same(lengths: Tensor) -> None:
    maps = random_maps()
    rows = step(MaskedBatchNorm(4).double(), maps, lengths, True)
    last = step(MaskedBatchNorm(4).double(), maps.contiguous(memory_format=torch.channels_last), lengths, True)
    assert last[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(rows, last, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("lengths", [LENGTHS, torch.tensor([6, 6, 6])])
def test_half_precision_maps_keep_dtype_and_exact_statistics(lengths: Tensor) -> None:
    maps = random_maps().bfloat16()
    rounded = step(MaskedBatchNorm(4), maps, lengths, True)
    exact = step(MaskedBatchNorm(4), maps.float(), lengths, True)
    assert [t.dtype for t in rounded] == [torch.bfloat16] * 2 + [torch.float32] * 4
    for statistic, expected in zip(rounded[2:4], exact[2:4], strict=True):
        torch.testing.assert_close(statistic, expected, rtol=0.01, atol=0.01)
    torch.testing.assert_close(rounded[0].float(), exact[0], atol=0.03, rtol=0.03)


def test_maps_far_from_zero_keep_precision_in_float32() -> None:
    far, near = random_maps(50.0).float(), random_maps(0.0)
    result = MaskedBatchNorm(4)(far, frame_mask(LENGTHS, 6))
    expected = MaskedBatchNorm(4).double()(near, frame_mask(LENGTHS, 6))
    torch.testing.assert_close(result.double(), expected, atol=1e-3, rtol=0)
