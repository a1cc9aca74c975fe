"""How a system is computed, beside what the trainer decides; its results stay the same within rounding."""

import os
from collections.abc import Iterator

import torch
from torch import nn
from torchmetrics import Metric

from ser_lightning.errors import ConfigurationError


class Execution:
    """What a trainer file may ask of the layers, whatever the system.

    Args:
        channels_last: Keep maps of convolutions with their channels innermost, which cuDNN and oneDNN compute faster.
        compile: Translate layers by ``torch.compile`` when they are first used. It takes about a minute, and a compiler
            of the machine; lengths of utterances may vary without translating anew.
    """

    def __init__(self, channels_last: bool = False, compile: bool = False) -> None:
        self.channels_last = channels_last
        self.compile = compile

    def prepare(self, system: nn.Module) -> None:
        """Make a system's layers so; names and values of its weights do not change."""
        if self.channels_last:
            system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        if self.compile:
            for layer in _called(system):
                layer.compile(dynamic=True)


def _called(system: nn.Module) -> Iterator[nn.Module]:
    """Return the layers with weights that a system calls: of a list, which is only gone through, those in it."""
    for layer in system.children():
        if isinstance(layer, nn.ModuleList):
            yield from _called(layer)
        elif not isinstance(layer, Metric) and any(True for _ in layer.parameters()):
            yield layer


def threads_of_environment() -> int:
    """Return OMP_NUM_THREADS, or 1: on busy cores a second thread made training six times slower.

    Raises:
        ConfigurationError: If it is not a number of threads.
    """
    value = os.environ.get("OMP_NUM_THREADS") or "1"
    if not value.isdecimal() or int(value) < 1:
        raise ConfigurationError(f"OMP_NUM_THREADS is '{value}': give one number of threads, such as 1")
    return int(value)
