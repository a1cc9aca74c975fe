"""A published table: ours beside the paper's."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ser_lightning.reports.summary import Summary, corpus_title
from ser_lightning.reports.summary_table import mean_and_spread, mean_and_spread_in_words

METRICS = ("UA", "WA")


@dataclass(frozen=True)
class TableRow:
    """One row of a published table.

    Attributes:
        name: What the row is called.
        paper: The paper's scores in percent, by metric.
        ours: What is on disk of the seeds and folds to show; None where nothing is finished.
        note: What a reader of the number must know.
        parameters: What the paper says of the number of trainable parameters.
        quoted: Whether the paper itself quotes the number, so that there is nothing to run.
        unlike_file: Where ours was configured otherwise than the row's file says, a key and both values each.
    """

    name: str
    paper: dict[str, float]
    ours: Summary | None
    note: str
    parameters: str = ""
    quoted: bool = False
    unlike_file: Sequence[str] = ()


def comparison(title: str, paper_corpus: str, rows: Sequence[TableRow]) -> list[Table | str]:
    """Return a table of ours beside the paper's, and what must be said below it.

    Ours is the mean over folds in percent with the standard deviation over folds (ddof 0), then the difference from the
    paper's number. With several seeds, it is the mean of the seeds' means with the standard deviation over seeds. A
    single fold has no spread, and none is shown.

    Args:
        title: Which table, and of what.
        paper_corpus: The corpus that the paper's numbers are on; where ours are on another, there is no difference.
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
    lines += [f"{row.name}: not as in the file: {_shortened(row.unlike_file)}" for row in rows if row.unlike_file]
    if any(not ours.is_on(paper_corpus) for ours in run):
        lines.append(f"The paper's numbers are on {paper_corpus} and do not compare with ours.")
    if any(not ours.speakers_disjoint for ours in run):
        lines.append("The protocol mixes speakers: who is tested was also trained on.")
    lines += [f"{row.name}: {row.note}" for row in rows if row.note]
    for row in rows:
        if row.parameters:
            counted = f"{row.ours.seeds[0].folds[0].parameters:,}" if row.ours else "not run"
            lines.append(f"{row.name}, trainable parameters: ours {counted}; paper {row.parameters}")
    if not run:
        lines.append("Nothing is finished yet: ser table run.")
    return lines


def _cells(row: TableRow, metric: str, paper_corpus: str) -> list[str]:
    """Return the paper's score, ours and the difference, of which there may be none."""
    paper, ours = row.paper.get(metric), row.ours
    difference = ""
    if paper is not None and ours is not None and ours.is_on(paper_corpus):
        difference = f"{100 * ours.statistics.mean[metric] - paper:+.1f}"
    return ["" if paper is None else f"{paper:.1f}", "" if ours is None else mean_and_spread(ours, metric), difference]


def _protocols(rows: Sequence[TableRow]) -> list[str]:
    """Return a line for each corpus and protocol, with the rows it belongs to where there are several."""
    names = defaultdict(list)
    for row in rows:
        if ours := row.ours:
            names[f"{corpus_title(ours)}, {ours.protocol}, protocol hash {ours.protocol_hash}"].append(row.name)
    return [line if len(names) == 1 else f"{line}: {', '.join(names[line])}" for line in sorted(names)]


def _shortened(values: Sequence[str], most: int = 5) -> str:
    return ", ".join(values[:most]) + (f", and {len(values) - most} more" if len(values) > most else "")
