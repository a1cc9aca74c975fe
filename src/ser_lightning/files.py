"""Atomic file writes, folder walks, and structured YAML files with errors that name file and key."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ser_lightning.errors import ConfigurationError, CorpusError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

UNFINISHED_PREFIX = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader, crash or power cut ever meets a part of it.

    The bytes go to a hidden file in the same folder (a rename across file systems is a copy), reach the disk, and only
    then take the name. An older file of that name stays until that moment. A process killed in between leaves at most
    a file that begins with ``UNFINISHED_PREFIX``, which nothing reads.

    Args:
        path: Where the file shall be; its folder is made if missing.
        content: The whole file.

    Raises:
        OSError: If the folder cannot be written or the disk is full, which names ``path``; the unfinished file is
            removed then.
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
        # Writing names no file, and opening a name that nobody knows.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)  # the name is part of the folder, and must reach the disk as well
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# What file systems keep at the root of a disk, and nobody may read, or should.
_OF_FILE_SYSTEMS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})


def files_below(root: Path, *, only_readable: bool = False) -> Iterator[Path]:
    """Return the files in and below ``root``, folder by folder, sorted within each.

    Links are followed, a folder that is reached twice is read once, and hidden folders are left out, as are those that
    a file system keeps for itself, such as lost+found.

    Args:
        root: Where to begin.
        only_readable: Pass over folders that cannot be read.

    Raises:
        CorpusError: If ``root`` or a folder below it cannot be read; what lies there would be missing in silence.
    """

    def refuse(error: OSError) -> None:
        raise CorpusError(
            f"{error.filename}: this folder cannot be read ({error.strerror}), and what lies in it would be missing. "
            f"Make it readable, such as by `chmod -R u+rX`, or move it out of {root}."
        ) from error

    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=None if only_readable else refuse, followlinks=True):
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
    """Name the file in what goes wrong within, while it is read and held against its schema.

    Args:
        path: The file.
        kind: What it is, for errors.

    Raises:
        ConfigurationError: If it is not there, is a folder, no text, no YAML, or does not fit its schema.
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
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); save it so"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from error
    except OmegaConfBaseException as error:
        raise schema_error(path, error) from error
    except PermissionError:
        raise
    except OSError as error:  # OmegaConf's of a file that is one number
        raise ConfigurationError(f"{path}: {error}; give keys with values") from error


def load_file(path: Path, kind: str) -> "DictConfig":
    """Load a YAML file of keys with values.

    Args:
        path: The file.
        kind: What it is, for errors.

    Raises:
        ConfigurationError: If it is not there, is a folder, no text, no YAML, or holds no keys.
        PermissionError: If it may not be read.
    """
    from omegaconf import DictConfig, OmegaConf

    with yaml_errors(path, kind):
        content = OmegaConf.load(path)
    if not isinstance(content, DictConfig):
        raise ConfigurationError(f"{path}: top level: a list does not fit; give keys with values")
    return content


def check_keys(path: Path, schema: type, content: "DictConfig", place: str = "", named: str = "") -> None:
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
        except TypeError as error:  # a list in the place of a mapping, or the reverse
            fault = "a list does not fit" if isinstance(content.get(key), ListConfig) else "keys with values do not fit"
            raise ConfigurationError(f"{path}: {at}{named}: {fault}") from error


def override(path: Path, config: "DictConfig", text: str) -> None:
    """Set one key of a file's content.

    Args:
        path: The file.
        config: Its content, under its schema.
        text: ``key=value``; entries of a list are counted from 0, such as ``rows.0.note=new``.

    Raises:
        ConfigurationError: Naming the file, the override and the fault.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

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
