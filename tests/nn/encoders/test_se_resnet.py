"""The residual network of Mocanu et al. 2021: its layout, against plain steps, and under padding."""

import shutil

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from ser_lightning.nn.encoders import ThinSEResNet34, se_resnet
from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.encoders.real_frames import RealFrames
from ser_lightning.nn.tensors import frame_mask
from tests.nn.encoders.kernels import use_stand_ins

LENGTHS = torch.tensor([75, 1, 2, 32, 33, 50, 17])
NUM_BINS = 40

pytestmark = pytest.mark.usefixtures("all_layers")


def settled(channels: int = 8, input_dim: int = NUM_BINS) -> ThinSEResNet34:
    """A network whose batch norms shift and scale: zeros do not stay zero."""
    torch.manual_seed(0)
    network = ThinSEResNet34(input_dim, channels)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, MaskedBatchNorm):
                for tensor in (*module.parameters(), *module.buffers()):
                    tensor.uniform_(0.5, 1.5)
    return network.eval()


def random_frames() -> Tensor:
    return torch.randn(len(LENGTHS), 75, NUM_BINS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def scale_of(descriptors: Tensor) -> float:
    """Scale for errors: sixteen layers make this network's descriptors large."""
    return max(1.0, descriptors.abs().max().item())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
def test_padding_batch_mates_and_order_never_change_a_descriptor(
    dtype: torch.dtype, tolerance: float, memory_format: torch.memory_format
) -> None:
    network, frames = settled().to(dtype=dtype, memory_format=memory_format), random_frames().to(dtype)
    with torch.no_grad():
        together, lengths = network(frames, LENGTHS)
        reordered, _ = network(frames.flip(0), LENGTHS.flip(0))
        longer, _ = network(torch.cat([frames, torch.full_like(frames, 1e4)], 1), LENGTHS)
        tolerance *= scale_of(together)
        torch.testing.assert_close(reordered.flip(0), together, atol=tolerance, rtol=0)
        torch.testing.assert_close(longer[:, : together.shape[1]], together, atol=tolerance, rtol=0)
        assert not longer[:, together.shape[1] :].any()
        for row, (length, short) in enumerate(zip(LENGTHS.tolist(), lengths.tolist(), strict=True)):
            alone, alone_length = network(frames[row : row + 1, :length], LENGTHS[row : row + 1])
            assert alone_length.tolist() == [short]
            torch.testing.assert_close(alone[0, :short], together[row, :short], atol=tolerance, rtol=0)
            assert not together[row, short:].any()
            assert together[row, :short].any()


def test_padding_never_changes_training_either() -> None:
    results = []
    for padding in (0, 37):
        network = settled().double().train()
        frames = F.pad(random_frames(), (0, 0, 0, padding), value=5.0)
        descriptors, lengths = network(frames, LENGTHS)
        descriptors.square().mean((1, 2)).mul(descriptors.shape[1]).sum().backward()
        real = descriptors[frame_mask(lengths, descriptors.shape[1])].detach()
        results.append([real, *(p.grad for p in network.parameters()), *network.buffers()])
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, atol=1e-8 * scale_of(plain), rtol=1e-8)


def test_there_is_one_descriptor_for_sixteen_frames_at_least_one() -> None:
    lengths = torch.arange(1, 70)
    network = ThinSEResNet34(NUM_BINS, channels=1).eval()
    descriptors, short = network(torch.zeros(69, 69, NUM_BINS), lengths)
    for n, result in zip(lengths.tolist(), short.tolist(), strict=True):
        pooled = max(n, 2) // 2
        assert result == -(-pooled // 8), n
    assert descriptors.shape == (69, short[-1], network.output_dim)
    assert network.reduction_in_time == 16
    assert network(torch.zeros(1, 1, NUM_BINS), torch.tensor([1]))[0].shape == (1, 1, network.output_dim)


def test_the_whole_network_has_the_widths_of_the_plan() -> None:
    network = ThinSEResNet34(257)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() == 4 and "shortcut" not in name}
    assert shapes.pop("convolution.weight") == (64, 1, 7, 7)
    assert shapes.pop("join_bins.weight") == (512, 512, 7, 1)
    before, block = 64, 0
    for depth, inner, outer in ((2, 48, 96), (3, 96, 128), (3, 128, 256), (3, 256, 512)):
        for _ in range(depth):
            assert shapes.pop(f"blocks.{block}.narrow.weight") == (inner, before, 1, 1)
            assert shapes.pop(f"blocks.{block}.look_around.weight") == (inner, inner, 3, 3)
            assert shapes.pop(f"blocks.{block}.widen.weight") == (outer, inner, 1, 1)
            before, block = outer, block + 1
    assert not shapes
    gates = [block.excitation.narrow.out_features for block in network.blocks]
    assert gates == [6, 6, 8, 8, 8, 16, 16, 16, 32, 32, 32]
    assert network.output_dim == 512


