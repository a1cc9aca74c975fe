"""Allow-list of the classes that a YAML file or a checkpoint may name, and their public paths.

``weights_only=True`` is not enough: a checkpoint whose hyperparameters contain ``class_path: os.system`` runs a command
when the system is rebuilt. ``enforce_allow_list`` restricts jsonargparse's imports; ``check_class_paths`` checks plain
data before anything is imported, so that the error names the key.

Files on disk use public paths, as YAML files do: ``ser_lightning.systems.PooledLSTM`` stays valid when the class moves
to another module.
"""

import sys
from collections.abc import Mapping, Sequence

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
PUBLIC_MODULES = ("ser_lightning.callbacks", "ser_lightning.loggers")
"""Modules that hold nothing but public names."""
_PATH_KEYS = ("class_path", "_class_path")
OWN_PACKAGES = ("ser_lightning", "data_modules")


def public_path(kind: type) -> str:
    """Return the path of a class in files on disk: the shortest under which one of our packages exports it.

    Classes of other packages are named by their defining module, which is what ``--allow`` takes.
    """
    return shortest_path(f"{kind.__module__}.{kind.__qualname__}")


def shortest_path(path: str) -> str:
    """Return the path of one of our classes through the topmost package that exports it; other paths unchanged.

    Nothing is imported: only packages that are already imported are searched, so a moved class is found too.
    """
    module, _, name = path.rpartition(".")
    parts = module.split(".")
    if parts[0] in OWN_PACKAGES:
        around = [".".join(parts[:depth]) for depth in range(1, len(parts))]
        public = [other for other in PUBLIC_MODULES if _exports(other, name) and _class_module(other, name) == module]
        for package in [*public, *around]:
            if _exports(package, name):
                return f"{package}.{name}"
    return path


def _exports(module: str, name: str) -> bool:
    return name in getattr(sys.modules.get(module), "__all__", ())


def _class_module(module: str, name: str) -> str:
    return str(getattr(sys.modules[module], name).__module__)


def _is_allowed(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def enforce_allow_list(extra: Sequence[str] = ()) -> None:
    """Restrict jsonargparse's imports in this process to the allow-list and ``extra`` module prefixes."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*ALLOWED_PREFIXES, *extra])


def check_class_paths(configuration: object, source: str, extra: Sequence[str] = ()) -> None:
    """Reject any class path in ``configuration`` that is outside the allow-list.

    A class path without a dot is the short name of an imported class; the parser checks it.

    Args:
        configuration: Nested mappings, sequences and plain values.
        source: Where it was read, for the error.
        extra: Further trusted module prefixes.

    Raises:
        ConfigurationError: Naming the key, the class path and the option that allows it.
    """
    _walk(configuration, source, "", (*ALLOWED_PREFIXES, *extra))


def _walk(value: object, source: str, key: str, prefixes: Sequence[str]) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            inner_key = f"{key}.{name}" if key else str(name)
            if name in _PATH_KEYS and isinstance(inner, str) and "." in inner and not _is_allowed(inner, prefixes):
                raise ConfigurationError(
                    f"{source}: {inner_key} is '{inner}', which is outside the allow-list; it was not run. "
                    f"Allowed are {', '.join(ALLOWED_PREFIXES)}. If you trust it, add --allow {inner.rsplit('.', 1)[0]}"
                )
            _walk(inner, source, inner_key, prefixes)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _walk(inner, source, f"{key}[{index}]", prefixes)
