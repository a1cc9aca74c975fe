"""Convolutions under padding, against plain loops, and their lengths."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import profile

from ser_lightning.nn.encoders import ConvolutionBlock, ConvolutionStack
from ser_lightning.nn.encoders.real_frames import RealFrames
from ser_lightning.nn.tensors import frame_mask


def averaging(dropout: float = 0.0) -> ConvolutionStack:
    """As Zhou & Liu: odd kernels, average pooling, none in the last block."""
    return ConvolutionStack(
        11,
        [
            ConvolutionBlock(1, 3, (3, 3), pooling="average", dropout=dropout),
            ConvolutionBlock(3, 2, (3, 3), pooling="average", dropout=dropout),
            ConvolutionBlock(2, 2, (3, 3), dropout=dropout),
        ],
    )


def maximising() -> ConvolutionStack:
    """As Ando et al.: even kernels, a stride, max pooling."""
    return ConvolutionStack(
        17,
        [
            ConvolutionBlock(1, 3, (4, 6), (2, 2), pooling="max"),
            ConvolutionBlock(3, 2, (2, 4), pooling="max"),
            ConvolutionBlock(2, 4, (5, 7), pooling="max"),
        ],
    )


STACKS: dict[str, Callable[[], ConvolutionStack]] = {"averaging": averaging, "maximising": maximising}
LENGTHS = torch.tensor([45, 1, 4, 31, 32, 17])


def settled(name: str) -> ConvolutionStack:
    """A stack whose batch norms shift and scale: zeros do not stay zero."""
    torch.manual_seed(0)
    stack = STACKS[name]()
    for key, tensor in (*stack.named_parameters(), *stack.named_buffers()):
        if "norm" in key:
            with torch.no_grad():
                tensor.uniform_(0.5, 1.5)
    return stack.eval()


def random_frames(num_features: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LENGTHS), 45, num_features, dtype=torch.float64, generator=generator)


FRAMES = {"averaging": random_frames(11), "maximising": random_frames(17)}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_padding_batch_mates_and_order_never_change_a_descriptor(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    stack, frames = settled(name).to(dtype), FRAMES[name].to(dtype)
    together, lengths = stack(frames, LENGTHS)
    reordered, _ = stack(frames.flip(0), LENGTHS.flip(0))
    longer, _ = stack(torch.cat([frames, torch.full_like(frames, 1e4)], 1), LENGTHS)
    torch.testing.assert_close(reordered.flip(0), together, atol=tolerance, rtol=0)
    torch.testing.assert_close(longer[:, : together.shape[1]], together, atol=tolerance, rtol=0)
    assert not longer[:, together.shape[1] :].any()
    for row, (length, short) in enumerate(zip(LENGTHS.tolist(), lengths.tolist(), strict=True)):
        alone, alone_length = stack(frames[row : row + 1, :length], LENGTHS[row : row + 1])
        assert alone_length.tolist() == [short]
        torch.testing.assert_close(alone[0, :short], together[row, :short], atol=tolerance, rtol=0)
        assert not together[row, short:].any()
        assert together[row, :short].any()


@pytest.mark.parametrize("name", STACKS)
def test_padding_never_changes_training_either(name: str) -> None:
    results = []
    for padding in (0, 37):
        stack = settled(name).double().train()
        frames = torch.nn.functional.pad(FRAMES[name], (0, 0, 0, padding), value=5.0)
        descriptors, lengths = stack(frames, LENGTHS)
        descriptors.square().sum().backward()
        real = descriptors[frame_mask(lengths, descriptors.shape[1])].detach()
        state = [p.grad for p in stack.parameters()] + list(stack.buffers())
        results.append([real, *state])
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", STACKS)
def test_lengths_shrink_by_a_formula_of_each_utterances_own(name: str) -> None:
    lengths = torch.arange(1, 70)
    stack = STACKS[name]()
    descriptors, short = stack(torch.zeros(69, 69, 11 if name == "averaging" else 17), lengths)
    for n, result in zip(lengths.tolist(), short.tolist(), strict=True):
        # Two poolings; or a stride of two that keeps an odd frame, and three poolings.
        expected = max(n, 4) // 2 // 2 if name == "averaging" else -(-max(n, 16) // 2) // 2 // 2 // 2
        assert result == expected, n
    assert descriptors.shape == (69, short[-1], stack.output_dim)


@pytest.mark.parametrize("kernel", [(3, 3), (4, 6), (1, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("pooling", ["average", "max", None])
def test_a_block_equals_plain_loops(kernel: tuple[int, int], stride: tuple[int, int], pooling: str | None) -> None:
    torch.manual_seed(0)
    block = ConvolutionBlock(2, 3, kernel, stride, pooling).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for tensor in (*block.norm.parameters(), *block.norm.buffers()):
            tensor.uniform_(0.5, 1.5)
    maps = torch.randn(1, 2, 9, 11, dtype=torch.float64)
    result, frames = block(maps, RealFrames(torch.tensor([11]), maps))
    x, weight = maps[0].numpy(), block.convolution.weight.detach().numpy()
    shape = [-(-size // step) for size, step in zip((9, 11), stride, strict=True)]
    convolved = np.zeros((3, *shape))
    for c in range(3):
        for i in range(shape[0]):
            for j in range(shape[1]):
                convolved[c, i, j] = block.convolution.bias[c].item()
                for a in range(kernel[0]):
                    for b in range(kernel[1]):
                        f, t = i * stride[0] + a - (kernel[0] - 1) // 2, j * stride[1] + b - (kernel[1] - 1) // 2
                        if 0 <= f < 9 and 0 <= t < 11:
                            convolved[c, i, j] += weight[c, :, a, b] @ x[:, f, t]
    mean, variance = block.norm.running_mean.numpy(), block.norm.running_variance.numpy()
    scale, shift = block.norm.weight.detach().numpy(), block.norm.bias.detach().numpy()
    normalised = (convolved - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    expected = np.maximum(normalised * scale[:, None, None] + shift[:, None, None], 0.0)
    if pooling is not None:
        reduce = np.mean if pooling == "average" else np.max
        rows, columns = shape[0] // 2, shape[1] // 2
        windows = expected[:, : 2 * rows, : 2 * columns].reshape(3, rows, 2, columns, 2)
        expected = reduce(windows, axis=(2, 4))
    assert result.shape[2] == block.num_bins(9)
    assert frames.lengths.item() == result.shape[3]
    np.testing.assert_allclose(result[0].detach().numpy(), expected, atol=1e-12)


def test_dropout_acts_in_training_alone() -> None:
    stack, frames = averaging(dropout=0.5), FRAMES["averaging"].float()
    assert not torch.equal(stack(frames, LENGTHS)[0], stack(frames, LENGTHS)[0])
    stack.eval()
    assert torch.equal(stack(frames, LENGTHS)[0], stack(frames, LENGTHS)[0])


def test_input_of_too_few_bins_is_rejected_with_their_number() -> None:
    with pytest.raises(ValueError, match="3 features"):
        ConvolutionStack(
            3, [ConvolutionBlock(1, 2, (3, 3), pooling="max"), ConvolutionBlock(2, 2, (3, 3), (2, 1), "max")]
        )


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("num_frames", [45, 32, 3])
def test_nothing_is_masked_where_all_frames_are_real(name: str, num_frames: int, train: bool) -> None:
    stack = settled(name).double().train(train)
    frames, lengths = FRAMES[name][:, :num_frames], torch.full((len(LENGTHS),), num_frames)
    with torch.no_grad(), profile(acc_events=True) as masking:
        masked, expected = stack(frames, lengths)
    with torch.no_grad(), profile(acc_events=True) as plain:
        found, found_lengths = stack(frames, lengths, all_real=True)
    assert torch.equal(found, masked)
    assert found_lengths.tolist() == expected.tolist()
    assert any("masked_fill" in event.name for event in masking.events())
    assert not any("masked_fill" in event.name for event in plain.events())
