"""A measurement beside its named reference."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the benchmark table.

    Attributes:
        name: What was measured.
        reference: What it is measured against.
        ours_seconds: Median time of ours.
        reference_seconds: Median time of the reference.
        ratio: Median over repetitions of ours divided by the reference, both taken in the same repetition.
        bound: What the ratio must keep to, such as ``<= 0.25``.
    """

    name: str
    reference: str
    ours_seconds: float
    reference_seconds: float
    ratio: float
    bound: str

    @property
    def holds(self) -> bool:
        """Whether the ratio keeps to its bound."""
        return self.ratio <= float(self.bound.removeprefix("<="))


def compare(
    name: str, reference: str, ours: Callable[[], object], theirs: Callable[[], object], bound: float, repetitions: int
) -> Row:
    """Return the row of ``ours`` against ``theirs``, called in turn, ``repetitions`` times each after one to warm up.

    On a shared machine single times vary twofold; neighbours disturb both of a pair alike, so the median of the pairs'
    ratios is what can be trusted.
    """
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(repetitions + 1)][1:]
    return Row(
        name,
        reference,
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
        f"<= {bound:g}",
    )


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
