"""Two processes with a part of the batch each equal one process with all of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.tensors import frame_mask

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
    inputs, mask = maps[rows].requires_grad_(), frame_mask(LENGTHS[rows], 6)
    for _ in range(2):
        outputs = network["norm"](network["convolution"](inputs), mask).masked_fill(~mask[:, None, None], 0.0)
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
    torch.save(training_step(slice(2 * rank, 2 * rank + 2), distributed=True), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_normalise_and_learn_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.start_processes(run_process, (tmp_path,), NUM_PROCESSES, start_method="forkserver")
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(NUM_PROCESSES)]
    expected = training_step(slice(None), distributed=False)
    for name, value in expected.items():
        if name in ("outputs", "inputs"):
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), value, atol=1e-10, rtol=0)
            continue
        for part in parts:
            torch.testing.assert_close(part[name], value, atol=1e-10, rtol=0)
        assert torch.equal(parts[0][name], parts[1][name]), name
    assert expected["convolution.weight"].abs().max() > 1e-3, expected["convolution.weight"]
