"""A measurement beside its named reference."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One line of the benchmark table.

    Attributes:
        name: What was measured.
        reference: What it is measured against.
        ours: Median of ours, in ``unit``.
        theirs: Median of the reference, in ``unit``.
        ratio: Median over repetitions of ours divided by the reference, both taken in the same repetition.
        bound: What the ratio must keep to, such as ``<= 0.25``.
        unit: What is measured: seconds, or mebibytes of memory.
    """

    name: str
    reference: str
    ours: float
    theirs: float
    ratio: float
    bound: str
    unit: Literal["s", "MiB"] = "s"

    @property
    def holds(self) -> bool:
        """Whether the ratio keeps to its bound."""
        return self.ratio <= float(self.bound.removeprefix("<="))


def compare(
    name: str, reference: str, ours: Callable[[], object], theirs: Callable[[], object], bound: float, repetitions: int
) -> Row:
    """Return the row of ``ours`` against ``theirs``, called in turn ``repetitions`` times, after once to warm up."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repetitions + 1)][1:]
    return row_of(name, reference, pairs, bound)


def row_of(
    name: str, reference: str, pairs: Sequence[tuple[float, float]], bound: float, unit: Literal["s", "MiB"] = "s"
) -> Row:
    """Return the row of ``pairs`` of ours and the reference's, each measured one right after the other.

    On a shared machine single times vary twofold; neighbours disturb both of a pair alike, so the median of the pairs'
    ratios is what can be trusted.
    """
    return Row(
        name,
        reference,
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
        f"<= {bound:g}",
        unit,
    )


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call of ``function`` takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
