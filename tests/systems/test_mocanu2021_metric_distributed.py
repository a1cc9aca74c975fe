"""Metric learning in two processes with a part of the batch each, against one process with all of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from ser_lightning.losses import EmotionConstraint
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.pooling import GhostVLAD
from ser_lightning.nn.tensors import is_distributed
from ser_lightning.systems import MetricLearning
from ser_lightning.types import Batch

NUM_PROCESSES = 2
EMOTIONS = ("neutral", "happy", "sad", "angry")
NUM_BINS = 34


def batch(rows: slice) -> Batch:
    """Some rows of a batch; only the first process's utterances have equal lengths."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(8, 40, NUM_BINS, dtype=torch.float64, generator=generator).abs()
    lengths = torch.tensor([40, 40, 40, 40, 21, 33, 17, 40])
    labels = torch.arange(8) % 4
    return Batch(frames[rows], lengths[rows], labels[rows], torch.eye(4)[labels][rows], torch.arange(8)[rows])


def build() -> MetricLearning:
    torch.manual_seed(1)
    return MetricLearning(
        NUM_BINS,
        EMOTIONS,
        lambda dim: ThinSEResNet34(dim, channels=2),
        lambda dim: GhostVLAD(dim, 3, 2),
        lambda names: EmotionConstraint(names, 0.3, 0.4, {"negative": ["sad", "angry"]}),
        normalisation="per_frame",
        embedding_dim=6,
    ).double()


def training_step(rows: slice, device: str) -> dict[str, Tensor]:
    """Return gradients, averaged as DDP does, loss and buffers after a training step on some rows."""
    system = build().to(device)
    loss = system.training_step(batch(rows).to(device), 0)
    loss.backward()
    left = {f"gradient of {name}": p.grad for name, p in system.network.named_parameters() if p.grad is not None}
    if is_distributed():
        for gradient in left.values():
            dist.all_reduce(gradient)
            gradient /= NUM_PROCESSES
    found = left | {"loss": loss.detach()} | dict(system.named_buffers())
    return {name: value.cpu() for name, value in found.items()}


def run_process(rank: int, folder: Path, device: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_PROCESSES)
    torch.save(training_step(slice(4 * rank, 4 * rank + 4), device), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
@pytest.mark.usefixtures("all_layers")  # the processes build them
def test_two_processes_train_as_one_does_on_the_joint_batch(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.start_processes(run_process, (tmp_path, device), NUM_PROCESSES, start_method="forkserver")
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(NUM_PROCESSES)]
    expected = training_step(slice(None), device)
    assert expected["loss"] > 0.1
    assert max(value.abs().max() for name, value in expected.items() if "gradient" in name) > 1e-3
    for part in parts:
        assert part.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                part[name], value, atol=1e-9, rtol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
            )
    for name, value in parts[0].items():
        torch.testing.assert_close(value, parts[1][name], atol=1e-12, rtol=0)
