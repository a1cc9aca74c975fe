"""Parameters of a sweep in W&B's format, drawn by Optuna.

Names are LightningCLI's keys, such as ``model.init_args.dropout``; groups (``parameters`` inside a parameter) are
flattened.
"""

import itertools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import flatten

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

DISTRIBUTIONS = (
    *("constant", "categorical", "categorical_w_probabilities", "uniform", "log_uniform_values"),
    *("q_uniform", "q_log_uniform_values", "int_uniform"),
)
_INSTEAD = {
    "log_uniform": "log_uniform_values, whose min and max are values instead of exponents",
    "q_log_uniform": "q_log_uniform_values, whose min and max are values instead of exponents",
}
_FIELDS = {
    "constant": {"value"},
    "categorical": {"values"},
    "categorical_w_probabilities": {"values", "probabilities"},
    "q_uniform": {"min", "max", "q"},
    "q_log_uniform_values": {"min", "max", "q"},
}


MOST_GRID_VALUES = 10_000  # of one parameter


@dataclass(frozen=True)
class Categorical:
    """One of several values; a constant has one value.

    Attributes:
        values: The values, of any YAML type.
        probabilities: The probability of each value; empty if all are equally likely.
    """

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] = ()

    def grid(self, name: str) -> Sequence[Any]:
        """Return every value.

        Raises:
            ConfigurationError: If they have probabilities.
        """
        if self.probabilities:
            raise ConfigurationError(f"parameters.{name}: a grid ignores probabilities; remove them")
        return self.values

    def draw(self, trial: "BaseTrial", name: str) -> Any:
        """Return the trial's value."""
        if len(self.values) == 1:
            return self.values[0]
        if self.probabilities:
            # Optuna's categories are equally likely, so a number between 0 and 1 selects the value.
            drawn = trial.suggest_float(name, 0.0, 1.0)
            bounds = itertools.accumulate(self.probabilities[:-1])
            return self.values[sum(drawn >= bound for bound in bounds)]
        # As JSON: Optuna treats 1, 1.0 and true as equal, and does not accept lists.
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in self.values]))


@dataclass(frozen=True)
class Range:
    """A number from a closed interval.

    Attributes:
        low: The lower bound.
        high: The upper bound.
        is_integer: Whether only integers are drawn.
        is_log: Whether the logarithm is uniformly distributed.
        step: Drawn numbers are rounded to a multiple of it in the interval; None: not rounded.
    """

    low: float
    high: float
    is_integer: bool = False
    is_log: bool = False
    step: float | None = None

    def grid(self, name: str) -> Sequence[Any]:
        """Return every number.

        Raises:
            ConfigurationError: If the range is continuous, or has too many numbers.
        """
        if self.is_integer:
            _check_grid(name, self.high - self.low + 1)
            return range(int(self.low), int(self.high) + 1)
        if self.step is None or self.is_log:
            raise ConfigurationError(f"parameters.{name}: a grid needs values, an int_uniform or a q_uniform")
        # As in W&B, without the end: min, min + q, and so on below max.
        _check_grid(name, (self.high - self.low) / self.step)
        count = math.ceil((self.high - self.low) / self.step - 1e-9)
        return [_multiple(self.low + self.step * index, self.step) for index in range(count)]

    def draw(self, trial: "BaseTrial", name: str) -> Any:
        """Return the trial's number."""
        if self.is_integer:
            return trial.suggest_int(name, int(self.low), int(self.high))
        drawn = trial.suggest_float(name, self.low, self.high, log=self.is_log)
        if self.step is None:
            return drawn
        first, last = _multiples(self.low, self.high, self.step)
        return _multiple(min(max(round(drawn / self.step), first), last) * self.step, self.step)


Parameter = Categorical | Range


def read_parameters(content: Mapping[str, Any], group: str = "") -> dict[str, Parameter]:
    """Read W&B's ``parameters``, and those of the groups among them.

    Args:
        content: The file's entries by name.
        group: Prefix of the group, with a dot.

    Raises:
        ConfigurationError: Naming a parameter that cannot be drawn.
    """
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"parameters.{group}{content!r:.100} is not a group of parameters")
    found: dict[str, Parameter] = {}
    for key, entry in content.items():
        name = f"{group}{key}"
        if not isinstance(entry, Mapping):
            raise ConfigurationError(f"parameters.{name}: {entry!r} is not a parameter; write {{value: {entry!r}}}")
        inner = (
            read_parameters(entry["parameters"], f"{name}.") if "parameters" in entry else {name: _read(name, entry)}
        )
        if repeated := sorted(set(found) & set(inner)):
            raise ConfigurationError(f"parameters.{repeated[0]} occurs twice, by itself and in a group")
        found |= inner
    return found


