"""YAML and JSON files: one reader with limits for each, and errors that name file and key.

A shared file must not exhaust memory or time: size, depth and number of values are limited, and what an alias repeats
counts each time.
"""

import json
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

from ser_lightning.errors import ConfigurationError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

MOST_YAML_BYTES = 1 << 20
MOST_JSON_BYTES = 1 << 26
MOST_YAML_VALUES = 20_000
MOST_VALUES = 1_000_000
MOST_LEVELS = 50


class _Loader(SafeLoader):
    """PyYAML's safe loader; dates stay text, and a key that occurs twice or an integer beyond 64 bits is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if value.bit_length() > 64:
            raise ValueError(f"line {node.start_mark.line + 1}: an integer with more than 64 bits")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML document.

    Raises:
        ValueError: Naming the fault in one line, if it is not YAML or exceeds a limit.
    """
    try:
        _check_events(text)
        return yaml.load(text, Loader=_Loader)  # a safe loader
    except ValueError as error:  # of a limit, or of a number or date
        raise ValueError(_one_line(error)) from error
    except Exception as error:  # PyYAML raises more than YAMLError, such as IndexError for an empty !!int
        raise ValueError(_one_line(error) or type(error).__name__) from error


def _check_events(text: str) -> None:
    """Check depth and size of a YAML document before anything is built from it.

    Raises:
        ValueError: If a limit is exceeded, or a value contains itself.
        YAMLError: If it is not YAML.
    """
    sizes: dict[str, int] = {}  # values by anchor, with those that aliases repeat
    opened: list[tuple[str | None, int]] = []  # anchor of each open collection, and the values before it
    values = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            name, before = opened.pop()
            sizes[name or ""] = values - before
        elif isinstance(event, yaml.AliasEvent):
            if any(name == anchor for name, _ in opened):
                raise ValueError(f"{_line(event)}: *{anchor} contains itself")
            values += sizes.get(str(anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes[anchor or ""] = 1
        if len(opened) > MOST_LEVELS or values > MOST_YAML_VALUES:
            raise ValueError(f"{_line(event)}: more than {MOST_LEVELS} levels or {MOST_YAML_VALUES} values")


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "line unknown"


def check_extent(content: object) -> None:
    """Check depth and size of nested lists and mappings, such as those of a checkpoint.

    Raises:
        ValueError: If a limit is exceeded, as by a list that contains itself.
    """
    values = 0
    waiting = [(content, 0)]
    while waiting:
        value, level = waiting.pop()
        values += 1
        if level > MOST_LEVELS or values > MOST_VALUES:
            raise ValueError(f"more than {MOST_LEVELS} levels or {MOST_VALUES} values")
        if isinstance(value, Mapping):
            waiting.extend((inner, level + 1) for inner in value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            waiting.extend((inner, level + 1) for inner in value)


def parse_json(text: str) -> Any:
    """Return the content of a JSON document.

    Raises:
        ValueError: Naming the fault in one line, if it is not JSON or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        ValueError: Naming the fault in one line, if it is not UTF-8 text or YAML, or exceeds a limit.
        OSError: If it cannot be read.
    """
    return parse_yaml(_text(path, MOST_YAML_BYTES))


def read_json(path: Path, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        most_bytes: Largest size.

    Raises:
        ValueError: Naming the fault in one line, if it is not UTF-8 text or JSON, or exceeds a limit.
        OSError: If it cannot be read.
    """
    return parse_json(_text(path, most_bytes))


def _text(path: Path, most_bytes: int) -> str:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):  # a pipe would block
        raise ValueError("it is not a regular file")
    if status.st_size > most_bytes:
        raise ValueError(f"{status.st_size} bytes are more than {most_bytes}")
    return path.read_bytes().decode()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def schema_error(path: Path, error: "OmegaConfBaseException") -> ConfigurationError:
    """Return the error that names file, key and fault in one line."""
    return ConfigurationError(f"{path}: {error.full_key or 'top level'}: {_fault(error)}")


@contextmanager
def schema_errors(path: Path) -> Iterator[None]:
    """Turn OmegaConf's errors into one-line errors that name the file and the key.

    Raises:
        ConfigurationError: If a file's content does not match its schema.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OmegaConfBaseException as error:
        raise schema_error(path, error) from error


def read_mapping(path: Path, kind: str) -> dict[str, Any]:
    """Read a YAML file of keys with values.

    Args:
        path: The file.
        kind: Kind of file, for errors.

    Raises:
        ConfigurationError: If the file is missing, a folder, not text, not YAML, exceeds a limit, or has no keys.
        PermissionError: If it may not be read.
    """
    try:
        content = read_yaml(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(f"{path}: no such {kind}") from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{path} is a folder; give a {kind}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: top level: {type(content).__name__} does not fit; give keys with values")
    if (odd := _odd_key(content)) is not None:
        raise ConfigurationError(f"{path}: key {odd!r} is not text; quote it")
    return content


def _odd_key(content: object) -> object:
    """Return the first key of nested mappings that is not text, or None."""
    if isinstance(content, dict):
        if (odd := next((key for key in content if not isinstance(key, str)), None)) is not None:
            return odd
        content = list(content.values())
    inner = content if isinstance(content, list) else []
    return next((odd for value in inner if (odd := _odd_key(value)) is not None), None)


def load_file(path: Path, kind: str) -> "DictConfig":
    """Load a YAML file of keys with values, which may refer to each other, as in ``${corpus}``.

    Other interpolations are rejected: ``${oc.env:...}`` would copy secrets of the environment into configurations.

    Args:
        path: The file.
        kind: Kind of file, for errors.

    Raises:
        ConfigurationError: As ``read_mapping``, or naming an interpolation that is not a key.
        PermissionError: If it may not be read.
    """
    from omegaconf import OmegaConf

    content = read_mapping(path, kind)
    _check_interpolations(path, content, "")
    with schema_errors(path):
        return OmegaConf.create(content)


_REFERENCE = re.compile(r"\$\{[\w.\[\]-]+\}")


def _check_interpolations(path: Path, value: object, key: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_interpolations(path, inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_interpolations(path, inner, f"{key}[{index}]")
    elif isinstance(value, str) and "${" in _REFERENCE.sub("", value):
        raise ConfigurationError(f"{path}: {key} is '{value}'; only keys of the file are allowed in ${{...}}")


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
        content = parse_yaml(value)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {text}: the value is not YAML: {error}") from error
    _check_interpolations(path, content, key)
    try:
        OmegaConf.update(config, key, content)
    except (OmegaConfBaseException, TypeError, ValueError, IndexError, AssertionError) as error:
        raise ConfigurationError(f"{path}: {text}: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """Return the first line of the message; the rest names OmegaConf's classes."""
    return str(getattr(error, "msg", None) or error or type(error).__name__).splitlines()[0]
