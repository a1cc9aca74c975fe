"""How far jobs are: one live table of rows and folds in a terminal, a line now and then elsewhere."""

import json
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ser_lightning.cross_validation.job_process import LOG_FILE
from ser_lightning.cross_validation.plan import Job
from ser_lightning.reports.soft_scores import SCORES_FILE
from ser_lightning.run_record import DEFAULT_ROW

_METRICS_FILE = "metrics.csv"
_SCORE = "validation/UA"
# By state: what stands in a cell that has no number, and its colour.
_MARKS = {
    "waiting": ("\N{MIDDLE DOT}", "dim"),
    "running": ("\N{BLACK RIGHT-POINTING POINTER}", "cyan"),
    "done": ("\N{CHECK MARK}", "green"),
    "failed": ("\N{MULTIPLICATION X}", "bold red"),
}
# How much a cell says, and how wide it then is: epochs and score, one of them, or its mark.
_WIDTHS = {"full": 12, "short": 5, "mark": 1}
_SHORTEST_TITLE = 8


@dataclass
class _Cell:
    """One job as it is shown.

    Attributes:
        folder: The job's folder.
        group: Index of the table's row.
        state: A key of ``_MARKS``.
        epochs: Epochs on record.
        epochs_before: Those that were there when the job was begun here.
        score: Test UA of a done job, best validation UA so far of another; a share of 1, NaN if there is none.
        began: Time at which its process wrote its first line; None before.
        ended: Time at which it ended.
        log_size: Bytes of its log when it was handed to the engine.
        read: Time stamp and size of the last metrics that were read.
    """

    folder: Path
    group: int
    state: str = "waiting"
    epochs: int = 0
    epochs_before: int = 0
    score: float = math.nan
    began: float | None = None
    ended: float | None = None
    log_size: int = 0
    read: tuple[int, int] = (0, 0)


