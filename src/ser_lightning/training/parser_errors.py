"""Clear errors of LightningCLI's parser, and classes named without their module."""

import functools
import inspect
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ser_lightning.allow_list import ALLOWED_PREFIXES, OWN_PACKAGES, PUBLIC_MODULES, shortest_path
from ser_lightning.errors import ConfigurationError, SerError
from ser_lightning.training.arguments import config_files, pairs

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def parser_error(message: str, arguments: Sequence[str], parser: "ArgumentParser") -> ConfigurationError:
    """Return a clear error for the parser's message.

    Args:
        message: jsonargparse's message.
        arguments: The parsed arguments.
        parser: The parser of the command.
    """
    text = _misspelt(message) or f"{_shorten_parser_message(message)}{_full_names(message, parser)}"
    return ConfigurationError(f"{_error_location(message, arguments)}: {text}")


def _misspelt(message: str) -> str:
    """Return what a message about an unknown class or argument comes to, with the nearest name; empty for others."""
    if "import_path_allowlist" in message:  # the class may exist, but is not trusted
        return ""
    if found := re.findall(r"Expected a path but (\S+) either|module '[\w.]+' has no attribute '(\w+)'", message):
        name = next(part for part in found[-1] if part)
        known = _class_paths()
        (near,) = get_close_matches(name.rpartition(".")[2].lower(), known, 1, 0.7) or [""]
        way_out = f"did you mean {known[near]}?" if near else "give a path such as ser_lightning.nn.pooling.NetVLAD"
        return f"'{name}' is not a class; {way_out}"
    if found := re.findall(r"Option '([\w.]+)' is not accepted", message):
        owner = re.findall(r"class_path '([\w.]+)'", message)[-1:]
        kind: Any = owner and _class_at(owner[0])
        accepted = list(inspect.signature(kind).parameters) if kind else []
        near_names = get_close_matches(found[-1], accepted, 1, 0.5)
        meant = f"did you mean {near_names[0]}? It has" if near_names else "it has"
        return f"{owner[0] if owner else 'the class'} has no argument '{found[-1]}'; {meant} {', '.join(accepted)}"
    return ""


def _class_paths() -> dict[str, str]:
    """Return the shortest path of each imported class that YAML may name, by its name in lower case; ours win."""
    paths: dict[type, str] = {}
    for module in sorted(sys.modules, key=lambda name: (name not in PUBLIC_MODULES, len(name))):
        if any(module == prefix or module.startswith(f"{prefix}.") for prefix in ALLOWED_PREFIXES):
            for name, value in vars(sys.modules[module]).items():
                if inspect.isclass(value) and name == value.__name__ and not name.startswith("_"):
                    paths.setdefault(value, shortest_path(f"{module}.{name}"))
    ours_last = sorted(paths.items(), key=lambda item: item[0].__module__.split(".")[0] in OWN_PACKAGES)
    return {kind.__name__.lower(): path for kind, path in ours_last}


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def prefer_own_classes() -> None:
    """Let a class name without its module mean ours, where Lightning has a class of the same name."""
    from jsonargparse import _typehints

    for module in PUBLIC_MODULES:  # config.yaml names their classes through them
        import_module(module)
    found: Any = _typehints.get_all_subclass_paths
    if hasattr(found, "__wrapped__"):
        return

    @functools.wraps(found)
    def prefer(*args: Any, **kwargs: Any) -> list[str]:
        paths = found(*args, **kwargs)
        own = {path.rpartition(".")[2] for path in paths if path.split(".")[0] in OWN_PACKAGES}
        return [path for path in paths if path.split(".")[0] in OWN_PACKAGES or path.rpartition(".")[2] not in own]

    _typehints.get_all_subclass_paths = prefer


def _shorten_parser_message(message: str) -> str:
    """Return jsonargparse's message in one line, without repeated values and type names."""
    noise = (
        "- Expected a <class 'NoneType'>",
        "Given value",
        "Subtypes:",
        "Subclass types expect",
        "- a class path (str)",
        "- a dict with",
        "Errors:",
        "Does not validate against any",
    )
    lines = (line for line in message.splitlines() if not line.strip().startswith(noise))
    hint = "Add the import path to import_path_allowlist in set_parsing_settings to allow it."
    short = " ".join(" ".join(lines).split()).replace(hint, "If you trust it, add --allow and its module.")
    return short.replace("required: save_dir", "required: save_dir (. is the fold's folder)")


def _error_location(message: str, arguments: Sequence[str]) -> str:
    """Return the argument or the files that the parser's message is about.

    Args:
        message: The parser's message.
        arguments: The parsed arguments.
    """
    files = ", ".join(map(str, config_files(arguments)))
    if message.startswith("unrecognized arguments") or not files:
        return "command line"
    # For nested keys, the message names the outermost first and the wrong one last.
    if named := re.findall(r"""(?:Parser key|Option) ["']([\w.]+)["']""", message):
        part, wrong = named[0].split(".")[0], named[-1].split(".")[-1]
        for key, value in reversed(pairs(arguments)):
            names = key.removeprefix("--").removesuffix("+").removesuffix(".class_path").split(".")
            in_value = value.startswith("{") and re.search(rf"\b{wrong}\b", value)
            if names[0] == part and (names[-1] == wrong or in_value):
                return f"command line, {key}"
    return files


def _full_names(message: str, parser: "ArgumentParser") -> str:
    """Return a hint at the options that unknown ones in the parser's message abbreviate or misspell, or nothing."""
    if not message.startswith("unrecognized arguments"):
        return ""
    known = list(parser._option_string_actions)
    wrong = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
    full = [
        name
        for key in wrong
        for name in [option for option in known if option.startswith(key)] or get_close_matches(key, known, 1)
    ]
    return f"; give the full name, {' or '.join(dict.fromkeys(full))}" if full else ""


def constructor_error(error: ValueError) -> SerError:
    """Return the error of a constructor that jsonargparse has wrapped."""
    cause: BaseException = error
    while not isinstance(cause, SerError) and (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return cause if isinstance(cause, SerError) else ConfigurationError(str(cause))
