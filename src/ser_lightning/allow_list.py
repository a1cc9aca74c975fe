"""Which classes a YAML or a checkpoint may name, checked before anything is imported or built, and by which paths.

``weights_only=True`` is no boundary: a checkpoint whose hyperparameters hold ``class_path: os.system`` runs a command
when the system is rebuilt from them. jsonargparse has an import policy, which ``enforce_allow_list`` closes to our
list; ``check_class_paths`` walks plain data first, so that the error names the place.

Files on disk name classes by public paths, as YAMLs do: ``ser_lightning.systems.PooledLSTM`` stays where it is when the
module that holds the class moves.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ser_lightning.errors import ConfigurationError

ALLOWED_PREFIXES = (
    "ser_lightning",
    "data_modules",
    "torch.nn",
    "torch.optim",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
)
_PATH_KEYS = ("class_path", "_class_path")
_OWN_PACKAGES = ("ser_lightning", "data_modules")


def public_path(kind: type) -> str:
    """Return the path by which files on disk name a class: the shortest that a package of ours exports it under.

    Classes of other packages are named by the module that they are defined in, which is what ``--allow`` admits.
    """
    return shortest_path(f"{kind.__module__}.{kind.__qualname__}")


def shortest_path(path: str) -> str:
    """Return the path of a class of ours by the highest package above it that exports the name; other paths as is.

    Nothing is imported; what is no longer at ``path`` is found where a package that was imported exports it.
    """
    module, _, name = path.rpartition(".")
    parts = module.split(".")
    if parts[0] in _OWN_PACKAGES:
        for depth in range(1, len(parts)):
            package = ".".join(parts[:depth])
            if name in getattr(sys.modules.get(package), "__all__", ()):
                return f"{package}.{name}"
    return path


def with_public_paths(configuration: Any) -> Any:
    """Return nested mappings, lists and plain values with every class path of ours as ``shortest_path`` gives it."""
    if isinstance(configuration, Mapping):
        return {
            key: shortest_path(value) if key in _PATH_KEYS and isinstance(value, str) else with_public_paths(value)
            for key, value in configuration.items()
        }
    return [with_public_paths(value) for value in configuration] if isinstance(configuration, list) else configuration


def _is_allowed(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def enforce_allow_list(extra: Sequence[str] = ()) -> None:
    """Let jsonargparse import only what the allow-list and ``extra`` (module prefixes) name, in this whole process."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*ALLOWED_PREFIXES, *extra])


def check_class_paths(configuration: object, source: str, extra: Sequence[str] = ()) -> None:
    """Walk nested ``configuration`` and refuse any class path outside the allow-list.

    A class path without a dot is the short name of a class that is imported already, and is left to the parser.

    Args:
        configuration: Nested mappings, sequences and plain values.
        source: Where it was read, for the error.
        extra: Further module prefixes that the user trusts.

    Raises:
        ConfigurationError: Naming the key, the class path and the flag that admits it.
    """
    _walk(configuration, source, "", (*ALLOWED_PREFIXES, *extra))


def _walk(value: object, source: str, key: str, prefixes: Sequence[str]) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            inner_key = f"{key}.{name}" if key else str(name)
            if name in _PATH_KEYS and isinstance(inner, str) and "." in inner and not _is_allowed(inner, prefixes):
                raise ConfigurationError(
                    f"{source}: {inner_key} is '{inner}', which is outside the allow-list; nothing of it was run. "
                    f"Allowed are {', '.join(ALLOWED_PREFIXES)}. If you trust it, add --allow {inner.rsplit('.', 1)[0]}"
                )
            _walk(inner, source, inner_key, prefixes)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _walk(inner, source, f"{key}[{index}]", prefixes)
