"""The files and arguments that make up an experiment, how it is computed, and clear errors about them."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ser_lightning.errors import ConfigurationError, SerError

if TYPE_CHECKING:
    from torch import nn

_PARTS = ("model", "data")
_CONFIG = ("-c", "--config")
# Arguments that ask about the parser, which answers without an experiment.
_QUESTIONS = ("-h", "--help", "--print_config")


def config_files(arguments: Sequence[str]) -> list[Path]:
    """Return the files behind ``--config`` or ``-c`` among LightningCLI's arguments, in order."""
    return [Path(value) for key, value in _pairs(arguments) if key in _CONFIG]


def with_corpus_first(arguments: Sequence[str]) -> list[str]:
    """Return LightningCLI's arguments, the data module's class named before the first file.

    A system's file holds arguments of the data module, such as the batch size, and a corpus's file after it names the
    class. The parser reads from left to right and takes no argument of a class that it does not know yet.

    Args:
        arguments: LightningCLI's arguments.

    Raises:
        ConfigurationError: If neither a file nor an argument names the system or the corpus, or the first file, which
            a run is named after, is not the system's; also as ``read_experiment_file``.
    """
    found = {part: _classes(arguments, part) for part in _PARTS}
    if not any(argument.startswith(_QUESTIONS) or ".help" in argument for argument in arguments):
        _check_classes(found, config_files(arguments))
    first = next((place for place, one in enumerate(arguments) if one.partition("=")[0] in _CONFIG), None)
    if first is None or not found["data"]:
        return list(arguments)
    return [*arguments[:first], f"--data={found['data'][0][1]}", *arguments[first:]]


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
            f"{files[0]}: model.class_path is missing, and a run is named after its first file; give --config {system} "
            "first"
        )


def _classes(arguments: Sequence[str], part: str) -> list[tuple[Path | None, str]]:
    """Return each class that is named for ``model`` or ``data``, in order, with its file or None for an argument."""
    found: list[tuple[Path | None, str]] = []
    for key, value in _pairs(arguments):
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
        ConfigurationError: If it is not there, is no YAML, or holds no keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: no such experiment file ({error.strerror}); see experiments/") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{path} holds no keys; an experiment needs at least model and data")
    return content


def shorten_parser_message(message: str) -> str:
    """Leave out of jsonargparse's message what repeats the value or speaks of types."""
    noise = ("- Expected a <class 'NoneType'>", "Given value", "Subtypes:", "Errors:", "Does not validate against any")
    lines = (line for line in message.splitlines() if not line.strip().startswith(noise))
    hint = "Add the import path to import_path_allowlist in set_parsing_settings to allow it."
    return "\n".join(lines).replace(hint, "If you trust it, add --allow and its module.")


def error_location(message: str, arguments: Sequence[str]) -> str:
    """Return where what the parser refuses was given: in an argument, as far as its message tells, or in the files.

    Args:
        message: The parser's.
        arguments: What it has parsed.
    """
    files = ", ".join(map(str, config_files(arguments)))
    if message.startswith("unrecognized arguments") or not files:
        return "command line"
    # Of nested keys the message names the outermost first and the wrong one last.
    if named := re.findall(r"""(?:Parser key|Option) ["']([\w.]+)["']""", message):
        part, wrong = named[0].split(".")[0], named[-1].split(".")[-1]
        for key, value in reversed(_pairs(arguments)):
            names = key.removeprefix("--").removesuffix(".class_path").split(".")
            in_value = value.startswith("{") and re.search(rf"\b{wrong}\b", value)
            if names[0] == part and (names[-1] == wrong or in_value):
                return f"command line, {key}"
    return files


def constructor_error(error: ValueError) -> SerError:
    """Return what a constructor had to say, which jsonargparse wraps into a page about types."""
    cause: BaseException = error
    while not isinstance(cause, SerError) and (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return cause if isinstance(cause, SerError) else ConfigurationError(str(cause))


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Return key and value of each argument, which may stand in one word or in two."""
    found = []
    for index, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        if key.startswith("-") and (equals or index + 1 < len(arguments)):
            found.append((key, value if equals else arguments[index + 1]))
    return found


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

    def prepare(self, system: "nn.Module") -> None:
        """Make a system's layers so; names and values of its weights do not change."""
        import torch

        if self.channels_last:
            system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        if self.compile:
            for layer in _called(system):
                layer.compile(dynamic=True)


def _called(system: "nn.Module") -> Iterator["nn.Module"]:
    """Return the layers with weights that a system calls: of a list, which is only gone through, those in it."""
    from torch import nn
    from torchmetrics import Metric

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
