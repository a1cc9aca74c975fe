"""Scores of groups of utterances, such as those of one gender."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ser_lightning.reports.document import Block, Paragraph, Picture, Section, Table
from ser_lightning.reports.figures import png
from ser_lightning.reports.forest_figure import forest_figure
from ser_lightning.reports.systems import ReportedSystem
from ser_lightning.reports.uncertainty import SCORES, Estimate, SpeakerCounts, estimate
from ser_lightning.runs.predictions import GROUP
from ser_lightning.runs.summary import corpus_title


def groups(systems: Sequence[ReportedSystem]) -> list[Section]:
    """Return UA and WA of each group with intervals, and the largest gap of each kind, if predictions have groups."""
    blocks: list[Block] = []
    for system in systems:
        rows = []
        gaps: list[str] = []
        for kind in _kinds(system):
            found = {
                value: SpeakerCounts.of(system.runs, group=(f"{GROUP}{kind}", value)) for value in _values(system, kind)
            }
            scores = {
                value: {name: estimate(counts.counts, score) for name, score in SCORES.items()}
                for value, counts in found.items()
            }
            for value, one in scores.items():
                cells = [cell for name in SCORES for cell in (f"{100 * one[name].value:.1f}", one[name].interval())]
                utterances = str(int(found[value].utterances.sum()))
                rows.append([f"{kind}: {value}", utterances, str(len(found[value].speakers)), *cells])
            ordered = sorted(scores, key=lambda value: scores[value]["UA"].value)
            gap = 100 * (scores[ordered[-1]]["UA"].value - scores[ordered[0]]["UA"].value)
            gaps.append(f"{kind}: UA of {ordered[-1]} is {gap:.1f} points above {ordered[0]}")
            if len(systems) == 1:
                blocks.append(_picture(system, kind, {value: one["UA"] for value, one in scores.items()}))
        if rows:
            headings = {"": False, "utterances": True, "speakers": True}
            headings |= {heading: True for name in SCORES for heading in (f"{name} %", f"{name}: interval")}
            who = f"{system.name}: " if len(systems) > 1 else ""
            blocks.append(Table(f"{who}Scores of groups, pooled over {system.pooled_over}", headings, rows))
            blocks.append(Paragraph(f"Largest gap of {'; '.join(gaps)}."))
    return [Section("Groups", blocks)] if blocks else []


def _kinds(system: ReportedSystem) -> list[str]:
    """Return the kinds of groups that all folds have, with at least two groups."""
    tables = [fold.predictions.table for run in system.runs for fold in run.folds]
    names = [str(name) for name in tables[0].columns if str(name).startswith(GROUP)]
    shared = [name for name in names if all(name in table.columns for table in tables)]
    return [kind for kind in (name.removeprefix(GROUP) for name in shared) if len(_values(system, kind)) > 1]


def _values(system: ReportedSystem, kind: str) -> list[str]:
    tables = (fold.predictions.table for run in system.runs for fold in run.folds)
    return sorted({value for table in tables for value in table[f"{GROUP}{kind}"].unique() if value})


def _picture(system: ReportedSystem, kind: str, scores: Mapping[str, Estimate]) -> Picture:
    chance = 1 / len(system.summary.class_names)
    title = f"{corpus_title(system.summary)}: {kind}"
    figure = forest_figure(scores, title, "UA (%), line: 95% interval", chance, f"chance {100 * chance:.3g}%")
    stem = "".join(letter if letter.isalnum() else "_" for letter in kind)
    numbers = [
        {kind: value, "UA": one.value, "low": one.low, "high": one.high, "speakers": one.speakers}
        for value, one in scores.items()
    ]
    return Picture(
        f"groups_{stem}",
        png(figure),
        "; ".join(f"{value}: UA {one.in_words()}" for value, one in scores.items()),
        f"UA by {kind}, over the classes of each group.",
        pd.DataFrame(numbers),
    )
