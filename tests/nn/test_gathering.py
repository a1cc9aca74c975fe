"""Gathering over processes, and its gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from ser_lightning.nn.tensors import gather_batch, gather_to_first, is_distributed

NUM_PROCESSES = 2


def gathered(rank: int) -> dict[str, Any]:
    """Return the results of the gathering functions."""
    share = torch.arange(6.0).reshape(3, 2) + 10 * rank
    learned = share.clone().requires_grad_()
    whole = gather_batch(learned)
    # Each process computes the same function of the whole batch.
    (whole.square().sum() / 2).backward()
    unequal = gather_to_first(torch.arange(2 + rank) + 10 * rank, torch.full((2 + rank, 1), float(rank)))
    return {
        "whole": whole.detach(),
        "labels": gather_batch(torch.tensor([rank, rank + 5])),
        "gradient": learned.grad,
        "first": unequal,
    }


def run_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_PROCESSES)
    torch.save(gathered(rank), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        multiprocessing.start_processes(run_process, (folder,), NUM_PROCESSES, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(NUM_PROCESSES)]


def test_every_process_has_the_whole_batch_in_the_same_order(processes: list[dict[str, Any]]) -> None:
    whole = torch.cat([torch.arange(6.0).reshape(3, 2) + 10 * rank for rank in range(2)])
    for process in processes:
        assert torch.equal(process["whole"], whole)
        assert process["labels"].tolist() == [0, 5, 1, 6]


def test_a_rows_gradient_averages_to_the_joint_one(
    processes: list[dict[str, Any]],
) -> None:
    for rank, process in enumerate(processes):
        assert torch.equal(process["gradient"], NUM_PROCESSES * process["whole"][3 * rank :][:3])


def test_only_the_first_process_gathers_unequal_shares(processes: list[dict[str, Any]]) -> None:
    first, second = (process["first"] for process in processes)
    assert first[0].tolist() == [0, 1, 10, 11, 12]
    assert first[1].flatten().tolist() == [0, 0, 1, 1, 1]
    assert second is None


@pytest.mark.parametrize("function", [gather_batch, lambda share: gather_to_first(share)[0]])
def test_a_process_alone_keeps_what_it_has(function: Callable[[Tensor], Tensor]) -> None:
    share = torch.randn(3, 2)
    assert not is_distributed()
    assert function(share) is share
