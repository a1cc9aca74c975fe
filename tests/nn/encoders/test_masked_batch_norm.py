"""Batch norm of real frames against torch's on those frames alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.encoders.real_frames import RealFrames
from ser_lightning.nn.tensors import at_least_float32, frame_mask
from tests.nn.encoders.kernels import STAND_INS, use_stand_ins

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
        result = real_frames(ours(maps, RealFrames(lengths, maps)), lengths)
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
        real_frames(ours.eval()(maps, RealFrames(lengths, maps)), lengths), theirs.eval()(real_frames(copy, lengths))
    )


def test_padded_frames_take_no_part() -> None:
    compare(LENGTHS)


def test_without_padding_it_is_torchs_own() -> None:
    compare(torch.tensor([6, 6, 6]))


def test_a_single_value_is_normalised_to_the_bias() -> None:
    norm = MaskedBatchNorm(2)
    maps = torch.full((1, 2, 1, 1), 7.0)
    result = norm(maps, RealFrames(torch.tensor([1]), maps))
    assert not result.any()
    assert torch.isfinite(norm.running_variance).all()


def step(
    norm: MaskedBatchNorm, maps: Tensor, lengths: Tensor, *flags: bool, slopes: Tensor | None = None
) -> list[Tensor]:
    """Results, running statistics, and gradients of input and parameters after a training step."""
    maps = maps.clone(memory_format=torch.preserve_format).requires_grad_()
    result = norm(maps, RealFrames(lengths, maps), *flags)
    slopes = torch.linspace(-1, 1, maps.numel()).view(maps.shape) if slopes is None else slopes
    (result * slopes.to(maps.device)).float().sum().backward()
    assert maps.grad is not None
    gradients = [p.grad for p in norm.parameters() if p.grad is not None]
    return [result.detach(), maps.grad, norm.running_mean, norm.running_variance, *gradients]


def random_maps(offset: float = 3.0) -> Tensor:
    return offset + 2 * torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_large_constant_maps_stay_finite() -> None:
    maps = torch.tensor([1e3 / 3, 1e4 / 7, 1e5 / 9, 1e6 / 11])[:, None, None].expand(3, 4, 5, 6)
    norm = MaskedBatchNorm(4)
    for tensor in step(norm, maps, LENGTHS, True):
        assert torch.isfinite(tensor).all()  # a variance that is rounded to less than zero has no root


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
    result = MaskedBatchNorm(4)(far, RealFrames(LENGTHS, far))
    expected = MaskedBatchNorm(4).double()(near, RealFrames(LENGTHS, near))
    torch.testing.assert_close(result.double(), expected, atol=1e-3, rtol=0)


PAST_THE_END = ~frame_mask(LENGTHS, 6)[:, None, None]


@pytest.mark.parametrize("rectify", [False, True])
def test_zero_padded_maps_give_the_same_without_a_mask(rectify: bool) -> None:
    maps, slopes = (random_maps(offset).masked_fill(PAST_THE_END, 0.0) for offset in (3.0, 0.0))
    found, expected = (
        step(MaskedBatchNorm(4).double(), maps, LENGTHS, rectify, zero_padded, slopes=slopes)
        for zero_padded in (True, False)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def compare_kernels(
    dtype: torch.dtype, lengths: Tensor, rectify: bool, zero_padded: bool, device: str, patch: pytest.MonkeyPatch | None
) -> None:
    """Compare the path for CUDA, of stand-ins if there is a patch, with that for a CPU, in both layouts."""
    maps, slopes = random_maps().to(dtype), random_maps(0.0).to(dtype)
    if zero_padded:
        maps, slopes = (tensor.masked_fill(PAST_THE_END, 0.0) for tensor in (maps, slopes))
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    norm = MaskedBatchNorm(4).to(parameters)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, 0.5, -1.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, -0.5, 1.0]))
    expected = step(copy.deepcopy(norm), maps, lengths, rectify, slopes=slopes)
    if patch is not None:
        use_stand_ins(patch)
    for layout in (torch.contiguous_format, torch.channels_last):
        moved = maps.to(device, memory_format=layout)
        found = step(copy.deepcopy(norm).to(device), moved, lengths.to(device), rectify, zero_padded, slopes=slopes)
        assert found[0].is_contiguous(memory_format=layout)
        assert not found[0].masked_select(~frame_mask(lengths, 6)[:, None, None].to(device)).any()
        if zero_padded:  # up to the caller there
            found[1] = found[1].masked_fill(PAST_THE_END.to(device), 0.0)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            tolerance = 1e-10 if dtype == torch.float64 else 0.03 if one.dim() == 4 else 0.01
            torch.testing.assert_close(one.cpu(), other, atol=tolerance, rtol=tolerance)


KERNEL_CASES = pytest.mark.parametrize(
    ("lengths", "rectify", "zero_padded"),
    [
        (LENGTHS, False, False),
        (LENGTHS, True, False),
        (LENGTHS, False, True),
        (LENGTHS, True, True),
        (torch.tensor([6, 6, 6]), False, False),
        (torch.tensor([6, 6, 6]), True, False),
    ],
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])


@DTYPES
@KERNEL_CASES
def test_the_path_for_cuda_gives_the_same(
    dtype: torch.dtype, lengths: Tensor, rectify: bool, zero_padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_kernels(dtype, lengths, rectify, zero_padded, "cpu", monkeypatch)


@pytest.mark.gpu
@DTYPES
@KERNEL_CASES
def test_cuda_gives_the_same(dtype: torch.dtype, lengths: Tensor, rectify: bool, zero_padded: bool) -> None:
    compare_kernels(dtype, lengths, rectify, zero_padded, "cuda", None)


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_stand_ins_equal_the_kernels(dtype: torch.dtype, layout: torch.memory_format) -> None:
    maps, gradient = (random_maps(offset).to("cuda", dtype).contiguous(memory_format=layout) for offset in (3.0, 0.0))
    mean, weight = (torch.linspace(1, 2, 4, device="cuda", dtype=at_least_float32(maps).dtype) for _ in range(2))
    counts = torch.tensor([50, 20], device="cuda", dtype=torch.int32)
    arguments: dict[str, tuple[object, ...]] = {
        "batch_norm_update_stats": (maps, None, None, 0.0),
        "batch_norm_elemt": (maps, weight, mean, mean, weight, 1e-5),
        "batch_norm_backward_reduce": (gradient, maps, mean, mean, weight, True, True, True),
        "batch_norm_backward_elemt": (gradient, maps, mean, weight, weight, mean, weight, counts),
    }
    for name, stand_in in STAND_INS.items():
        found, expected = (function(*arguments[name]) for function in (getattr(torch, name), stand_in))
        for one, other in zip(*((r,) if isinstance(r, Tensor) else r for r in (found, expected)), strict=True):
            tolerance = 1e-10 if dtype == torch.float64 else 0.02 if one.dim() == 4 else 1e-4
            torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance, msg=name)
