"""Curves: score over a hyper-parameter, and accuracy over confidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ser_lightning.metrics import Calibration
from ser_lightning.reports.figures import BLUE, COLOURS, GREY, MARKS, ORANGE, plain, tidy
from ser_lightning.reports.systems import Configured
from ser_lightning.reports.uncertainty import Estimate
from ser_lightning.runs.configuration import CHECKPOINT_KEYS_END

MIN_POINTS = 3  # of a curve
SCORE_COLUMNS = ("ours", "low", "high", "paper")


@dataclass(frozen=True)
class Point:
    """One configuration and its score.

    Attributes:
        configured: The configuration.
        ours: Our pooled score, or None if not run.
        paper: The paper's score in percent, or None if unknown or on another corpus.
    """

    configured: Configured
    ours: Estimate | None
    paper: float | None


def curve_tables(points: Sequence[Point]) -> dict[str, pd.DataFrame]:
    """Return the curves of configurations by hyper-parameter.

    A curve consists of at least three configurations of one experiment and corpus that differ only in one number, at
    least two of them run.

    Args:
        points: The configurations with their scores.

    Returns:
        For each hyper-parameter a table with columns ``series``, ``value``, ``ours``, ``low``, ``high``, ``paper``
        (scores between 0 and 1) and ``speakers``. Its name is the last part of the key, or the full key if ambiguous.
    """
    by_experiment: dict[tuple[str, ...], list[Point]] = {}
    for point in points:
        by_experiment.setdefault(point.configured.names, []).append(point)
    curves: dict[str, list[tuple[tuple[str, ...], Mapping[str, object], list[tuple[float, Point]]]]] = {}
    for names, members in by_experiment.items():
        varied = _varied([point.configured.settings for point in members])
        for key in varied:
            series: dict[str, tuple[Mapping[str, object], list[tuple[float, Point]]]] = {}
            for point in members:
                settings = {other: point.configured.settings.get(other) for other in varied}
                value = settings.pop(key)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    series.setdefault(repr(settings), (settings, []))[1].append((float(value), point))
            for others, found in series.values():
                distinct = {value for value, _ in found}
                if len(distinct) >= MIN_POINTS and sum(point.ours is not None for _, point in found) > 1:
                    curves.setdefault(key, []).append((names, others, sorted(found, key=lambda pair: pair[0])))
    tables = {}
    last_parts = [_last_part(key) for key in curves]
    for key, lines in curves.items():
        differing = [len(set(parts)) > 1 for parts in zip(*(names for names, _, _ in lines), strict=True)]
        rows = [
            {"series": _in_words(names, differing, others), "value": value} | _numbers(point)
            for names, others, found in lines
            for value, point in found
        ]
        name = key if last_parts.count(_last_part(key)) > 1 else _last_part(key)
        tables[name] = pd.DataFrame(rows).astype(dict.fromkeys(SCORE_COLUMNS, "float64"))
    return tables


def _varied(configurations: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the keys in which configurations differ, except those of source checkpoints."""
    keys = dict.fromkeys(key for settings in configurations for key in settings)
    return [
        key
        for key in keys
        if not key.endswith(CHECKPOINT_KEYS_END) and len({repr(settings.get(key)) for settings in configurations}) > 1
    ]


def _in_words(names: Sequence[str], differing: Sequence[bool], others: Mapping[str, object]) -> str:
    """Return the label of a series: the names that differ, and the values of other hyper-parameters."""
    parts = [name for name, differs in zip(names, differing, strict=True) if differs]
    parts += [f"{_last_part(key)}={value}" for key, value in others.items() if value is not None]
    return ", ".join(parts)


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def curve_figure(table: pd.DataFrame, parameter: str, metric: str, title: str) -> Figure:
    """Draw each series of a hyper-parameter's table with intervals, and the paper's scores.

    Args:
        table: A table of ``curve_tables``.
        parameter: The hyper-parameter.
        metric: UA or WA.
        title: Title.
    """
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(table["series"]))
    spread = (table["value"].max() - table["value"].min()) * 0.012
    percent = table.assign(**{column: 100 * table[column] for column in SCORE_COLUMNS})
    for index, name in enumerate(names):
        part = percent[percent["series"] == name]
        colour, mark = COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)]
        # Shift the series so that their intervals do not overlap.
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
    """Return one row per confidence bin: ``from``, ``to``, ``utterances``, mean ``confidence`` and ``accuracy``.

    The means of empty bins are NaN.
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
    """Draw accuracy over confidence, and below it the number of utterances per bin.

    Args:
        found: Confidence and accuracy in bins.
        title: Title; the expected calibration error is added.
    """
    table = reliability_table(found)
    present = table[table["utterances"] > 0]
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.5, label="perfectly calibrated")
    confidence, accuracy = 100 * present["confidence"], 100 * present["accuracy"]
    above.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=2, label="gap")
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
