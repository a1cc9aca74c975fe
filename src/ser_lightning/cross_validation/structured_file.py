"""How a table, sweep or measurement file is read, and what is said of one that does not fit its schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ser_lightning.errors import ConfigurationError


def misfit(path: Path, error: OmegaConfBaseException) -> ConfigurationError:
    """Return the error that names file, key and fault in one line."""
    return ConfigurationError(f"{path}: {error.full_key or 'top level'}: {_fault(error)}")


@contextmanager
def named_faults(path: Path, kind: str) -> Iterator[None]:
    """Name the file in what goes wrong within, while it is read and held against its schema.

    Args:
        path: The file.
        kind: What it is, for errors.

    Raises:
        ConfigurationError: If it is not there, is a folder, no text, no YAML, or does not fit its schema.
        PermissionError: If it may not be read.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(f"{path}: no such {kind}") from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{path} is a folder; give a {kind}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); save it so"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from error
    except OmegaConfBaseException as error:
        raise misfit(path, error) from error
    except PermissionError:
        raise
    except OSError as error:  # OmegaConf's of a file that is one number
        raise ConfigurationError(f"{path}: {error}; give keys with values") from error


def load_file(path: Path, kind: str) -> DictConfig:
    """Load a YAML file of keys with values.

    Args:
        path: The file.
        kind: What it is, for errors.

    Raises:
        ConfigurationError: If it is not there, is a folder, no text, no YAML, or holds no keys.
        PermissionError: If it may not be read.
    """
    with named_faults(path, kind):
        content = OmegaConf.load(path)
    if not isinstance(content, DictConfig):
        raise ConfigurationError(f"{path}: top level: a list does not fit; give keys with values")
    return content


def check_keys(path: Path, schema: type, content: DictConfig, place: str = "", named: str = "") -> None:
    """Refuse the first key of ``content`` that does not fit; merging everything would not say which one it is.

    Args:
        path: The file.
        schema: Dataclass of the keys.
        content: What was loaded.
        place: Key that it stands under, if it is not the whole file.
        named: How else the place is known, in parentheses.

    Raises:
        ConfigurationError: Naming file, key and fault.
    """
    empty = OmegaConf.structured(schema)
    for key in map(str, content):
        at = f"{place}.{key}" if place else key
        try:
            OmegaConf.merge(empty, OmegaConf.masked_copy(content, key))
        except OmegaConfBaseException as error:
            inner = (error.full_key or key).removeprefix(key)
            raise ConfigurationError(f"{path}: {at}{inner}{named}: {_fault(error)}") from error
        except TypeError as error:  # a list in the place of a mapping, or the reverse
            fault = "a list does not fit" if isinstance(content.get(key), ListConfig) else "keys with values do not fit"
            raise ConfigurationError(f"{path}: {at}{named}: {fault}") from error


def override(path: Path, config: DictConfig, text: str) -> None:
    """Set one key of a file's content.

    Args:
        path: The file.
        config: Its content, under its schema.
        text: ``key=value``; entries of a list are counted from 0, such as ``rows.0.note=new``.

    Raises:
        ConfigurationError: Naming the file, the override and the fault.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigurationError(f"{path}: '{text}' is no key=value")
    try:
        OmegaConf.update(config, key, yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: {text}: the value is no YAML") from error
    except (OmegaConfBaseException, TypeError, ValueError, IndexError, AssertionError) as error:
        raise ConfigurationError(f"{path}: {text}: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """Return the first line: what follows names OmegaConf's classes."""
    return str(getattr(error, "msg", None) or error or type(error).__name__).splitlines()[0]
