"""GPU memory of a training step of each system as its paper describes it, computed: ``python -m tools.gpu_memory``.

Needs no GPU. Counts tensors in float32. CUDA's context (about 0.5 GB), the workspaces of cuDNN and what torch's
allocator keeps in reserve are not included.
"""

import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ser_lightning.features import build_extractor
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.types import Batch
from tools.simulated_device import simulated_device

EXPERIMENTS = Path("experiments")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Size:
    """The size of a system's largest training step.

    Attributes:
        experiment: The system's file in ``experiments/``, without ``.yaml``.
        batch: Utterances of a batch.
        frames: Frames of the longest utterance.
    """

    experiment: str
    batch: int
    frames: int


# The longest clips of RAVDESS (with Mocanu's silence removed), Zhou's 7.5 s, nine seconds of IEMOCAP for Ando, and the
# crops of VoxCeleb2.
SIZES = (
    Size("huang2020/netvlad_unigram", 32, 525),
    Size("zhou2020/baseline", 32, 750),
    Size("zhou2020/combined_pooling", 32, 750),
    Size("ando2019/mlee", 16, 900),
    Size("ando2019/fusion_soft", 16, 900),
    Size("mocanu2021/s1_scratch", 32, 321),
    Size("mocanu2021/s5_emotion_constraint", 32, 321),
    Size("mocanu2021/speaker_id_ghostvlad", 64, 250),
)


@dataclass(frozen=True)
class Memory:
    """GPU memory of a training, in bytes.

    Attributes:
        weights: Parameters and buffers.
        optimizer: States of the optimiser.
        peak: The most that a training step needs, with weights, states, gradients and batch.
    """

    weights: int
    optimizer: int
    peak: int


def build_system(
    experiment: str,
    device: torch.device,
    num_features: int | None = None,
    class_names: Sequence[str] = EMOTIONS,
    **changes: Any,
) -> EmotionClassifier:
    """Build the system of a file in ``experiments/``.

    Args:
        experiment: The file, without ``.yaml``.
        device: Where its weights are made.
        num_features: F; None takes the number of the experiment's extractor.
        class_names: The classes.
        changes: Arguments of the system that differ from the file's.
    """
    content = yaml.safe_load((EXPERIMENTS / f"{experiment}.yaml").read_text())
    if num_features is None:
        num_features = build_extractor(content["data"]["init_args"]["extractor"]).num_features
    given = {"num_features": num_features, "class_names": list(class_names)}
    configuration = {**content["model"], "init_args": content["model"]["init_args"] | given | changes}
    configuration["init_args"].pop("scheduler", None)  # some need a corpus's file
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(EmotionClassifier, "system")
    with device:
        system: EmotionClassifier = parser.instantiate_classes(parser.parse_object({"system": configuration})).system
    system.configuration = configuration
    return system


def make_batch(system: EmotionClassifier, size: int, frames: int) -> Batch:
    """Return a batch of noise with utterances of ``frames`` frames and less, on the system's device."""
    noise = torch.Generator().manual_seed(0)
    lengths = torch.linspace(frames, max(1, frames // 2), size).long()
    inputs = torch.rand(size, frames, system.num_features, generator=noise)
    inputs.masked_fill_(torch.arange(frames)[:, None] >= lengths[:, None, None], 0.0)
    labels = torch.arange(size) % len(system.class_names)
    targets = torch.nn.functional.one_hot(labels, len(system.class_names)).float()
    return Batch(inputs, lengths, labels, targets, torch.arange(size)).to(system.class_prior.device)


class _PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts the bytes of the storages that tensors of a device have at once."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def add(self, tensors: object) -> None:
        """Count the storages of ``tensors`` until they are freed."""
        for tensor in tree_iter(tensors):
            if not isinstance(tensor, Tensor) or tensor.device.type != self.device.type:
                continue
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self._counted:
                self._counted.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._remove, key, storage.nbytes())
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and count its results."""
        result = func(*args, **kwargs or {})
        self.add(result)
        return result


def training_step(system: EmotionClassifier, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Train ``system`` on a batch."""
    torch.autograd.backward(system.training_step(batch, 0))
    optimizer.step()
    optimizer.zero_grad()


def computed_memory(size: Size) -> Memory:
    """Return the memory of a training with batches of a size."""
    with simulated_device() as device:
        system = build_system(size.experiment, device)
        batch = make_batch(system, size.batch, size.frames)
        weights = [*system.parameters(), *system.buffers()]
        optimizer = system.optimizer(weight for weight in system.parameters() if weight.requires_grad)
        training_step(system, optimizer, batch)  # the optimiser makes its states
        states = [value for state in optimizer.state.values() for value in state.values()]
        with _PeakMemory(device) as memory:
            memory.add(weights)
            held = memory.now
            memory.add(states)
            states_bytes = memory.now - held
            memory.add([batch.inputs, batch.targets])
            training_step(system, optimizer, batch)
    return Memory(held, states_bytes, memory.peak)


def table() -> str:
    """Return the table of docs/scaling.md."""
    lines = ["| experiment | batch x frames | weights | optimiser | peak of a step |", "|---|---|---|---|---|"]
    for size in SIZES:
        memory = computed_memory(size)
        numbers = (memory.weights, memory.optimizer, memory.peak)
        cells = " | ".join(f"{number / MEBIBYTE:,.1f} MiB" for number in numbers[:2])
        lines.append(
            f"| `{size.experiment}.yaml` | {size.batch} x {size.frames} | {cells} | {numbers[2] / MEBIBYTE:,.0f} MiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module=r".*jsonargparse.*|__main__")
    print(table())
