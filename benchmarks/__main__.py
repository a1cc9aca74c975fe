"""``make bench``: run the benchmarks and print one table; the exit status is 1 if a bound is exceeded."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table

import benchmarks.batches
import benchmarks.features
import benchmarks.growth
import benchmarks.layers
import benchmarks.losses
import benchmarks.start
import benchmarks.training
import benchmarks.whole_process
from benchmarks.row import Row


def parts(options: argparse.Namespace) -> dict[str, Callable[[], list[Row]]]:
    """Return the measurements by name."""
    return {
        "features": benchmarks.features.rows,
        "batches": benchmarks.batches.rows,
        "layers": benchmarks.layers.rows,
        "losses": benchmarks.losses.rows,
        "training": benchmarks.training.rows,
        "whole": lambda: benchmarks.whole_process.rows(options.repetitions or benchmarks.whole_process.REPETITIONS),
        "growth": lambda: benchmarks.growth.rows(
            options.growth[0], options.growth[1], options.repetitions or benchmarks.growth.REPETITIONS
        ),
        "start": lambda: benchmarks.start.rows(options.repetitions or benchmarks.start.REPETITIONS),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help="features, batches, layers, losses, training, whole, growth or start")
    parser.add_argument(
        "--growth",
        nargs=2,
        type=int,
        default=(benchmarks.growth.FEWEST, benchmarks.growth.MOST),
        metavar="N",
        help="utterances of the two corpora of growth (default: %(default)s)",
    )
    parser.add_argument("--repetitions", type=int, metavar="N", help="runs of each whole process")
    options = parser.parse_args(arguments)
    every = parts(options)
    if unknown := set(options.parts) - set(every):
        parser.error(f"{', '.join(sorted(unknown))} is not one of {', '.join(every)}")
    torch.set_num_threads(1)
    progress = Console(stderr=True, highlight=False)
    started = time.monotonic()
    rows: list[Row] = []
    for name in options.parts or every:
        progress.print(f"measuring {name} ({time.monotonic() - started:.0f} s so far)")
        rows += every[name]()
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
