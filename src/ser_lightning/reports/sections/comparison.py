"""Comparisons: with the paper, between systems, and over hyper-parameters."""

import math
from collections.abc import Sequence

import pandas as pd

from ser_lightning.metrics import recalls
from ser_lightning.reports.curves import Point, curve_figure, curve_tables
from ser_lightning.reports.document import Block, Folded, Paragraph, Picture, Section, Table
from ser_lightning.reports.figures import png
from ser_lightning.reports.forest_figure import forest_figure
from ser_lightning.reports.paired_tests import (
    MAX_SYSTEMS_IN_ALL_PAIRS,
    SIGNIFICANT,
    ComparedSystem,
    PairedTest,
    paired_tests,
    same_speakers,
)
from ser_lightning.reports.sections.overview import number_of_folds
from ser_lightning.reports.systems import AbsentRow, PaperResult, ReportedSystem
from ser_lightning.reports.terminal import mean_and_spread, mean_and_spread_in_words
from ser_lightning.reports.uncertainty import (
    SCORES,
    Estimate,
    SpeakerCounts,
    estimate,
    estimate_recall_change,
)
from ser_lightning.runs.summary import corpus_title


def comparison_with_papers(systems: Sequence[ReportedSystem], absent: Sequence[AbsentRow] = ()) -> list[Section]:
    """Return our scores with the papers' and the differences, if a paper has any.

    Args:
        systems: The finished systems.
        absent: Rows of the table that were not run, or that the paper only quotes.
    """
    every = [published for system in systems for published in system.published] + [row.published for row in absent]
    if not every:
        return []
    metrics = [name for name in SCORES if any(name in published.scores for published in every)] or list(SCORES)
    headings = {"": False, "paper": False}
    for metric in metrics:
        headings |= {f"paper {metric}": True, f"ours {metric}": True, f"difference {metric}": True}
    headings |= {"folds": True, "seeds": True}
    rows = []
    notes: list[str] = []
    for system in systems:
        for published in system.published or [PaperResult("", "")]:
            scores = [cell for metric in metrics for cell in _compared(system, published, metric)]
            seeds = ", ".join(str(s.seed) for s in system.summary.seeds)
            rows.append([system.name, published.source, *scores, number_of_folds(system.summary), seeds])
            notes += _notes(system, published)
    for row in absent:
        scores = [cell for metric in metrics for cell in (_papers(row.published, metric), "", "")]
        rows.append([row.name, row.published.source, *scores, row.state, ""])
        notes += [f"{row.name}: {row.published.note}"] if row.published.note else []
    what = mean_and_spread_in_words([system.summary for system in systems])
    caption = f"{what[0].upper()}{what[1:]}, in percent"
    blocks: list[Block] = [Table(caption, headings, rows)]
    if notes:
        blocks.append(Folded("Notes", list(dict.fromkeys(notes))))
    return [Section("Comparison with the paper", blocks)]


def significance(systems: Sequence[ReportedSystem]) -> list[Section]:
    """Return paired tests between systems, if there are several."""
    if len(systems) < 2:
        return []
    tests, skipped = paired_tests([ComparedSystem(system.name, system.runs) for system in systems])
    pairs = "in all pairs" if len(systems) <= MAX_SYSTEMS_IN_ALL_PAIRS else f"with the first, {systems[0].name}"
    blocks: list[Block] = []
    if tests:
        explanation = (
            "Two-sided permutation tests over speakers, not utterances: the sign of each speaker's difference is "
            f"flipped at random. Systems are compared {pairs}; p is corrected for all {len(tests)} tests on this page "
            f"(Holm). Intervals are not corrected. {_trainings(systems)}"
        )
        warnings = _cannot_be_shown(tests)
        headings = {"": False, "metric": False, "difference": True, "95% interval": True, "speakers": True}
        headings |= {"p": True, "p corrected": True, "verdict": False}
        caption = "Difference of the second from the first in percentage points, mean over speakers"
        blocks += [Paragraph(text) for text in (explanation, *warnings)]
        blocks.append(_pairs(tests))
        blocks.append(Table(caption, headings, [_tested(test) for test in tests]))
    if skipped:
        blocks.append(Paragraph("Pairs that cannot be tested:"))
        lines = [f"{pair.first} and {pair.second}: {pair.reason}" for pair in skipped]
        blocks.append(Folded(f"{len(skipped)} {'pair' if len(skipped) == 1 else 'pairs'}", lines))
    return [Section("Which systems differ", blocks)]


