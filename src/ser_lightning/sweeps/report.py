"""Show the trials of a sweep as a table and as a figure."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich.table import Table
from rich.text import Text

from ser_lightning.reports.figures import BLUE, GREY, ORANGE, plain, tidy
from ser_lightning.runs.names import in_words

COMPLETE = "complete"
_COLUMNS = 3
_MANY_TICKS = 8
_SLANT = 30


@dataclass(frozen=True)
class TrialRecord:
    """A trial as shown in reports.

    Attributes:
        number: Number of the trial.
        parameters: Value by LightningCLI's key; empty before it starts.
        state: ``complete``, ``stopped early``, ``failed``, ``running`` or ``waiting``.
        objective: Mean validation score over its folds, between 0 and 1; None if there is none yet.
        row: Row of its runs.
        note: Reason of a failure.
    """

    number: int
    parameters: dict[str, Any]
    state: str
    objective: float | None
    row: str = ""
    note: str = field(default="", compare=False)


def varied_parameters(records: Sequence[TrialRecord]) -> list[str]:
    """Return the parameters that differ between trials, in the file's order."""
    names = dict.fromkeys(name for record in records for name in record.parameters)
    begun = [record.parameters for record in records if record.parameters]
    return [name for name in names if len({json.dumps(parameters.get(name)) for parameters in begun}) > 1]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique suffix of each key."""

    def ending(name: str, parts: int) -> str:
        return ".".join(name.replace(".init_args", "").split(".")[-parts:])

    short = {}
    for name in names:
        parts = 1
        while parts < name.count(".") + 1 and sum(ending(other, parts) == ending(name, parts) for other in names) > 1:
            parts += 1
        short[name] = ending(name, parts)
    return short


def trials_table(title: str, objective: str, records: Sequence[TrialRecord], best: int | None) -> Table:
    """Return the trials as a table, best first, trials without an objective last.

    Args:
        title: Title of the table.
        objective: Name of the objective.
        records: The trials.
        best: Number of the winner.
    """
    names = varied_parameters(records)
    table = Table(title=Text(title, "table.title"), title_justify="left", caption_justify="left")
    table.add_column("trial", justify="right")
    for name in short_names(names).values():
        table.add_column(name, overflow="fold")
    table.add_column(f"{objective}, %", justify="right")
    table.add_column("")
    table.add_column("row", no_wrap=True)
    for record in sorted(records, key=lambda record: (record.state != COMPLETE, -(record.objective or 0.0))):
        values = [in_words(record.parameters[name]) if name in record.parameters else "" for name in names]
        score = "" if record.objective is None else f"{100 * record.objective:.2f}"
        state = "best" if record.number == best else record.state
        style = "bold" if record.number == best else None if record.state == COMPLETE else "dim"
        note = f"{state}: {record.note}" if record.note else state
        table.add_row(str(record.number), *values, score, note, record.row, style=style)
    return table


def parameter_figure(
    title: str,
    objective: str,
    records: Sequence[TrialRecord],
    best: int | None,
    logarithmic: Collection[str] = (),
) -> Figure:
    """Draw the objective against each varied parameter, one dot per trial.

    Args:
        title: Title of the figure.
        objective: Name of the objective.
        records: The trials; those without an objective are left out.
        best: Number of the best trial, which is circled.
        logarithmic: Parameters with a logarithmic axis.
    """
    drawn = [record for record in records if record.objective is not None]
    names = varied_parameters(drawn) or varied_parameters(records) or [""]
    rows, columns = -(-len(names) // _COLUMNS), min(len(names), _COLUMNS)
    figure = Figure(figsize=(0.8 + 3.6 * columns, 0.9 + 3.1 * rows), layout="constrained")
    short = short_names(names)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(names):
            axes.set_visible(False)
            continue
        name = names[place]
        present = [record for record in drawn if name in record.parameters]
        if name in logarithmic:
            axes.set_xscale("log")
        positions = _positions([record.parameters[name] for record in present], axes)
        for state, colour, label in ((True, BLUE, "all folds"), (False, GREY, "stopped early")):
            found = [index for index, record in enumerate(present) if (record.state == COMPLETE) is state]
            axes.plot(
                [positions[index] for index in found],
                [100 * (present[index].objective or 0.0) for index in found],
                "o",
                color=colour,
                markersize=6,
                alpha=0.75,
                label=label if found else None,
            )
        for index, record in enumerate(present):
            if record.number == best:
                ring = axes.plot(
                    [positions[index]], [100 * (record.objective or 0.0)], "o", markersize=13, label="best"
                )
                ring[0].set(markerfacecolor="none", markeredgecolor=ORANGE, markeredgewidth=1.8)
        axes.set_xlabel(plain(short[name]), fontsize=11)
        tidy(axes)
    for row in grid:
        row[0].set_ylabel(f"{objective}, %", fontsize=11)
    handles, labels = grid[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=11)
    figure.suptitle(plain(title), fontsize=13)
    return figure


def _positions(values: Sequence[Any], axes: Axes) -> list[float]:
    """Return each value's position on the horizontal axis, and label the axis if there are few distinct values.

    Values that are not numbers are ordered by first occurrence.
    """
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = [float(value) for value in values]
        distinct = sorted(set(numbers))
        if len(distinct) < min(len(numbers), _MANY_TICKS + 1):
            axes.set_xticks(distinct, [f"{number:.3g}" for number in distinct])
            axes.xaxis.set_minor_formatter(NullFormatter())
        return numbers
    words = list(dict.fromkeys(in_words(value) for value in values))
    rotation = 90 if len(words) > _MANY_TICKS else _SLANT if max(map(len, words)) > 6 else 0
    labels = [plain(word.replace(" ", "\n")) for word in words]
    slanted = rotation == _SLANT  # such a label ends at its tick
    mode, alignment = ("anchor", "right") if slanted else ("default", "center")
    axes.set_xticks(range(len(words)), labels, rotation=rotation, ha=alignment, rotation_mode=mode)
    axes.set_xlim(-0.5, len(words) - 0.5)
    return [float(words.index(in_words(value))) for value in values]
