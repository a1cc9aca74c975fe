"""Summaries and published tables for the terminal."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ser_lightning.runs.gathering import LeftOut
from ser_lightning.runs.scores import soft_scores_in_words
from ser_lightning.runs.summary import METRICS, Scores, SeedSummary, Statistics, Summary, corpus_title

SPEAKERS_SHARED = "speakers occur in training and test"


def caveats(summary: Summary) -> list[str]:
    """Return warnings that apply to all scores of the summary."""
    found = []
    if summary.synthetic:
        found.append("synthetic speech: these scores say nothing about real recordings")
    if not summary.speakers_disjoint:
        found.append(SPEAKERS_SHARED)
    folds = {fold.fold: fold for seed in summary.seeds for fold in seed.folds}.values()  # a fold's sets have no seed
    if leaky := [fold for fold in folds if fold.same_audio_across_sets]:
        pairs = ", ".join(f"{fold.fold} ({fold.same_audio_across_sets})" for fold in leaky)
        found.append(f"the same audio is in two sets, by fold (pairs): {pairs}")
    if untrained := [fold for fold in folds if fold.untrained_classes]:
        classes = "; ".join(f"fold {fold.fold}: {', '.join(fold.untrained_classes)}" for fold in untrained)
        found.append(f"tested and never trained on: {classes}")
    if summary.one_speaker_classes:
        found.append(f"only one speaker has the classes {', '.join(summary.one_speaker_classes)}")
    for seed in summary.seeds:
        if seed.folds_missing:
            missing = ", ".join(map(str, seed.folds_missing))
            share = f"{len(seed.folds)} of {summary.num_folds} folds are finished"
            found.append(f"seed {seed.seed}: only {share}; missing: {missing}")
        found += [
            f"seed {seed.seed}, fold {fold.fold}: no utterance of {', '.join(fold.absent_classes)} is tested; "
            "UA is the mean over the other classes"
            for fold in seed.folds
            if fold.absent_classes
        ]
    if len(summary.code_versions) > 1:
        found.append(f"folds ran with different versions of the code: {', '.join(summary.code_versions)}")
    return found


def statistics_rows(statistics: Statistics, over: str) -> list[tuple[str, Scores | None]]:
    """Return mean, standard deviation, minimum and maximum with headings; ``over`` is, for example, "10 folds"."""
    return [
        (f"mean over {over}", statistics.mean),
        ("standard deviation (ddof 0)", statistics.standard_deviation_ddof_0),
        ("minimum", statistics.minimum),
        ("maximum", statistics.maximum),
    ]


def percentages(values: Scores | None) -> list[str]:
    """Return the scores in percent in the order of ``METRICS``, or dashes."""
    return [f"{100 * values[name]:.2f}" if values else "-" for name in METRICS]


def mean_and_spread(summary: Summary, metric: str) -> str:
    """Return, for example, "55.3 ± 2.1" in percent; without ± for a single fold or seed."""
    mean, deviation = summary.statistics.mean, summary.statistics.standard_deviation_ddof_0
    return f"{100 * mean[metric]:.1f}" + (f" ± {100 * deviation[metric]:.1f}" if deviation else "")


def mean_and_spread_in_words(summaries: Sequence[Summary]) -> str:
    """Explain ``mean_and_spread`` of the summaries."""
    several = any(len(summary.seeds) > 1 for summary in summaries)
    over = "; with several seeds, the mean of their means ± standard deviation over seeds" if several else ""
    return f"mean over folds ± standard deviation over folds{over} (ddof 0)"


def soft_scores_lines(summary: Summary) -> list[str]:
    """Return one line for each seed that has soft scores."""
    label = "seed {}, " if len(summary.seeds) > 1 else ""
    return [
        label.format(seed.seed) + soft_scores_in_words(seed.soft_scores) for seed in summary.seeds if seed.soft_scores
    ]


def folds_in_words(seed: SeedSummary, num_folds: int) -> str:
    """Return, for example, "10 folds", or "9 of 10 folds" if one is missing."""
    present = str(len(seed.folds)) if not seed.folds_missing else f"{len(seed.folds)} of {num_folds}"
    return f"{present} {'fold' if num_folds == 1 else 'folds'}"


def summary_table(summary: Summary) -> Table:
    """Return the summary as a table: folds, statistics, pooled scores; then the same over seeds."""
    title = f"{summary.experiment} ({summary.system}) on {corpus_title(summary)}"
    protocol = f"{summary.protocol}; protocol {summary.protocol_hash}"
    notes = [*soft_scores_lines(summary), protocol, *caveats(summary)]
    table = Table(title=escape(title), caption=escape("\n".join(notes)), caption_justify="left", min_width=60)
    table.add_column("", no_wrap=True)
    table.add_column("utterances", justify="right")
    for heading in METRICS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for seed in summary.seeds:
        label = f"seed {seed.seed}, " if len(summary.seeds) > 1 else ""
        for fold in seed.folds:
            table.add_row(f"{label}fold {fold.fold}", str(fold.utterances), *percentages(fold.scores))
        table.add_section()
        for heading, values in statistics_rows(seed.over_folds, folds_in_words(seed, summary.num_folds)):
            table.add_row(f"{label}{heading}", "", *percentages(values))
        table.add_row(f"{label}pooled", str(seed.utterances), *percentages(seed.pooled), end_section=True)
    for name, statistics in (
        ("mean over folds", summary.over_seeds_of_the_mean_over_folds),
        ("pooled", summary.over_seeds_of_pooled),
    ):
        if statistics:
            for heading, values in statistics_rows(statistics, f"{len(summary.seeds)} seeds"):
                table.add_row(f"{name}: {heading}", "", *percentages(values))
            table.add_section()
    return table


@dataclass(frozen=True)
class TableRow:
    """One row of a published table.

    Attributes:
        name: Name of the row.
        paper: The paper's scores in percent, by metric.
        ours: Summary of the finished runs; None if there are none.
        note: Caveat for readers.
        parameters: The paper's statement on the number of trainable parameters.
        quoted: Whether the paper itself quotes the number, so that there is nothing to run.
        differences: Keys and values in which our configuration differs from the row's file.
    """

    name: str
    paper: dict[str, float]
    ours: Summary | None
    note: str
    parameters: str = ""
    quoted: bool = False
    differences: Sequence[str] = ()


def comparison(title: str, paper_corpus: str, rows: Sequence[TableRow]) -> list[Table | str]:
    """Return a table of our scores and the paper's, with notes below.

    Ours is the mean ± standard deviation (ddof 0) over folds in percent; with several seeds, over the seeds' means.

    Args:
        title: Title of the table.
        paper_corpus: The corpus of the paper's numbers; ours on another corpus get no difference.
        rows: Its rows.
    """
    metrics = [metric for metric in METRICS if any(metric in row.paper for row in rows)] or list(METRICS)
    table = Table(title=Text(title, "table.title"))  # no markup: it may hold brackets
    table.add_column("")
    for metric in metrics:
        for heading in (f"paper {metric}", f"ours {metric}", "difference"):
            table.add_column(heading, justify="right")
    for heading in ("folds", "seed"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [cell for metric in metrics for cell in _cells(row, metric, paper_corpus)]
        seeds = row.ours.seeds if row.ours else ()
        finished = ", ".join(str(len(seed.folds)) for seed in seeds)
        folds = f"{finished} of {row.ours.num_folds}" if row.ours else "not run"
        table.add_row(row.name, *cells, "quoted" if row.quoted else folds, ", ".join(str(s.seed) for s in seeds))
    lines: list[Table | str] = [table]
    run = [row.ours for row in rows if row.ours]
    if run:
        lines.append(f"Ours: {mean_and_spread_in_words(run)}.")
    lines += _protocols(rows)
    lines += [f"{row.name}: not as in the file: {_shortened(row.differences)}" for row in rows if row.differences]
    if any(not ours.is_on(paper_corpus) for ours in run):
        lines.append(f"The paper's numbers are on {paper_corpus}; they are not comparable with ours.")
    if any(not ours.speakers_disjoint for ours in run):
        lines.append("The protocol mixes speakers: test speakers are also in the training set.")
    lines += [f"{row.name}: {row.note}" for row in rows if row.note]
    for row in rows:
        if row.parameters:
            counted = f"{row.ours.seeds[0].folds[0].parameters:,}" if row.ours else "not run"
            lines.append(f"{row.name}, trainable parameters: ours {counted}; paper {row.parameters}")
    if not run:
        lines.append("No run is finished yet; start with ser table run.")
    return lines


def _cells(row: TableRow, metric: str, paper_corpus: str) -> list[str]:
    """Return the paper's score, ours and the difference, or empty texts."""
    paper, ours = row.paper.get(metric), row.ours
    difference = ""
    if paper is not None and ours is not None and ours.is_on(paper_corpus):
        difference = f"{100 * ours.statistics.mean[metric] - paper:+.1f}"
    return ["" if paper is None else f"{paper:.1f}", "" if ours is None else mean_and_spread(ours, metric), difference]


def _protocols(rows: Sequence[TableRow]) -> list[str]:
    """Return one line per corpus and protocol; if there are several, with their rows."""
    names = defaultdict(list)
    for row in rows:
        if ours := row.ours:
            names[f"{corpus_title(ours)}, {ours.protocol}, protocol hash {ours.protocol_hash}"].append(row.name)
    return [line if len(names) == 1 else f"{line}: {', '.join(names[line])}" for line in sorted(names)]


def _shortened(values: Sequence[str], most: int = 5) -> str:
    return ", ".join(values[:most]) + (f", and {len(values) - most} more" if len(values) > most else "")


def warn_of_left_out(left_out: Sequence[LeftOut]) -> None:
    """Name each folder that is excluded, and the reason, on standard error."""
    for one in left_out:
        print(f"warning: {one.folder} is left out: {one.reason}", file=sys.stderr)