def _pairs(tests: Sequence[PairedTest]) -> Picture:
    """Draw the differences in UA; pairs that differ are in another colour."""
    drawn = {
        f"{test.second} less {test.first}": Estimate(test.difference, test.low, test.high, test.speakers)
        for test in tests
        if test.metric == "UA"
    }
    differ = [f"{test.second} less {test.first}" for test in tests if test.metric == "UA" and test.verdict == "differ"]
    figure = forest_figure(
        drawn, "Differences in UA", "difference (points), line: 95% interval", 0.0, "no difference", differ, True
    )
    return Picture(
        "pairs",
        png(figure),
        "; ".join(f"{name}: {one.in_words()}" for name, one in drawn.items()),
        "Difference of the second system's UA from the first's, mean over speakers; squares: they differ (corrected p "
        f"below {SIGNIFICANT}).",
        pd.DataFrame(
            [{"pair": name, "difference": one.value, "low": one.low, "high": one.high} for name, one in drawn.items()]
        ),
    )


def class_changes(systems: Sequence[ReportedSystem], baseline: str) -> list[Section]:
    """Return the change of each class's recall against the system named ``baseline``, if it and others are finished."""
    first = next((system for system in systems if system.name == baseline), None)
    others = [system for system in systems if system.name != baseline]
    if first is None or not others:
        return []
    rows, skipped = [], []
    for system in others:
        found = same_speakers(ComparedSystem(first.name, first.runs), ComparedSystem(system.name, system.runs))
        if isinstance(found, str):
            skipped.append(f"{system.name}: {found}")
            continue
        before, after = (one.counts for one in found)
        for index, name in enumerate(system.summary.class_names):
            change, relative = (estimate_recall_change(before, after, index, kind) for kind in (False, True))
            if not change.speakers:
                continue
            recall = [f"{100 * recalls(one.sum(1)).nanmean(0)[index]:.2f}" for one in (before, after)]
            rows.append([system.name, name, *recall, *_changed(change), *_changed(relative), str(change.speakers)])
    blocks: list[Block] = []
    if rows:
        headings = {"": False, "class": False, f"{baseline} %": True, "recall %": True}
        headings |= {"change": True, "95% interval": True, "relative change %": True, "interval, relative": True}
        headings |= {"speakers": True}
        explanation = (
            f"Recall of each class, pooled over the folds that both the system and {baseline} have finished; change in "
            "percentage points, and relative to the baseline. Intervals are paired: a draw of speakers counts in "
            "both systems. They are not corrected for the number of classes and rows."
        )
        blocks = [Paragraph(explanation), Table(f"Change of recall against {baseline}", headings, rows)]
    if skipped:
        blocks += [Folded(f"Not comparable with {baseline}", skipped)]
    return [Section("Classes against the baseline", blocks)] if blocks else []


