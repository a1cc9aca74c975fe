"""A measurement and its reference."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One line of the benchmark table.

    Attributes:
        name: Name of the measurement.
        reference: Name of the reference.
        ours: Our median, in ``unit``.
        theirs: The reference's median, in ``unit``.
        ratio: Median over repetitions of ours divided by the reference in the same repetition.
        bound: Upper bound of the ratio, such as ``<= 0.25``.
        unit: Seconds, or mebibytes of memory.
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
        """Whether the ratio is within its bound."""
        return self.ratio <= float(self.bound.removeprefix("<="))


def compare(
    name: str, reference: str, ours: Callable[[], object], theirs: Callable[[], object], bound: float, repetitions: int
) -> Row:
    """Return the row of ``ours`` against ``theirs``, called alternately ``repetitions`` times after a warm-up."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repetitions + 1)][1:]
    return row_of(name, reference, pairs, bound)


def row_of(
    name: str, reference: str, pairs: Sequence[tuple[float, float]], bound: float, unit: Literal["s", "MiB"] = "s"
) -> Row:
    """Return the row of pairs of ours and the reference, each pair measured in direct succession.

    On a shared machine single times vary twofold, but other processes affect both of a pair alike: the median of the
    pairs' ratios is reliable.
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
    """Return the duration of a call of ``function``, in seconds."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def cpu_seconds_of(command: Sequence[str]) -> float:
    """Return the CPU time of ``python -m command`` and the processes that it waits for, on one thread.

    Raises:
        RuntimeError: If it fails, with its output.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    run = subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {run.returncode}: {run.stdout}{run.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def peak_mebibytes_of(function: Callable[[], object]) -> float:
    """Return the increase of this process's peak resident memory during a call of ``function``, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak to the current resident memory
    before = _status_mebibytes("VmRSS")
    function()
    return _status_mebibytes("VmHWM") - before


def _status_mebibytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))
