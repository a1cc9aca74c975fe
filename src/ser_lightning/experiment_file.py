"""The files and arguments that an experiment is made of, and errors about them in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ser_lightning.errors import ConfigurationError, SerError

_STRATEGY = "--trainer.strategy"


def config_files(arguments: Sequence[str]) -> list[Path]:
    """Return the files behind ``--config`` or ``-c`` among LightningCLI's arguments, in order."""
    return [Path(value) for key, value in _pairs(arguments) if key in ("-c", "--config")]


def chosen_strategy(arguments: Sequence[str]) -> Any:
    """Return what the last of LightningCLI's arguments or files to say so has as ``trainer.strategy``; None if none.

    Args:
        arguments: LightningCLI's arguments.

    Raises:
        ConfigurationError: As ``read_experiment_file``.
    """
    chosen = None
    for key, value in _pairs(arguments):
        if key in ("-c", "--config"):
            trainer = read_experiment_file(Path(value)).get("trainer") or {}
            chosen = trainer.get("strategy", chosen)
        elif key == _STRATEGY or key.startswith(f"{_STRATEGY}."):
            chosen = value
    return None if chosen == "auto" else chosen


def read_experiment_file(path: Path) -> Mapping[str, Any]:
    """Read a YAML file of an experiment or of a trainer.

    Raises:
        ConfigurationError: If it is not there, is no YAML, or holds no keys.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path}: no such experiment file ({error.strerror}); see experiments/") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{path} holds no keys; an experiment needs at least model and data")
    return content


def readable(message: str) -> str:
    """Leave out of jsonargparse's message what repeats the value or speaks of types."""
    noise = ("- Expected a <class 'NoneType'>", "Given value", "Subtypes:", "Errors:", "Does not validate against any")
    lines = (line for line in message.splitlines() if not line.strip().startswith(noise))
    hint = "Add the import path to import_path_allowlist in set_parsing_settings to allow it."
    return "\n".join(lines).replace(hint, "If you trust it, add --allow and its module.")


def first_cause(error: ValueError) -> SerError:
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