def _changed(found: Estimate) -> list[str]:
    """Return a change and its interval, signed, in percent."""
    value = f"{100 * found.value:+.1f}" if math.isfinite(found.value) else "-"
    if found.low is None or found.high is None:
        return [value, f"none: {found.reason}"]
    return [value, f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"]


def hyper_parameters(systems: Sequence[ReportedSystem], absent: Sequence[AbsentRow] = ()) -> list[Section]:
    """Return scores over each hyper-parameter in which configurations differ, if there is any."""
    every = [published for system in systems for published in system.published] + [row.published for row in absent]
    metric = "WA" if {name for published in every for name in published.scores} == {"WA"} else "UA"
    comparable = any(system.summary.is_on(p.corpus) for system in systems for p in system.published)
    points = [
        Point(row.configured, None, row.published.scores.get(metric) if comparable else None)
        for row in absent
        if row.configured
    ]
    for system in systems:
        ours = estimate(SpeakerCounts.of(system.runs).counts, SCORES[metric])
        papers = (p.scores[metric] for p in system.published if metric in p.scores and system.summary.is_on(p.corpus))
        if system.configured.settings:  # an old run may have no config.yaml
            points.append(Point(system.configured, ours, next(papers, None)))
    title = ", ".join(sorted({corpus_title(system.summary) for system in systems}))
    pictures = []
    for parameter, table in curve_tables(points).items():
        run = table[table["ours"].notna()]
        speakers = _number_of_speakers(table["speakers"].tolist())
        pictures.append(
            Picture(
                f"curve_{parameter}",
                png(curve_figure(table, parameter, metric, f"{parameter}: {title}")),
                "; ".join(
                    f"{row.series} {parameter}={row.value:g}: {row.ours:.1%}".strip() for row in run.itertuples()
                ),
                f"Pooled {metric} over {parameter}; bars are 95% intervals over {speakers} speakers; stars are the "
                "paper's scores.",
                table,
            )
        )
    return [Section("Hyper-parameters", pictures)] if pictures else []


def _compared(system: ReportedSystem, published: PaperResult, metric: str) -> list[str]:
    mean, ours = 100 * system.summary.statistics.mean[metric], mean_and_spread(system.summary, metric)
    if metric not in published.scores:
        return ["", ours, ""]
    comparable = system.summary.is_on(published.corpus)
    return [_papers(published, metric), ours, f"{mean - published.scores[metric]:+.1f}" if comparable else ""]


def _papers(published: PaperResult, metric: str) -> str:
    return f"{published.scores[metric]:.1f}" if metric in published.scores else ""


def _notes(system: ReportedSystem, published: PaperResult) -> list[str]:
    notes = [f"{system.name}: {published.note}"] if published.note else []
    if published.scores and not system.summary.is_on(published.corpus):
        ours = corpus_title(system.summary)
        notes.append(f"{system.name}: not comparable: the paper's scores are on {published.corpus}, ours on {ours}")
    if published.differences:
        notes.append(f"{system.name}: not as in the file: {', '.join(published.differences)}")
    return notes


def _tested(test: PairedTest) -> list[str]:
    interval = "-" if test.low is None or test.high is None else f"[{100 * test.low:+.1f}, {100 * test.high:+.1f}]"
    return [
        f"{test.second} less {test.first}",
        test.metric,
        f"{100 * test.difference:+.1f}",
        interval,
        str(test.speakers),
        _p_value(test.p_value),
        _p_value(test.adjusted),
        test.verdict,
    ]


def _trainings(systems: Sequence[ReportedSystem]) -> str:
    """Return which variation between trainings the paired tests cover."""
    seeds = {system.name: len(system.runs) for system in systems}
    if max(seeds.values()) == 1:
        return "Each score is of one training per fold: the test does not cover variation between trainings (seeds)."
    alike = len(set(seeds.values())) == 1
    number = f"{max(seeds.values())}" if alike else ", ".join(f"{name}: {count}" for name, count in seeds.items())
    return (
        f"A speaker's score is the mean over the seeds of a system ({number}): the test does not cover variation "
        "between trainings."
    )


def _cannot_be_shown(tests: Sequence[PairedTest]) -> list[str]:
    """Return a sentence for each number of speakers that is too small for this number of tests."""
    least: dict[int, float] = {}
    for test in tests:
        if test.least_adjusted >= SIGNIFICANT:
            least[test.speakers] = min(test.least_adjusted, least.get(test.speakers, 1.0))
    return [
        f"With {speakers} speakers and {len(tests)} tests no corrected p below {bound:.3g} is possible: no difference "
        "can be shown there. Use more speakers, or fewer systems in one report."
        for speakers, bound in sorted(least.items())
    ]


def _p_value(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1g}"


def _number_of_speakers(numbers: Sequence[int]) -> str:
    present = sorted({int(number) for number in numbers if number})
    return str(present[0]) if len(present) == 1 else f"{present[0]} to {present[-1]}"
