"""A summary in words and tables: what a reader of its numbers has to know, and the table for a terminal."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ser_lightning.reports.soft_scores import soft_scores_in_words
from ser_lightning.reports.summary import METRICS, Scores, SeedSummary, Statistics, Summary, corpus_title

SPEAKERS_SHARED = "speakers occur in training and test"


def caveats(summary: Summary) -> list[str]:
    """Return the sentences that a reader of any number of the summary has to know."""
    found = []
    if summary.synthetic:
        found.append("synthetic speech: these scores say nothing about recordings of people")
    if not summary.speakers_disjoint:
        found.append(SPEAKERS_SHARED)
    for seed in summary.seeds:
        if seed.folds_missing:
            missing = ", ".join(map(str, seed.folds_missing))
            share = f"{len(seed.folds)} of {summary.num_folds} folds are finished"
            found.append(f"seed {seed.seed}: only {share}; missing: {missing}")
        found += [
            f"seed {seed.seed}, fold {fold.fold}: no utterance of {', '.join(fold.absent_classes)} is tested, "
            "UA is the mean over the other classes"
            for fold in seed.folds
            if fold.absent_classes
        ]
    if len(summary.code_versions) > 1:
        found.append(f"folds ran with different versions of the code: {', '.join(summary.code_versions)}")
    return found


def statistics_rows(statistics: Statistics, over: str) -> list[tuple[str, Scores | None]]:
    """Return mean, standard deviation, minimum and maximum with their headings; ``over`` is such as "10 folds"."""
    return [
        (f"mean over {over}", statistics.mean),
        ("standard deviation (ddof 0)", statistics.standard_deviation_ddof_0),
        ("minimum", statistics.minimum),
        ("maximum", statistics.maximum),
    ]


def percentages(values: Scores | None) -> list[str]:
    """Return the scores in the order of ``METRICS``, in percent with two decimals, or dashes."""
    return [f"{100 * values[name]:.2f}" if values else "-" for name in METRICS]


def mean_and_spread(summary: Summary, metric: str) -> str:
    """Return such as "55.3 ± 2.1", in percent; without ± where a single fold or seed has no spread."""
    mean, deviation = summary.statistics.mean, summary.statistics.standard_deviation_ddof_0
    return f"{100 * mean[metric]:.1f}" + (f" ± {100 * deviation[metric]:.1f}" if deviation else "")


def mean_and_spread_in_words(summaries: Sequence[Summary]) -> str:
    """Return what ``mean_and_spread`` of the summaries is."""
    several = any(len(summary.seeds) > 1 for summary in summaries)
    over = "; of several seeds, the mean of their means ± standard deviation over seeds" if several else ""
    return f"mean over folds ± standard deviation over folds{over} (ddof 0)"


def soft_scores_lines(summary: Summary) -> list[str]:
    """Return a line about the probabilities for each seed that has scores of them."""
    label = "seed {}, " if len(summary.seeds) > 1 else ""
    return [
        label.format(seed.seed) + soft_scores_in_words(seed.soft_scores) for seed in summary.seeds if seed.soft_scores
    ]


def folds_in_words(seed: SeedSummary, num_folds: int) -> str:
    """Return such as "10 folds", or "9 of 10 folds" where some are missing."""
    present = str(len(seed.folds)) if not seed.folds_missing else f"{len(seed.folds)} of {num_folds}"
    return f"{present} {'fold' if num_folds == 1 else 'folds'}"


def summary_table(summary: Summary) -> Table:
    """Return the summary for a terminal: folds, mean, spread, extremes, pooled; then the same over seeds."""
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
