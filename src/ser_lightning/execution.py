"""How a system is computed, beside what the trainer decides; its results stay the same within rounding."""

import torch
from torch import nn
from torchmetrics import Metric


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
            for layer in system.children():
                if not isinstance(layer, Metric) and any(True for _ in layer.parameters()):
                    layer.compile(dynamic=True)