def test_all_widths_follow_the_first_and_none_is_zero() -> None:
    assert ThinSEResNet34(257, channels=16).output_dim == 128
    assert min(min(p.shape) for p in ThinSEResNet34(257, channels=1).parameters()) >= 1


def norm(module: MaskedBatchNorm, maps: Tensor) -> Tensor:
    return F.batch_norm(maps, module.running_mean, module.running_variance, module.weight, module.bias)


def test_an_unpadded_utterance_equals_plain_steps_of_torch() -> None:
    network = settled(channels=8, input_dim=51).double()
    frames = torch.randn(2, 45, 51, dtype=torch.float64)
    x = F.max_pool2d(norm(network.norm, network.convolution(frames.transpose(1, 2)[:, None])).relu(), 2)
    for number, block in enumerate(network.blocks):
        stride = 2 if number in (2, 5, 8) else 1
        y = norm(block.narrow_norm, F.conv2d(x, block.narrow.weight, stride=stride)).relu()
        y = norm(block.look_around_norm, F.conv2d(y, block.look_around.weight, padding=1)).relu()
        y = norm(block.widen_norm, F.conv2d(y, block.widen.weight))
        squeezed = y.mean((2, 3))
        gates = block.excitation.widen(block.excitation.narrow(squeezed).relu()).sigmoid()
        if block.shortcut is not None:
            x = norm(block.shortcut_norm, F.conv2d(x, block.shortcut.weight, stride=stride))
        x = (x + y * gates[:, :, None, None]).relu()
    x = F.conv2d(F.max_pool2d(x, (3, 1), (2, 1)), network.join_bins.weight, network.join_bins.bias).relu()
    assert x.shape[2] == 1
    result, lengths = network(frames, torch.tensor([45, 45]))
    assert lengths.tolist() == [3, 3]
    torch.testing.assert_close(result, x.squeeze(2).transpose(1, 2), atol=1e-9 * scale_of(x), rtol=0)


def test_gradients_equal_numerical_ones() -> None:
    network, lengths = settled(channels=1, input_dim=34).double().train(), torch.tensor([20, 33])
    frames = torch.randn(2, 33, 34, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(frames)
    weights = torch.randn(2, 2, network.output_dim, dtype=torch.float64) + 3

    def loss(at: Tensor) -> Tensor:
        return (network(at, lengths)[0] * weights).sum()

    (gradient,) = torch.autograd.grad(loss(frames), frames)
    assert not gradient[0, 20:].any()
    step = 1e-6
    with torch.no_grad():
        expected = (loss(frames + step * direction) - loss(frames - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-7)


def training_step(network: nn.Module, frames: Tensor, lengths: Tensor = LENGTHS) -> list[Tensor]:
    """Descriptors, running statistics and all gradients of a step in training."""
    network.train()
    descriptors, _ = network(frames, lengths)
    descriptors.float().square().sum(1).mean().backward()  # to which padding adds nothing
    left = [descriptors.detach(), *network.buffers()]
    return left + [p.grad for p in network.parameters() if p.grad is not None]


def test_a_training_step_equals_steps_that_mask_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    found = training_step(settled().double(), random_frames())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # plain operators, each followed by a mask
    expected = training_step(settled().double(), random_frames())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9 * scale_of(other), rtol=1e-9)


def test_the_path_for_cuda_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = training_step(settled().double(), random_frames())
    use_stand_ins(monkeypatch)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        found = training_step(settled().double().to(memory_format=memory_format), random_frames())
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-9 * scale_of(other), rtol=1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
def test_cuda_trains_alike_and_is_not_waited_for(memory_format: torch.memory_format) -> None:
    expected = training_step(settled().double(), random_frames())
    network = settled().double().to("cuda", memory_format=memory_format)
    frames, lengths = random_frames().to("cuda"), LENGTHS.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = training_step(network, frames, lengths)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=1e-8 * scale_of(other), rtol=1e-8)


