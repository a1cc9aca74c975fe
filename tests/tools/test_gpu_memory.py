"""The memory of a training step: what is computed without a GPU, the documentation's table, and what a GPU needs."""

from pathlib import Path

import pytest
import torch

from tools.gpu_memory import MEBIBYTE, SIZES, Size, build_system, computed_memory, make_batch, table, training_step

SMALL = "huang2020/netvlad_unigram"


def test_weights_and_states_are_those_of_the_system() -> None:
    system = build_system(SMALL, torch.device("cpu"))
    memory = computed_memory(Size(SMALL, 2, 20))
    parameters = sum(parameter.nbytes for parameter in system.parameters())
    assert memory.weights == parameters + sum(buffer.nbytes for buffer in system.buffers())
    assert memory.optimizer == 2 * parameters  # two averages for each; its steps are counted on the CPU


def test_the_peak_grows_by_the_same_for_each_frame() -> None:
    first, second, third = (computed_memory(Size(SMALL, 8, frames)).peak for frames in (100, 200, 300))
    assert second - first == pytest.approx(third - second, rel=0.01)
    # At least the frames, their states and what the LSTM's gates keep.
    assert second - first > 4 * 8 * 100 * (147 + 6 * 64)


@pytest.mark.slow
@pytest.mark.usefixtures("all_layers")
def test_the_documentation_has_the_table(repository: Path) -> None:
    assert table() in (repository / "docs" / "scaling.md").read_text()


@pytest.mark.gpu
@pytest.mark.usefixtures("all_layers")
@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.experiment)
def test_a_gpu_needs_little_more_than_was_computed(size: Size) -> None:
    device = torch.device("cuda", 0)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    system = build_system(size.experiment, device)
    optimizer = system.optimizer(weight for weight in system.parameters() if weight.requires_grad)
    batch = make_batch(system, size.batch, size.frames)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        training_step(system, optimizer, batch)
    needed = torch.cuda.max_memory_allocated() - before
    assert needed <= 1.5 * computed_memory(size).peak + 256 * MEBIBYTE
