"""Atomic file writes, CSV files, folder walks, and structured YAML files with errors that name file and key."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.text import to_cell

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

UNFINISHED_PREFIX = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically.

    The bytes are written and synced to a hidden file in the same folder, which is then renamed. A killed process leaves
    at most a file that begins with ``UNFINISHED_PREFIX``, which nothing reads.

    Args:
        path: The file; its folder is created if missing.
        content: The whole file.

    Raises:
        OSError: If the folder cannot be written or the disk is full; it names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{UNFINISHED_PREFIX}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        # The error of a write has no file name, and that of an open has the hidden one.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)  # the rename changes the folder, which must be synced too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def csv_file(table: "pd.DataFrame", digits: int = 9) -> bytes:
    """Return ``table`` as a CSV file that no spreadsheet runs: see ``text.to_cell``.

    Args:
        table: Text and numbers; the index is not written.
        digits: Significant digits of numbers; 9 restore a float32.
    """
    cells = table.map(lambda cell: to_cell(cell) if isinstance(cell, str) else cell).rename(columns=to_cell)
    return cells.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n").encode()


# Folders that file systems keep at the root of a disk, often unreadable.
_OF_FILE_SYSTEMS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})


def files_below(root: Path, *, only_readable: bool = False) -> Iterator[Path]:
    """Yield the files in and below ``root``, folder by folder, sorted within each.

    Links are followed and each real folder is read once. Hidden folders and those of the file system, such as
    lost+found, are skipped.

    Args:
        root: The folder to start from.
        only_readable: Skip unreadable folders.

    Raises:
        CorpusError: If ``root`` or a folder below it cannot be read, unless ``only_readable``.
    """

    def reject(error: OSError) -> None:
        raise CorpusError(
            f"{error.filename}: this folder cannot be read ({error.strerror}), so its files would be missing. "
            f"Make it readable, such as by `chmod -R u+rX`, or move it out of {root}."
        ) from error

    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=None if only_readable else reject, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in _OF_FILE_SYSTEMS)
        yield from (Path(folder, name) for name in sorted(files))


def schema_error(path: Path, error: "OmegaConfBaseException") -> ConfigurationError:
    """Return the error that names file, key and fault in one line."""
    return ConfigurationError(f"{path}: {error.full_key or 'top level'}: {_fault(error)}")


@contextmanager
def yaml_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn errors of reading and validating a YAML file into one-line errors that name it.

    Args:
        path: The file.
        kind: Kind of file, for errors.

    Raises:
        ConfigurationError: If the file is missing, a folder, not text, not YAML, or does not match its schema.
        PermissionError: If it may not be read.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(f"{path}: no such {kind}") from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{path} is a folder; give a {kind}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not a YAML file: {error}") from error
    except OmegaConfBaseException as error:
        raise schema_error(path, error) from error
    except PermissionError:
        raise
    except OSError as error:  # OmegaConf raises it for a file that holds one number
        raise ConfigurationError(f"{path}: {error}; give keys with values") from error


def load_file(path: Path, kind: str) -> "DictConfig":
    """Load a YAML file of keys with values.

    Args:
        path: The file.
        kind: Kind of file, for errors.

    Raises:
        ConfigurationError: If the file is missing, a folder, not text, not YAML, or has no keys.
        PermissionError: If it may not be read.
    """
    from omegaconf import DictConfig, OmegaConf

    with yaml_errors(path, kind):
        content = OmegaConf.load(path)
    if not isinstance(content, DictConfig):
        raise ConfigurationError(f"{path}: top level: a list does not fit; give keys with values")
    return content


def check_keys(path: Path, schema: type, content: "DictConfig", place: str = "", named: str = "") -> None:
    """Reject the first key of ``content`` that does not match the schema; a whole merge would not name the key.

    Args:
        path: The file.
        schema: Dataclass of the keys.
        content: The loaded content.
        place: Key of ``content`` in the file, if it is not the whole file.
        named: Another name of that key, in parentheses.

    Raises:
        ConfigurationError: Naming file, key and fault.
    """
    from omegaconf import ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    empty = OmegaConf.structured(schema)
    for key in map(str, content):
        at = f"{place}.{key}" if place else key
        try:
            OmegaConf.merge(empty, OmegaConf.masked_copy(content, key))
        except OmegaConfBaseException as error:
            inner = (error.full_key or key).removeprefix(key)
            raise ConfigurationError(f"{path}: {at}{inner}{named}: {_fault(error)}") from error
        except TypeError as error:  # a list instead of a mapping, or the reverse
            fault = "a list does not fit" if isinstance(content.get(key), ListConfig) else "keys with values do not fit"
            raise ConfigurationError(f"{path}: {at}{named}: {fault}") from error


def override(path: Path, config: "DictConfig", text: str) -> None:
    """Set one key of a file's content.

    Args:
        path: The file.
        config: Its content, under its schema.
        text: ``key=value``; list entries count from 0, such as ``rows.0.note=new``.

    Raises:
        ConfigurationError: Naming the file, the override and the fault.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigurationError(f"{path}: '{text}' is not key=value")
    try:
        OmegaConf.update(config, key, yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: {text}: the value is not YAML") from error
    except (OmegaConfBaseException, TypeError, ValueError, IndexError, AssertionError) as error:
        raise ConfigurationError(f"{path}: {text}: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """Return the first line of the message; the rest names OmegaConf's classes."""
    return str(getattr(error, "msg", None) or error or type(error).__name__).splitlines()[0]