def test_convolutions_and_gates_see_zeros_past_the_end() -> None:
    network = settled(channels=2).double().train()
    first = LENGTHS.clamp(min=2)
    lengths = {
        75: first,
        37: first // 2,
        19: -(-(first // 2) // 2),
        10: -(-(first // 2) // 4),
        5: -(-(first // 2) // 8),
    }
    seen = []

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        num_frames = inputs[0].shape[3]
        past = ~frame_mask(lengths[num_frames], num_frames)[:, None, None].expand_as(inputs[0])
        assert not inputs[0][past].any(), module
        assert inputs[0][~past].any()
        seen.append(num_frames)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | se_resnet.SqueezeExcitation):
            module.register_forward_pre_hook(check)
    network(random_frames(), LENGTHS)
    assert set(seen) == set(lengths)
    assert len(seen) == 1 + 4 * 11 + 4 + 1  # the first, four in a block, four shortcuts, the last


def test_layers_of_one_resolution_share_mask_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def made(lengths: Tensor, maps: Tensor, all_real: bool = False) -> RealFrames:
        shapes.append(tuple(maps.shape[2:]))
        return RealFrames(lengths, maps, all_real)

    monkeypatch.setattr(se_resnet, "RealFrames", made)
    settled(channels=1).float()(random_frames().float(), LENGTHS)
    assert shapes == [(40, 75), (20, 37), (10, 19), (5, 10), (3, 5)]


def test_channels_last_changes_nothing_of_training() -> None:
    results = [
        training_step(settled().double().to(memory_format=memory_format), random_frames())
        for memory_format in (torch.contiguous_format, torch.channels_last)
    ]
    for plain, last in zip(*results, strict=True):
        torch.testing.assert_close(last, plain, atol=1e-9 * scale_of(plain), rtol=1e-9)


def test_bf16_changes_descriptors_and_gradients_by_few_percent() -> None:
    expected = training_step(settled(), random_frames().float())
    with torch.autocast("cpu", torch.bfloat16):
        result = training_step(settled(), random_frames().float())
    names = ["descriptors", *(name for name, _ in settled().named_buffers())]
    for name, rounded, exact in zip(names, result, expected, strict=False):
        error = (rounded.double() - exact.double()).norm() / exact.double().norm()
        assert error < 0.05, f"{name}: {error:.3f}"
    flat, flat_exact = (torch.cat([g.flatten() for g in r[len(names) :]]) for r in (result, expected))
    assert F.cosine_similarity(flat, flat_exact, dim=0) > 0.95
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        descriptors, _ = settled()(random_frames().float(), LENGTHS)
    exact, _ = settled()(random_frames().float(), LENGTHS)
    assert (descriptors.float() - exact).norm() / exact.norm() < 0.05


def compare_with_compiled(backend: str) -> None:
    """Compare compiled training steps, of two numbers of frames, with plain ones."""
    torch._dynamo.reset()
    network, plain = settled(channels=2), settled(channels=2)
    compiled = torch.compile(network, dynamic=True, fullgraph=True, backend=backend)
    for longest in (75, 60):
        lengths, frames = LENGTHS.clamp(max=longest), random_frames().float()[:, :longest]
        results = [training_step(module, frames, lengths) for module in (compiled, plain)]
        results[0][0] = results[0][0][:, : results[1][0].shape[1]]  # the compiled network pads to a multiple of 16
        for result, expected in zip(*results, strict=True):
            torch.testing.assert_close(result, expected, atol=1e-3 * scale_of(expected), rtol=1e-3)


@pytest.mark.slow
def test_the_network_is_one_graph_for_every_number_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(se_resnet, "STAGES", ((1, 48, 96), (1, 96, 128)))  # compiling all blocks takes minutes
    compare_with_compiled("aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's compiler calls it
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU; there is no g++")
def test_compiled_code_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(se_resnet, "STAGES", ((1, 48, 96),))
    compare_with_compiled("inductor")


def test_too_few_bins_are_rejected_with_their_number() -> None:
    with pytest.raises(ValueError, match=r"33 bins.*34"):
        ThinSEResNet34(33)
    assert ThinSEResNet34(34, channels=1).join_bins.kernel_size == (1, 1)


def test_frames_with_other_bins_are_rejected_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"41 bins.*40"):
        ThinSEResNet34(40, channels=1)(torch.zeros(1, 5, 41), torch.tensor([5]))


def test_zero_channels_or_hidden_units_are_rejected() -> None:
    with pytest.raises(ValueError, match="channels is 0"):
        ThinSEResNet34(40, channels=0)
    with pytest.raises(ValueError, match="reduction 0"):
        ThinSEResNet34(40, reduction=0)


@pytest.mark.slow
def test_one_translation_serves_utterances_of_any_length() -> None:
    network = ThinSEResNet34(40, channels=2).eval()
    counter = CompileCounter()
    network.compile(dynamic=True, backend=counter)
    for num_frames in (64, 65, 71, 80, 93):  # every remainder of some stride
        with torch.no_grad():
            network(torch.randn(3, num_frames, 40), torch.tensor([num_frames, num_frames - 3, num_frames - 9]))
        assert counter.frame_count == 1, f"{num_frames} frames were translated anew"


def test_orthogonal_weights_neither_stretch_nor_shrink() -> None:
    torch.manual_seed(0)
    network = ThinSEResNet34(NUM_BINS, 8, initialisation="orthogonal")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weights = module.weight.flatten(1)
            weights = weights if weights.shape[0] <= weights.shape[1] else weights.T
            torch.testing.assert_close(weights @ weights.T, torch.eye(len(weights)), atol=1e-5, rtol=0)
