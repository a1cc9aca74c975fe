"""Resolved configurations: what of them makes two runs different."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ABSENT = "absent"  # in place of a value that a configuration does not have
CHECKPOINT_KEYS_END = "_checkpoint"  # how the keys end of checkpoints that a run starts from

# What may differ between two runs that are the same: their names, where things are, what computes, and what is shown.
_IRRELEVANT = (
    "data.init_args.root",
    "data.init_args.feature_folder",
    "data.init_args.workers",
    "execution",
    "run",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.logger",
    "trainer.default_root_dir",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
)


_PRECISION = "32-true"  # Lightning's own, which trainer files state


@dataclass(frozen=True)
class Difference:
    """A key that two configurations have otherwise; as text it is a line of an error.

    Attributes:
        key: The key, from the top, with dots.
        there: Its value in the earlier one as Python writes it, or ``ABSENT``.
        now: Its value in the later one.
    """

    key: str
    there: str
    now: str

    def __str__(self) -> str:
        """Say both values."""
        return f"  {self.key}: {self.there} there, {self.now} now"


def relevant(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's plain values by key, without those that do not matter for the result."""
    return {
        key: value
        for key, value in flatten(configuration)
        if not any(key == name or key.startswith(name + ".") for name in _IRRELEVANT)
    }


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between two resolved configurations and matters for the result."""
    left, right = relevant(earlier), relevant(now)
    nothing = object()

    def shown(value: object) -> str:
        return ABSENT if value is nothing else repr(value)

    return [
        Difference(key, shown(left.get(key, nothing)), shown(right.get(key, nothing)))
        for key in sorted({*left, *right})
        if not _same(key, left.get(key, nothing), right.get(key, nothing))
    ]


def differing_keys(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for each key that differs between two resolved configurations and matters for the result."""
    return [str(difference) for difference in differences(earlier, now)]


def _same(key: str, left: object, right: object) -> bool:
    if key.endswith(CHECKPOINT_KEYS_END) and isinstance(left, str) and isinstance(right, str):
        return Path(left).resolve() == Path(right).resolve()  # a file, however it is spelt
    if key == "trainer.precision":
        return (left or _PRECISION) == (right or _PRECISION)
    return left == right


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Return the plain values in nested mappings, with their keys from the top, joined by dots."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{key}.{name}" if key else str(name))
    elif key != "config":
        yield key, value
