"""Which classes a YAML or a checkpoint may name, checked before anything is imported or built.

``weights_only=True`` is no boundary: a checkpoint whose hyperparameters hold ``class_path: os.system`` runs a command
when the system is rebuilt from them. jsonargparse has an import policy, which ``enforce_allow_list`` closes to our
list; ``refuse_foreign_classes`` walks plain data first, so that the error names the place.
"""

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
_PATH_KEYS = ("class_path", "_class_path")


def _is_allowed(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def enforce_allow_list(extra: Sequence[str] = ()) -> None:
    """Let jsonargparse import only what the allow-list and ``extra`` (module prefixes) name, in this whole process."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*ALLOWED_PREFIXES, *extra])


def refuse_foreign_classes(configuration: object, source: str, extra: Sequence[str] = ()) -> None:
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
