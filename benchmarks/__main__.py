"""``make bench``: run all benchmarks and print one table; the exit status is 1 if a bound is exceeded."""

import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import benchmarks.batches
import benchmarks.features
import benchmarks.layers
import benchmarks.losses
import benchmarks.start
import benchmarks.training
from benchmarks.row import Row

PARTS: tuple[tuple[str, Callable[[], list[Row]]], ...] = (
    ("features", benchmarks.features.rows),
    ("batches", benchmarks.batches.rows),
    ("layers", benchmarks.layers.rows),
    ("losses", benchmarks.losses.rows),
    ("training", benchmarks.training.rows),
    ("start of a process", benchmarks.start.rows),
)


def main() -> int:
    """Run all benchmarks, print the table, and return the exit status."""
    torch.set_num_threads(1)
    progress = Console(stderr=True, highlight=False)
    started = time.monotonic()
    rows: list[Row] = []
    for number, (name, measure) in enumerate(PARTS, start=1):
        progress.print(f"{number} of {len(PARTS)}: measuring {name} ({time.monotonic() - started:.0f} s so far)")
        rows += measure()
    # Not a terminal: a log, whose lines must not wrap at 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table(rows))
    exceeded = [row.name for row in rows if not row.holds]
    if exceeded:
        console.print(
            f"Bounds exceeded: {'; '.join(exceeded)}. Other processes disturb such short measurements: check the "
            "machine's load, and measure again."
        )
    return 1 if exceeded else 0


def table(rows: list[Row]) -> Table:
    """Return ``rows`` as a table."""
    made = Table(title=f"one thread, torch {torch.__version__}; medians of runs taken in turn with the reference")
    for heading in ("measured", "reference"):
        made.add_column(heading)
    for heading in ("ours", "reference's", "ratio", "bound", "holds"):
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(
            row.name,
            row.reference,
            _measure(row.ours, row.unit),
            _measure(row.theirs, row.unit),
            f"{row.ratio:.3f}",
            row.bound,
            "yes" if row.holds else "[red]no[/red]",
        )
    return made


def _measure(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} {unit}"


if __name__ == "__main__":
    sys.exit(main())
