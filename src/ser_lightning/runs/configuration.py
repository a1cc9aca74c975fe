"""Compare resolved configurations: which keys make two runs different."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ABSENT = "absent"  # shown for a missing key
CHECKPOINT_KEYS_END = "_checkpoint"  # suffix of the keys of checkpoints that a run starts from

# Keys that do not change the result: names, paths, hardware, and what is displayed.
_IRRELEVANT = (
    "data.init_args.root",
    "data.init_args.feature_folder",
    "data.init_args.protocol.init_args.lists",  # its content is in the split hash
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


_PRECISION = "32-true"  # Lightning's default; trainer files state it


@dataclass(frozen=True)
class Difference:
    """A key whose value differs between two configurations; ``str`` gives a line for an error message.

    Attributes:
        key: The full dotted key.
        there: ``repr`` of the earlier value, or ``ABSENT``.
        now: ``repr`` of the later value, or ``ABSENT``.
    """

    key: str
    there: str
    now: str

    def __str__(self) -> str:
        """Return the key and both values."""
        return f"  {self.key}: {self.there} there, {self.now} now"


def relevant(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that affect the result, by dotted key."""
    return {
        key: value
        for key, value in flatten(configuration)
        if not any(key == name or key.startswith(name + ".") for name in _IRRELEVANT)
    }


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return the keys that affect the result and differ between two resolved configurations."""
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
    """Return ``differences`` as lines of text."""
    return [str(difference) for difference in differences(earlier, now)]


def _same(key: str, left: object, right: object) -> bool:
    if key.endswith(CHECKPOINT_KEYS_END) and isinstance(left, str) and isinstance(right, str):
        return Path(left).resolve() == Path(right).resolve()
    if key == "trainer.precision":
        return (left or _PRECISION) == (right or _PRECISION)
    return left == right


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with their dotted keys."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{key}.{name}" if key else str(name))
    elif key != "config":
        yield key, value
