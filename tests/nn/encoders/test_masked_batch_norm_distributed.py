"""Two processes with a part of the batch each equal one process with all of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.encoders.real_frames import RealFrames
from tests.nn.encoders.kernels import use_stand_ins

NUM_PROCESSES = 2
# The first process's utterances have one length, so that only it needs no mask.
LENGTHS = torch.tensor([6, 6, 1, 4])
Step = dict[str, Tensor]


def training_step(rows: slice, distributed: bool) -> Step:
    """Run two training steps of a convolution and a norm on some rows; return what they left, named.

    The loss is the mean over rows, as a criterion's is.
    """
    generator = torch.Generator().manual_seed(0)
    maps = 3 + 2 * torch.randn(4, 2, 5, 6, dtype=torch.float64, generator=generator)
    slopes = torch.randn(4, 3, 5, 6, dtype=torch.float64, generator=generator)
    torch.manual_seed(1)
    network = nn.ModuleDict({"convolution": nn.Conv2d(2, 3, 1), "norm": MaskedBatchNorm(3)}).double()
    inputs = maps[rows].requires_grad_()
    for _ in range(2):
        convolved = network["convolution"](inputs)
        outputs = network["norm"](convolved, RealFrames(LENGTHS[rows], convolved))
    (outputs * slopes[rows]).sum((1, 2, 3)).mean().backward()
    assert inputs.grad is not None
    left = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    if distributed:
        for gradient in left.values():  # as DDP does
            dist.all_reduce(gradient)
            gradient /= NUM_PROCESSES
        inputs.grad /= NUM_PROCESSES
    return left | dict(network.named_buffers()) | {"outputs": outputs.detach(), "inputs": inputs.grad}


def run_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_PROCESSES)
    rows = slice(2 * rank, 2 * rank + 2)
    torch.save(training_step(rows, distributed=True), folder / f"cpu-{rank}.pt")
    with pytest.MonkeyPatch.context() as patch:
        use_stand_ins(patch)
        torch.save(training_step(rows, distributed=True), folder / f"cuda-{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_normalise_and_learn_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.start_processes(run_process, (tmp_path,), NUM_PROCESSES, start_method="forkserver")
    expected = training_step(slice(None), distributed=False)
    for path in ("cpu", "cuda"):  # the path for CUDA by stand-ins of its kernels
        compare([torch.load(tmp_path / f"{path}-{rank}.pt") for rank in range(NUM_PROCESSES)], expected)
    assert expected["convolution.weight"].abs().max() > 1e-3, expected["convolution.weight"]


def compare(parts: list[Step], expected: Step) -> None:
    """Compare what each process has with what one process has."""
    for name, value in expected.items():
        if name in ("outputs", "inputs"):
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), value, atol=1e-10, rtol=0)
            continue
        for part in parts:
            torch.testing.assert_close(part[name], value, atol=1e-10, rtol=0)
        assert torch.equal(parts[0][name], parts[1][name]), name