def _read(name: str, entry: Mapping[str, Any]) -> Parameter:
    kind = entry.get("distribution") or _kind(entry)
    if kind not in DISTRIBUTIONS:
        instead = _INSTEAD.get(str(kind), ", ".join(DISTRIBUTIONS))
        raise ConfigurationError(f"parameters.{name}: distribution {kind!r} is not supported; use {instead}")
    allowed = _FIELDS.get(kind, {"min", "max"})
    if odd := sorted(set(entry) - allowed - {"distribution"}):
        raise ConfigurationError(f"parameters.{name}.{odd[0]} is not a key of {kind}: {', '.join(sorted(allowed))}")
    if missing := sorted(allowed - set(entry) - {"q"}):
        raise ConfigurationError(f"parameters.{name}.{missing[0]} is missing; {kind} needs it")
    if kind == "constant":
        return Categorical((entry["value"],))
    if kind.startswith("categorical"):
        return _read_choices(name, entry)
    return _read_range(name, kind, entry)


def _kind(entry: Mapping[str, Any]) -> str:
    """Return W&B's default distribution for an entry without one."""
    if "value" in entry:
        return "constant"
    if "values" in entry:
        return "categorical_w_probabilities" if "probabilities" in entry else "categorical"
    both_integer = all(isinstance(entry.get(key), int) for key in ("min", "max"))
    return "int_uniform" if both_integer else "uniform"


def _read_choices(name: str, entry: Mapping[str, Any]) -> Categorical:
    values, shares = entry["values"], entry.get("probabilities", [])
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ConfigurationError(f"parameters.{name}.values is {values!r}; it must be a list of at least one value")
    if "probabilities" in entry and not (
        isinstance(shares, Sequence) and all(_is_number(share) and share >= 0 for share in shares)
    ):
        raise ConfigurationError(f"parameters.{name}.probabilities is {shares!r}; it must be a list of numbers from 0")
    if "probabilities" in entry and (len(shares) != len(values) or not math.isclose(sum(shares), 1.0, abs_tol=1e-6)):
        raise ConfigurationError(
            f"parameters.{name}.probabilities is {shares!r}; it must hold a number for each of the {len(values)} "
            "values, with sum 1"
        )
    return Categorical(tuple(values), tuple(float(share) for share in shares))


def _read_range(name: str, kind: str, entry: Mapping[str, Any]) -> Range:
    numbers = {key: entry[key] for key in ("min", "max", "q") if key in entry}
    wanted = int if kind == "int_uniform" else (int, float)
    for key, value in numbers.items():
        if not isinstance(value, wanted) or not _is_number(value):
            wanted_type = "an integer" if wanted is int else "a number"
            raise ConfigurationError(f"parameters.{name}.{key} is {value!r}; {kind} needs {wanted_type}")
    low, high, step = numbers["min"], numbers["max"], numbers.get("q", 1.0)
    is_log = "log" in kind
    if low >= high:
        raise ConfigurationError(f"parameters.{name}: min {low} must be less than max {high}")
    if is_log and low <= 0:
        raise ConfigurationError(f"parameters.{name}.min is {low}; {kind} needs a min above 0")
    if step <= 0:
        raise ConfigurationError(f"parameters.{name}.q is {step}; it must be above 0")
    if kind.startswith("q_") and operator.gt(*_multiples(low, high, step)):
        raise ConfigurationError(f"parameters.{name}.q is {step}, but no multiple of it is between {low} and {high}")
    return Range(low, high, kind == "int_uniform", is_log, step if kind.startswith("q_") else None)


def _check_grid(name: str, count: float) -> None:
    if count > MOST_GRID_VALUES:
        raise ConfigurationError(f"parameters.{name}: a grid of {count:.6g} values; {MOST_GRID_VALUES} are the most")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _multiples(low: float, high: float, step: float) -> tuple[int, int]:
    """Return the first and last multiple of ``step`` between ``low`` and ``high``, in steps."""
    return math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)


def _multiple(value: float, step: float) -> float:
    """Return a multiple of ``step`` without rounding errors: 0.3, not 0.30000000000000004."""
    return round(value) if isinstance(step, int) else float(f"{value:.12g}")


def as_arguments(parameters: Mapping[str, Any]) -> list[str]:
    """Return LightningCLI's arguments for a trial's parameters."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in flatten(parameters)]
