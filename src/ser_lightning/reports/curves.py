"""Curves: a score over a hyper-parameter, and accuracy as a function of confidence."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ser_lightning.metrics import Calibration
from ser_lightning.reports.figures import BLUE, COLOURS, GREY, MARKS, ORANGE, plain, tidy
from ser_lightning.reports.uncertainty import Estimate

FEWEST_POINTS = 3  # fewer are no curve
SCORE_COLUMNS = ("ours", "low", "high", "paper")
_ASSIGNMENT = re.compile(r"([A-Za-z]\w*)=([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Point:
    """One row of a figure.

    Attributes:
        ours: Our pooled score, or None where the row was not run.
        paper: The paper's score in percent, or None where it is not legible or on another corpus.
    """

    ours: Estimate | None
    paper: float | None


def settings(name: str) -> tuple[str, dict[str, float]]:
    """Return what a row's name says beside its hyper-parameters, and their values."""
    values = {key: float(value) for key, value in _ASSIGNMENT.findall(name)}
    return " ".join(_ASSIGNMENT.sub(" ", name).replace(",", " ").split()), values


def curve_tables(points: Mapping[str, Point]) -> dict[str, pd.DataFrame]:
    """Return the curves that rows make up, by hyper-parameter.

    A curve is at least three rows that differ in one hyper-parameter alone, of which at least two were run.

    Args:
        points: The rows by name.

    Returns:
        For each hyper-parameter a table with columns ``series`` and ``value``, scores between 0 and 1 in ``ours``,
        ``low``, ``high`` and ``paper``, and ``speakers``.
    """
    series: dict[str, dict[str, list[tuple[float, Point]]]] = {}
    for name, point in points.items():
        prefix, values = settings(name)
        for key, value in values.items():
            rest = [f"{other}={values[other]:g}" for other in values if other != key]
            series.setdefault(key, {}).setdefault(" ".join([prefix, *rest]).strip(), []).append((value, point))
    tables = {}
    for key, found in series.items():
        rows = [
            {"series": name, "value": value} | _numbers(point)
            for name, members in found.items()
            if len({value for value, _ in members}) >= FEWEST_POINTS and sum(p.ours is not None for _, p in members) > 1
            for value, point in sorted(members, key=lambda member: member[0])
        ]
        if rows:
            tables[key] = pd.DataFrame(rows).astype(dict.fromkeys(SCORE_COLUMNS, "float64"))
    return tables


def curve_figure(table: pd.DataFrame, parameter: str, metric: str, title: str) -> Figure:
    """Draw each series of a hyper-parameter's table with its intervals, and the paper's numbers.

    Args:
        table: As ``curve_tables`` returns.
        parameter: The hyper-parameter.
        metric: UA or WA.
        title: What was recognised by what.
    """
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(table["series"]))
    spread = (table["value"].max() - table["value"].min()) * 0.012
    percent = table.assign(**{column: 100 * table[column] for column in SCORE_COLUMNS})
    for index, name in enumerate(names):
        part = percent[percent["series"] == name]
        colour, mark = COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)]
        # Beside each other, lest one series's intervals hide another's.
        places = part["value"] + spread * (index - (len(names) - 1) / 2)
        axes.vlines(places, part["low"], part["high"], color=colour, linewidth=1.6, alpha=0.7)
        run = part["ours"].notna()
        axes.plot(places[run], part["ours"][run], f"{mark}-", color=colour, markersize=7, label=plain(name or "ours"))
        papers = part[part["paper"].notna()]
        label = "the paper" if index == 0 and len(papers) else "_"
        axes.plot(
            papers["value"], papers["paper"], "*", color=colour, markersize=15, markerfacecolor="white", label=label
        )
    axes.set_xlabel(plain(parameter), fontsize=12)
    axes.set_ylabel(f"pooled {metric} (%), 95% intervals", fontsize=12)
    axes.grid(axis="y", color="#eeeeee")
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    figure.suptitle(plain(title), fontsize=13)
    return figure


def _numbers(point: Point) -> dict[str, float | int | None]:
    ours, paper = point.ours, point.paper
    return {
        "ours": ours.value if ours else None,
        "low": ours.low if ours else None,
        "high": ours.high if ours else None,
        "paper": None if paper is None else paper / 100,
        "speakers": ours.speakers if ours else 0,
    }


def reliability_table(found: Calibration) -> pd.DataFrame:
    """Return a row for each bin of confidence.

    Its columns are ``from``, ``to``, ``utterances``, and the means ``confidence`` and ``accuracy`` of the bin's
    utterances, NaN in a bin without any.
    """
    columns = {
        "from": found.edges[:-1].numpy(),
        "to": found.edges[1:].numpy(),
        "utterances": found.utterances.long().numpy(),
        "confidence": found.confidence.numpy(),
        "accuracy": found.accuracy.numpy(),
    }
    return pd.DataFrame(columns)


def reliability_figure(found: Calibration, title: str) -> Figure:
    """Draw accuracy over confidence, and below it how many utterances each bin has.

    Args:
        found: Confidence and accuracy in bins.
        title: Whose probabilities they are; the expected calibration error is added.
    """
    table = reliability_table(found)
    present = table[table["utterances"] > 0]
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.5, label="as sure as right")
    confidence, accuracy = 100 * present["confidence"], 100 * present["accuracy"]
    above.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=2, label="distance")
    above.plot(confidence, accuracy, "o-", color=BLUE, markersize=7, linewidth=1.5, label="accuracy")
    above.set_xlim(0, 100)
    above.set_ylim(0, 100)
    above.set_ylabel("accuracy (%)", fontsize=12)
    above.legend(frameon=False, fontsize=11, loc="upper left")
    edges = [*(100 * table["from"]), 100 * table["to"].iloc[-1]]
    below.stairs(table["utterances"], edges, fill=True, color=BLUE, alpha=0.35)
    below.set_ylabel("utterances", fontsize=12)
    below.set_xlabel("confidence (%)", fontsize=12)
    for axes in (above, below):
        tidy(axes)
    figure.suptitle(f"{plain(title)}\nexpected calibration error {100 * found.error.item():.1f}%", fontsize=13)
    return figure
