"""Execution options change neither names nor numbers of layers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import LabelSmoothing, TripletLoss, WeightedCrossEntropy
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.pooling import GhostVLAD, NetVLAD
from ser_lightning.systems import ExistencePretraining, MetricLearning, PooledLSTM, SEResNetVLAD
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.training.arguments import Execution, threads_of_environment
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.types import Batch

EMOTIONS = ("neutral", "happy", "sad", "angry")
NUM_BINS = 34


def narrow(num_features: int) -> ThinSEResNet34:
    return ThinSEResNet34(num_features, channels=2)


def ghosts(dim: int) -> GhostVLAD:
    return GhostVLAD(dim, 3, 2)


SYSTEMS: dict[str, Callable[[], EmotionClassifier]] = {
    "S3": lambda: SEResNetVLAD(
        NUM_BINS, EMOTIONS, narrow, ghosts, WeightedCrossEntropy("none"), "per_frame", embedding_dim=6
    ),
    "S4": lambda: MetricLearning(
        NUM_BINS, EMOTIONS, narrow, ghosts, lambda names: TripletLoss(names, 0.5), "per_frame", embedding_dim=6
    ),
    "Huang": lambda: PooledLSTM(NUM_BINS, EMOTIONS, lambda dim: NetVLAD(dim, 3), LabelSmoothing(), cells=4),
}


def build(name: str, execution: Execution | None = None) -> EmotionClassifier:
    torch.manual_seed(0)
    system = SYSTEMS[name]()
    if execution:
        execution.prepare(system)
    return system


@pytest.fixture
def restored() -> Iterator[None]:
    """Restore torch's precisions after a test."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, products.fp32_precision
    yield
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, products.fp32_precision = before


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(("tf32", "expected"), [(True, "tf32"), (False, "ieee")])
def test_only_convolutions_and_lstms_may_use_tf32(tf32: bool, expected: str) -> None:
    build("Huang", Execution(tf32=tf32))
    assert torch.backends.cudnn.conv.fp32_precision == expected
    assert torch.backends.cudnn.rnn.fp32_precision == expected
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_tf32_is_recorded_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda:0"), torch.device("cpu")
    for capability, said in (((9, 0), "32-true, TF32 in convolutions and LSTMs"), ((7, 5), "32-true")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert Execution().precision("32-true", gpu) == said
    assert Execution().precision("32-true", cpu) == "32-true"
    assert Execution(tf32=False).precision("bf16-mixed", gpu) == "bf16-mixed"


def batch(frames: int = 60, size: int = 8, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(frames)
    inputs = torch.randn(size, frames, NUM_BINS, generator=generator).abs()
    lengths = torch.randint(frames // 2, frames + 1, (size,), generator=generator)
    labels = torch.arange(size) % 4
    return Batch(inputs.to(dtype), lengths, labels, torch.eye(4, dtype=dtype)[labels], torch.arange(size))


def results(system: EmotionClassifier, seen: Batch) -> dict[str, Tensor]:
    """Loss and gradients of a training step, then outputs in evaluation, and weights."""
    system.train().zero_grad()
    loss = system.training_step(seen, 0)
    loss.backward()
    found = {f"gradient of {name}": p.grad.clone() for name, p in system.named_parameters() if p.grad is not None}
    with torch.no_grad():
        outputs = system.eval().predict_step(seen, 0)
        found |= {"loss": loss.detach(), "logits": system(seen.inputs, seen.lengths)}
    return found | {name: outputs[name] for name in outputs if name != "predicted"} | system.state_dict()


def assert_same(execution: Execution, name: str, *batches: Batch, tolerance: float = 1e-4, device: str = "cpu") -> None:
    batches = tuple(seen.to(device) for seen in batches)
    plain, prepared = (build(name, how).to(device, batches[0].inputs.dtype) for how in (None, execution))
    assert list(prepared.state_dict()) == list(plain.state_dict())
    for key, value in plain.state_dict().items():
        assert torch.equal(prepared.state_dict()[key], value), key
    for seen in batches:
        expected, found = results(plain, seen), results(prepared, seen)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            # The deep network's gradients differ in scale; tolerances are relative to each one's maximum.
            scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
            torch.testing.assert_close(
                found[key], value, atol=tolerance * scale, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
            )
    fresh = build(name).to(device, batches[0].inputs.dtype)
    fresh.load_state_dict(prepared.state_dict())


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", SYSTEMS)
def test_channels_last_changes_neither_names_nor_results(name: str, device: str) -> None:
    # In float64 on a GPU: its kernels differ between the two layouts, which a deep network's gradients magnify.
    dtype = torch.float32 if device == "cpu" else torch.float64
    batches = (batch(frames, dtype=dtype) for frames in (60, 33))
    assert_same(Execution(channels_last=True, tf32=False), name, *batches, device=device)


@pytest.mark.usefixtures("all_layers")
def test_every_convolution_and_its_output_are_channels_last() -> None:
    system = build("S3", Execution(channels_last=True))
    seen: list[Tensor] = []
    convolutions = [module for module in system.modules() if isinstance(module, nn.Conv2d) and module.in_channels > 1]
    for convolution in convolutions:
        convolution.register_forward_hook(lambda _, __, maps: seen.append(maps))
    system.eval()(batch().inputs, batch().lengths)
    assert len(seen) == len(convolutions) > 30
    for convolution in convolutions:
        assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)


@pytest.mark.slow
def test_compiled_layers_change_neither_names_nor_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks the captured graphs with the eager backend, without minutes of compilation."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda layer, **how: compile_(layer, backend="eager", **how))
    # In float64: batch norm sums in another order, which a deep network's gradients magnify.
    assert_same(Execution(channels_last=True, compile=True), "S3", batch(60, dtype=torch.float64), tolerance=1e-9)


@pytest.mark.gpu
@pytest.mark.usefixtures("restored")
def test_layers_compiled_for_a_gpu_change_neither_names_nor_results() -> None:
    batches = (batch(frames, dtype=torch.float64) for frames in (60, 33))
    assert_same(Execution(channels_last=True, compile=True), "S3", *batches, tolerance=1e-9, device="cuda")


def test_by_default_layers_are_unchanged() -> None:
    system = build("S3", Execution())
    assert not any(module._compiled_call_impl for module in system.modules())
    assert system.network.encoder.blocks[0].look_around.weight.is_contiguous()


def test_layers_without_weights_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def compile_(module: nn.Module, **_: Any) -> None:
        compiled.append(module)

    monkeypatch.setattr(nn.Module, "compile", compile_)
    system = build("S4", Execution(compile=True))
    assert isinstance(system, MetricLearning)
    assert compiled == [system.network]


def test_each_layer_of_a_module_list_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def compile_(module: nn.Module, **_: Any) -> None:
        compiled.append(module)

    monkeypatch.setattr(nn.Module, "compile", compile_)
    system = ExistencePretraining(NUM_BINS, EMOTIONS, WeightedCrossEntropy(), fusion=True, channels=(2, 2, 2), cells=3)
    Execution(compile=True).prepare(system)  # the list itself is not called
    assert compiled == [*system.encoders, system.classifier]


def test_a_trainer_file_sets_the_execution(
    arguments: Callable[..., list[str]], tmp_path: Any, monkeypatch: Any
) -> None:
    asked: list[tuple[bool, bool]] = []
    monkeypatch.setattr(Execution, "prepare", lambda self, _: asked.append((self.channels_last, self.compile)))
    more = ("--config=experiments/trainer/compiled.yaml", "--config=experiments/trainer/cpu.yaml")
    one = ExperimentCLI([*arguments(tmp_path, "--trainer.logger=false"), *more], run=False)
    two = ExperimentCLI(arguments(tmp_path, "--trainer.logger=false", "--execution.held_gib=0.5"), run=False)
    assert asked == [(True, True), (False, False)]
    assert (one.data.held_gib, two.data.held_gib) == (2.0, 0.5)


@pytest.mark.parametrize("gib", [-1.0, float("nan")])
def test_memory_for_frames_below_zero_is_rejected(gib: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"execution\.held_gib is {gib}"):
        Execution(held_gib=gib)


def test_threads_come_from_the_environment_or_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of_environment() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of_environment() == 3
    for refused in ("8,2", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", refused)
        with pytest.raises(ConfigurationError, match=f"OMP_NUM_THREADS is '{refused}'"):
            threads_of_environment()
