"""A published table: ours beside the paper's."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from ser_lightning.reports.summary import Summary, corpus_title

METRICS = ("UA", "WA")


@dataclass(frozen=True)
class TableRow:
    """One row of a published table.

    Attributes:
        name: What the row is called.
        paper: The paper's scores in percent, by metric.
        ours: What is on disk; None where nothing is finished.
        note: What a reader of the number must know.
        parameters: What the paper says of the number of trainable parameters.
        quoted: Whether the paper itself quotes the number, so that there is nothing to run.
    """

    name: str
    paper: dict[str, float]
    ours: Summary | None
    note: str
    parameters: str = ""
    quoted: bool = False


def comparison(title: str, paper_corpus: str, rows: Sequence[TableRow]) -> list[Table | str]:
    """Return a table of ours beside the paper's, and what must be said below it.

    Ours is the mean over folds in percent with the standard deviation over folds (ddof 0), then the difference from the
    paper's number. With several seeds, it is that of the first; `ser report` shows them all.

    Args:
        title: Which table, and of what.
        paper_corpus: The corpus that the paper's numbers are on; where ours are on another, there is no difference.
        rows: Its rows.
    """
    metrics = [metric for metric in METRICS if any(metric in row.paper for row in rows)] or list(METRICS)
    table = Table(title=title)
    table.add_column("")
    for metric in metrics:
        for heading in (f"paper {metric}", f"ours {metric}", "difference"):
            table.add_column(heading, justify="right")
    table.add_column("folds", justify="right")
    for row in rows:
        cells = []
        for metric in metrics:
            paper, ours = row.paper.get(metric), _ours(row.ours, metric)
            comparable = _is_on(row.ours, paper_corpus)
            cells += [
                "" if paper is None else f"{paper:.1f}",
                "" if ours is None else f"{ours[0]:.1f} ± {ours[1]:.1f}",
                f"{ours[0] - paper:+.1f}" if comparable and paper is not None and ours is not None else "",
            ]
        folds = f"{len(row.ours.seeds[0].folds)} of {row.ours.num_folds}" if row.ours else "not run"
        table.add_row(row.name, *cells, "quoted" if row.quoted else folds)
    lines: list[Table | str] = [table]
    run = [row.ours for row in rows if row.ours]
    lines += sorted({f"{corpus_title(ours)}, {ours.protocol}, protocol hash {ours.protocol_hash}" for ours in run})
    if any(not _is_on(ours, paper_corpus) for ours in run):
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


def _is_on(summary: Summary | None, corpus: str) -> bool:
    return summary is not None and summary.corpus == corpus and not summary.synthetic


def _ours(summary: Summary | None, metric: str) -> tuple[float, float] | None:
    if summary is None:
        return None
    statistics = summary.seeds[0].over_folds
    spread = statistics.standard_deviation_ddof_0 or {metric: 0.0}
    return 100 * statistics.mean[metric], 100 * spread[metric]
