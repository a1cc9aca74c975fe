"""Arguments and files of an experiment, and the ``execution`` section."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import read_mapping
from ser_lightning.runs.names import LARGEST_SEED
from ser_lightning.training.experiment_files import check_kind

if TYPE_CHECKING:
    import torch
    from torch import nn

_PARTS = ("model", "data")
_CONFIG = ("-c", "--config")
# Arguments that the parser answers without an experiment.
_HELP_OPTIONS = ("-h", "--help", "--print_config")


def config_files(arguments: Sequence[str]) -> list[Path]:
    """Return the files given by ``--config`` or ``-c`` among LightningCLI's arguments, in order."""
    return [Path(value) for key, value in pairs(arguments) if key in _CONFIG]


def corpus_argument(arguments: Sequence[str]) -> list[str]:
    """Return the argument that names the data module's class, to precede all others; empty if no file needs it.

    A system's file sets arguments of the data module, such as the batch size, but the corpus's file after it names the
    class. The parser reads from left to right and rejects arguments of an unknown class.

    Args:
        arguments: LightningCLI's arguments.

    Raises:
        ConfigurationError: If the system or the corpus is missing, or the first file, which names the run, is not the
            system's; also as ``read_experiment_file``.
    """
    found = {part: _classes(arguments, part) for part in _PARTS}
    files = config_files(arguments)
    if not any(argument.startswith(_HELP_OPTIONS) or ".help" in argument for argument in arguments):
        _check_classes(found, files)
    return [f"--data={found['data'][0][1]}"] if files and found["data"] else []


def _check_classes(found: Mapping[str, Sequence[tuple[Path | None, str]]], files: Sequence[Path]) -> None:
    missing = [part for part in _PARTS if not found[part]]
    if missing:
        where = ", ".join(map(str, files)) or "no experiment is given"
        keys = " and ".join(f"{part}.class_path" for part in missing)
        way_out = (
            "add its corpus's file, such as --config experiments/huang2020/ravdess.yaml"
            if files and missing == ["data"]
            else "name an experiment's YAML: --config experiments/....yaml"
        )
        raise ConfigurationError(f"{where}: neither a file nor an argument has {keys}; {way_out}")
    system, _ = found["model"][0]
    if system in files[1:]:
        raise ConfigurationError(
            f"{files[0]}: model.class_path is missing, but the first file names the run; give --config {system} first"
        )


def _classes(arguments: Sequence[str], part: str) -> list[tuple[Path | None, str]]:
    """Return each class given for ``model`` or ``data``, in order, with its file or None for an argument."""
    found: list[tuple[Path | None, str]] = []
    for key, value in pairs(arguments):
        if key in _CONFIG:
            content = read_experiment_file(Path(value)).get(part)
            name = content.get("class_path") if isinstance(content, Mapping) else content
            found += [(Path(value), name)] if isinstance(name, str) else []
        elif key in (f"--{part}", f"--{part}.class_path"):
            found.append((None, value))
    return found


def read_experiment_file(path: Path) -> Mapping[str, Any]:
    """Read a YAML file of an experiment or of a trainer.

    Raises:
        ConfigurationError: If it does not exist, is not a YAML file, or does not hold keys.
    """
    content = read_mapping(path, "experiment file; `ser experiments` lists and copies them")
    check_kind(path, content, "an experiment")
    return content


def check_seed(arguments: Sequence[str]) -> None:
    """Check the seed in files and arguments; a run's folder bears its name, so it must be a number.

    Raises:
        ConfigurationError: Naming the file or argument, and the value.
    """
    given: list[tuple[str, object]] = []
    for key, value in pairs(arguments):
        if key in _CONFIG:
            content = read_experiment_file(Path(value))
            given += [(f"{value}: seed_everything", content["seed_everything"])] if "seed_everything" in content else []
        elif key == "--seed_everything":
            given.append((key, int(value) if re.fullmatch(r"-?[0-9]{1,19}", value) else value))
    for place, seed in given:
        if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:  # True is an int
            raise ConfigurationError(f"{place} is {seed}; a seed is a number from 0 to {LARGEST_SEED}")


def pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Return key and value of each argument, given as one word or two."""
    found = []
    for index, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        if key.startswith("-") and (equals or index + 1 < len(arguments)):
            found.append((key, value if equals else arguments[index + 1]))
    return found


class Execution:
    """Execution options of a system's layers and batches, set by trainer files.

    Args:
        channels_last: Keep feature maps in channels-last memory format, which is faster in cuDNN and oneDNN.
        compile: Compile layers with ``torch.compile`` on first use. It takes about a minute and needs a C++ compiler;
            new lengths do not recompile.
        tf32: On GPUs that have it, let float32 convolutions and LSTMs round their inputs to 10 bits of mantissa
            (TF32), which is torch's default. Other matrix products stay in float32.
        held_gib: Hold frames on a GPU, up to this many GiB in each process; 0 holds none. Sets that fit are copied
            once and batches gathered there, with the same numbers; others are copied batch by batch.

    Raises:
        ConfigurationError: If ``held_gib`` is negative.
    """

    def __init__(
        self, channels_last: bool = False, compile: bool = False, tf32: bool = True, held_gib: float = 2.0
    ) -> None:
        if not held_gib >= 0:
            raise ConfigurationError(f"execution.held_gib is {held_gib}; give 0 or more GiB")
        self.held_gib = held_gib
        self.channels_last = channels_last
        self.compile = compile
        self.tf32 = tf32

    def prepare(self, system: "nn.Module") -> None:
        """Apply the options to a system's layers and to torch; names and values of its weights do not change."""
        import torch

        cudnn: Any = torch.backends.cudnn  # torch's stub lacks the attributes
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "tf32" if self.tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        if self.channels_last:
            system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        if self.compile:
            for layer in _layers_with_weights(system):
                layer.compile(dynamic=True)

    def precision(self, precision: str, device: "torch.device") -> str:
        """Describe the precision of a run.

        Args:
            precision: Lightning's ``trainer.precision``.
            device: The device that computes.
        """
        import torch

        rounds = self.tf32 and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return f"{precision}, TF32 in convolutions and LSTMs" if rounds and precision != "64-true" else precision


def _layers_with_weights(system: "nn.Module") -> Iterator["nn.Module"]:
    """Yield a system's layers that have weights; of a module list, the layers in it."""
    from torch import nn
    from torchmetrics import Metric

    for layer in system.children():
        if isinstance(layer, nn.ModuleList):
            yield from _layers_with_weights(layer)
        elif not isinstance(layer, Metric) and any(True for _ in layer.parameters()):
            yield layer


def threads_of_environment() -> int:
    """Return OMP_NUM_THREADS, or 1: on busy cores, a second thread made training six times slower.

    Raises:
        ConfigurationError: If it is not a number of threads.
    """
    value = os.environ.get("OMP_NUM_THREADS") or "1"
    if not value.isdecimal() or int(value) < 1:
        raise ConfigurationError(f"OMP_NUM_THREADS is '{value}'; give one number of threads, such as 1")
    return int(value)
