"""Estimates with their intervals, one row each: systems, differences of pairs, groups of utterances."""

from collections.abc import Collection, Mapping

from matplotlib.figure import Figure

from ser_lightning.reports.figures import BLUE, GREY, ORANGE, plain, tidy
from ser_lightning.reports.uncertainty import Estimate


def forest_figure(
    rows: Mapping[str, Estimate],
    title: str,
    label: str,
    line: float,
    line_label: str,
    marked: Collection[str] = (),
    is_difference: bool = False,
) -> Figure:
    """Draw estimates as dots and their 95% intervals as lines, the first on top.

    Args:
        rows: The estimates by name, between -1 and 1.
        title: Title.
        label: Label of the axis; values are drawn in percent.
        line: Value of the dotted vertical line, such as chance or no difference.
        line_label: Its meaning.
        marked: Names that are drawn in another colour.
        is_difference: Whether values have a sign; otherwise the axis begins at 0.
    """
    height = 1.5 + 0.34 * len(rows)
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(100 * line, color=GREY, linestyle=":", linewidth=1.5, label=line_label)
    for place, (name, one) in enumerate(reversed(list(rows.items()))):
        colour = ORANGE if name in marked else BLUE
        if one.low is not None and one.high is not None:
            axes.hlines(place, 100 * one.low, 100 * one.high, color=colour, linewidth=2)
        axes.plot(100 * one.value, place, "s" if name in marked else "o", markersize=7, color=colour, clip_on=False)
    axes.set_yticks(range(len(rows)), [plain(name) for name in reversed(list(rows))], fontsize=11)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    if not is_difference:
        axes.set_xlim(0, None)
    axes.set_xlabel(label, fontsize=12)
    axes.grid(axis="y", color="#eeeeee")
    tidy(axes)
    figure.suptitle(plain(title), fontsize=13)
    figure.legend(loc="outside lower center", frameon=False, fontsize=11)
    return figure