class ProgressView(AbstractContextManager["ProgressView"]):
    """How far each job is.

    Args:
        jobs: The plan, in order.
        max_epochs: Epochs of a job at most.
        console: Where to show it.
    """

    def __init__(self, jobs: Sequence[Job], max_epochs: int, console: Console) -> None:
        self.max_epochs = max_epochs
        self.console = console
        self.titles = _titles(jobs)
        groups = list(dict.fromkeys(job.folder.parent for job in jobs))
        self._group_titles = _group_titles(jobs)
        self._columns = sorted({job.folder.name for job in jobs}, key=lambda name: (name.startswith("fold-"), name))
        self._cells = {job.folder: _Cell(job.folder, groups.index(job.folder.parent)) for job in jobs}
        self._begun: dict[Path, _Cell] = {}
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        """Start drawing."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        if self.console.is_terminal:
            self._draw()
            self._live.stop()

    def begin(self, job: Job) -> None:
        """Take note that a job is handed to what runs it; it runs from its first line in its log."""
        cell = self._cells[job.folder]
        _read_epochs(cell)
        cell.epochs_before = cell.epochs
        cell.log_size = _size(cell)
        cell.began = cell.ended = None
        self._begun[job.folder] = cell

    def update(self) -> None:
        """Show what the running jobs have written."""
        step = max(self.max_epochs // 10, 1)  # a log wants about ten lines a job, a terminal is drawn anew
        for folder, cell in self._begun.items():
            if cell.began is None:
                if _size(cell) == cell.log_size:
                    continue
                cell.state, cell.began = "running", time.monotonic()
                self._say(folder, f"going on after epoch {cell.epochs}" if cell.epochs else "starting")
            before = cell.epochs
            _read_epochs(cell)
            if cell.epochs // step > before // step:
                self._say(folder, f"epoch {cell.epochs} of {self.max_epochs}{_best(cell)}")
        self._draw()

    def await_again(self, job: Job, why: str) -> None:
        """Show that a job has to begin again."""
        cell = self._begun.pop(job.folder)
        cell.state, cell.ended = "waiting", time.monotonic()
        self._say(job.folder, why)

    def finish(self, job: Job, how: str) -> None:
        """Show how a job ended: ``done``, ``done before``, ``failed``, ``not started`` or ``outdated``."""
        cell = self._begun.pop(job.folder, self._cells[job.folder])
        _read_epochs(cell)
        cell.ended = time.monotonic()
        text = how
        if how.startswith("done"):
            cell.state = "done"
            test = _test_score(cell)
            text += _best(cell) if math.isnan(test) else f", UA {test:.1%}"
            cell.score = test
        else:
            cell.state = "failed"
            text += _best(cell) if how == "failed" else ""
        self._say(job.folder, f"{text} ({self.tally()})" if cell.began is not None else text)
        self._draw()

    def tally(self) -> str:
        """How many jobs are done, running and failed, and about how long the rest takes."""
        states = [cell.state for cell in self._cells.values()]
        parts = [f"{states.count('done')} of {len(states)} done"]
        parts += [f"{states.count(state)} {state}" for state in ("running", "failed") if state in states]
        left = self.seconds_left()
        if left:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Return about how many seconds the rest takes; None before an epoch was measured, and where nothing is left.

        A row's jobs go on at the pace of those measured here, or of all where a row has none yet, for as many epochs as
        its finished ones took: they may have stopped early.
        """
        now = time.monotonic()
        cells = list(self._cells.values())
        paces = {cell.group: _pace([c for c in cells if c.group == cell.group], now) for cell in cells}
        overall = _pace(cells, now)
        rest = [cell for cell in cells if cell.state in ("waiting", "running")]
        if overall is None or not rest:
            return None
        lengths = []
        for cell in rest:
            finished = [c.epochs for c in cells if c.group == cell.group and c.state == "done" and c.epochs]
            expected = sum(finished) / len(finished) if finished else self.max_epochs
            lengths.append(max(expected - cell.epochs, 0) * (paces[cell.group] or overall))
        at_once = max(sum(cell.state == "running" for cell in cells), 1)
        return max(sum(lengths) / at_once, max(lengths))

    def render(self) -> Group:
        """Return the table as it stands, cut to the console's size, and the tally below it."""
        detail = next((name for name in _WIDTHS if self._width(name) <= self.console.width), "mark")
        shown = self._rows_that_fit()
        room = max(self.console.width - self._width_of_cells(detail), _SHORTEST_TITLE)
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        table.add_column("", no_wrap=True, max_width=room)
        for name in self._columns:
            heading = name.removeprefix("fold-").lstrip("0") or "0"
            table.add_column("" if detail == "mark" else heading, justify="right", no_wrap=True)
        table.add_column("UA", justify="right", no_wrap=True)
        by_place = {(cell.group, folder.name): cell for folder, cell in self._cells.items()}
        for group in shown:
            cells = [by_place.get((group, name)) for name in self._columns]
            scores = [c.score for c in cells if c and c.state == "done" and not math.isnan(c.score)]
            mean = f"{sum(scores) / len(scores):.1%}" if scores else ""
            table.add_row(self._group_titles[group], *(self._text(cell, detail) for cell in cells), mean)
        hidden = len(self._group_titles) - len(shown)
        more = f"; {hidden} more rows" if hidden else ""
        return Group(table, Text(self.tally() + more))

    def _width(self, detail: str) -> int:
        return max(len(title) for title in self._group_titles) + self._width_of_cells(detail)

    def _width_of_cells(self, detail: str) -> int:
        gap = 2
        return gap + len(self._columns) * (_WIDTHS[detail] + gap) + len("100.0%") + gap

    def _rows_that_fit(self) -> list[int]:
        """Return the rows to show, in the plan's order: those at work first, then what waits, then what is finished."""
        room = max(self.console.height - 4, 1)
        states: dict[int, set[str]] = {}
        for cell in self._cells.values():
            states.setdefault(cell.group, set()).add(cell.state)

        def urgency(group: int) -> int:
            return 0 if "running" in states[group] else 1 if "waiting" in states[group] else 2

        return sorted(sorted(states, key=urgency)[:room])

    def _text(self, cell: _Cell | None, detail: str) -> Text:
        if cell is None:
            return Text("")
        mark, style = _MARKS[cell.state]
        score = "" if math.isnan(cell.score) else f"{100 * cell.score:.1f}"
        if detail == "mark" or cell.state in ("waiting", "failed") or (cell.state == "done" and not score):
            return Text(mark, style)
        if cell.state == "done":
            return Text(score, style)
        share = f"{min(cell.epochs / self.max_epochs, 1):.0%}"
        if detail == "short":
            return Text(share, style)
        return Text(f"{cell.epochs}/{self.max_epochs} {score}".strip(), style)

    def _draw(self) -> None:
        if self.console.is_terminal:
            self._live.update(self.render(), refresh=True)

    def _say(self, folder: Path, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(f"{self.titles[folder]}: {text}", highlight=False, markup=False)


def _pace(cells: Sequence[_Cell], now: float) -> float | None:
    """Return seconds per epoch over what was run here."""
    measured = [c for c in cells if c.began is not None and c.epochs > c.epochs_before]
    if not measured:
        return None
    seconds = sum((c.ended or now) - (c.began or now) for c in measured)
    return seconds / sum(c.epochs - c.epochs_before for c in measured)


def _titles(jobs: Sequence[Job]) -> dict[Path, str]:
    """Return by folder what a job is called: its fold, with row and seed where there are several of them."""
    rows = {job.folder.parents[1] for job in jobs}
    seeds = {job.seed for job in jobs}

    def title(job: Job) -> str:
        row = f"{_row_title(job)} " if len(rows) > 1 else ""
        seed = f"seed {job.seed} " if len(seeds) > 1 else ""
        return f"{row}{seed}{job.folder.name}"

    return {job.folder: title(job) for job in jobs}


def _group_titles(jobs: Sequence[Job]) -> list[str]:
    """Return what the table's rows are called: row of the published table, and seed where there are several."""
    seeds = {job.seed for job in jobs}
    titles = {job.folder.parent: _row_title(job) + (f", seed {job.seed}" if len(seeds) > 1 else "") for job in jobs}
    return list(titles.values())


def _row_title(job: Job) -> str:
    return job.experiment.stem if job.row == DEFAULT_ROW else job.row


def _read_epochs(cell: _Cell) -> None:
    """Read the epochs on record and the best validation score so far, if the file is new."""
    path = cell.folder / _METRICS_FILE
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    changed = (found.st_mtime_ns, found.st_size)  # clocks of file systems tick in milliseconds
    if changed == cell.read:
        return
    rows = pd.read_csv(path)
    cell.read, cell.epochs = changed, len(rows)
    cell.score = float(rows[_SCORE].max()) if _SCORE in rows else math.nan


def _best(cell: _Cell) -> str:
    return "" if math.isnan(cell.score) else f", validation UA {cell.score:.1%} at best"


def _test_score(cell: _Cell) -> float:
    path = cell.folder / SCORES_FILE
    return float(json.loads(path.read_text())["UA"]) if path.exists() else math.nan


def _size(cell: _Cell) -> int:
    path = cell.folder / LOG_FILE
    return path.stat().st_size if path.exists() else 0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
