"""Two processes with unequal shares of a batch train as one process does on the whole batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from ser_lightning.losses import AMSoftmax, ExistenceLoss, FocalLoss, LabelSmoothing, WeightedCrossEntropy
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.pooling import AttentiveStatisticsPooling, NetVLAD, WeightedPooling
from ser_lightning.nn.tensors import is_distributed
from ser_lightning.systems import (
    ConvBLSTMAttention,
    DominantEmotionRecognition,
    MultiLabelEmotionExistence,
    PooledLSTM,
    SEResNetVLAD,
)
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.types import Batch

NUM_PROCESSES = 2
SHARES = (slice(0, 4), slice(4, 7))  # how two processes share a last batch of seven
EMOTIONS = ("neutral", "happy", "sad", "angry")
NUM_BINS = 40

# Without dropout and input noise, which differ between processes.
SYSTEMS: dict[str, Callable[[], EmotionClassifier]] = {
    "Huang": lambda: PooledLSTM(
        NUM_BINS, EMOTIONS, lambda dim: NetVLAD(dim, 3), LabelSmoothing(0.2, "unigram"), cells=6
    ),
    "Zhou, AM-softmax": lambda: ConvBLSTMAttention(
        NUM_BINS, EMOTIONS, AttentiveStatisticsPooling, AMSoftmax(10.0, 0.4), channels=(3, 3, 2, 2, 2, 2), cells=4
    ),
    "Zhou, focal loss": lambda: ConvBLSTMAttention(
        NUM_BINS, EMOTIONS, WeightedPooling, FocalLoss(2.0), channels=(3, 3, 2, 2, 2, 2), cells=4
    ),
    "Ando, class weights": lambda: DominantEmotionRecognition(
        NUM_BINS, EMOTIONS, WeightedCrossEntropy("inverse_frequency"), channels=(2, 3, 2), cells=4, attention_dim=4
    ),
    "Ando, existence": lambda: MultiLabelEmotionExistence(
        NUM_BINS, EMOTIONS, ExistenceLoss(), channels=(2, 3, 2), cells=4, attention_dim=4
    ),
    "Mocanu": lambda: SEResNetVLAD(
        NUM_BINS,
        EMOTIONS,
        lambda dim: ThinSEResNet34(dim, channels=2),
        lambda dim: NetVLAD(dim, 3),
        WeightedCrossEntropy(),
        normalisation="per_frame",
        embedding_dim=6,
    ),
}


def batch(rows: slice) -> Batch:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(7, 90, NUM_BINS, dtype=torch.float64, generator=generator)
    lengths = torch.tensor([90, 90, 90, 90, 71, 83, 67])  # only the first share has no padding
    labels = torch.arange(7) % 4
    targets = torch.eye(4, dtype=torch.float64)[labels]
    return Batch(frames[rows], lengths[rows], labels[rows], targets[rows], torch.arange(7)[rows])


def training_step(name: str, rows: slice, device: str) -> dict[str, Tensor]:
    """Return gradients, averaged as DDP does, and buffers after a training step on some rows."""
    torch.manual_seed(1)
    system = SYSTEMS[name]().double().to(device)
    system.class_prior.copy_(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    system.training_step(batch(rows).to(device), 0).backward()
    left = {f"gradient of {key}": p.grad for key, p in system.named_parameters() if p.grad is not None}
    if is_distributed():
        for gradient in left.values():
            dist.all_reduce(gradient)
            gradient /= NUM_PROCESSES
    return {key: value.cpu() for key, value in (left | dict(system.named_buffers())).items()}


def run_process(rank: int, folder: Path, device: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_PROCESSES)
    for name in SYSTEMS:
        torch.save(training_step(name, SHARES[rank], device), folder / f"{name} {rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where both processes compute: on the CPU, or both on one GPU, joined by gloo too."""
    return str(request.param)


@pytest.fixture(scope="module")
def shares(device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of both processes."""
    folder = tmp_path_factory.mktemp("shares")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        multiprocessing.start_processes(run_process, (folder, device), NUM_PROCESSES, start_method="forkserver")
    return folder


@pytest.mark.usefixtures("all_layers")  # the processes build them
@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_of_two_processes_are_those_of_the_joint_batch(name: str, device: str, shares: Path) -> None:
    expected = training_step(name, slice(None), device)
    assert max(value.abs().max() for key, value in expected.items() if key.startswith("gradient")) > 1e-3
    for rank in range(NUM_PROCESSES):
        part = torch.load(shares / f"{name} {rank}.pt")
        assert part.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                part[key], value, atol=1e-9, rtol=1e-7, msg=lambda text, key=key: f"{key}: {text}"
            )
