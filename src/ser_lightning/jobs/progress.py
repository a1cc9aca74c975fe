"""How far jobs are: a live table of rows in a terminal, a line now and then elsewhere."""

import math
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.events import Change, JobEvent
from ser_lightning.jobs.plan import Job
from ser_lightning.jobs.process import LOG_FILE
from ser_lightning.runs.folder import DEFAULT_ROW, METRICS_FILE
from ser_lightning.runs.scores import read_scores

_SCORE = "validation/UA"


@dataclass
class JobProgress:
    """One job as it is shown.

    Attributes:
        folder: The job's folder.
        max_epochs: Its epochs at most.
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        epochs: Epochs on record.
        epochs_before: Those that were there when the job was started here.
        score: Test UA of a done job, best validation UA so far of another; a share of 1, NaN if there is none.
        began: Time at which its process wrote its first line; None before.
        ended: Time at which it ended.
        log_size: Bytes of its log when it was given to the engine.
        read: Time stamp and size of the last metrics that were read.
    """

    folder: Path
    max_epochs: int
    state: str = "waiting"
    epochs: int = 0
    epochs_before: int = 0
    score: float = math.nan
    began: float | None = None
    ended: float | None = None
    log_size: int = 0
    read: tuple[int, int] = (0, 0)

    def start(self) -> None:
        """Record that it is given to the engine."""
        self.read_epochs()
        self.epochs_before = self.epochs
        self.log_size = self._size_of_log()
        self.began = self.ended = None

    def has_begun(self) -> bool:
        """Whether it has written a line since then."""
        return self.began is not None or self._size_of_log() != self.log_size

    def begin(self) -> None:
        """Record that it runs from now on."""
        self.state, self.began = "running", time.monotonic()

    def end(self, state: str) -> None:
        """Record that it has ended, and what it is then."""
        self.state, self.ended = state, time.monotonic()

    def read_epochs(self) -> None:
        """Read the epochs on record and the best validation score so far, if the file has changed."""
        path = self.folder / METRICS_FILE
        try:
            found = path.stat()
            changed = (found.st_mtime_ns, found.st_size)  # clocks of file systems tick in milliseconds
            if changed == self.read:
                return
            rows = pd.read_csv(path)
            score = float(rows[_SCORE].max()) if _SCORE in rows else math.nan
        except (OSError, ValueError):  # a stale handle of a network file system, or half a file
            return
        self.read, self.epochs, self.score = changed, len(rows), score

    def _size_of_log(self) -> int:
        try:
            return (self.folder / LOG_FILE).stat().st_size
        except OSError:
            return 0


def seconds_left(jobs: Collection[JobProgress]) -> float | None:
    """Return about how many seconds the rest takes; None before an epoch was measured, and where nothing is left.

    A row's jobs keep the pace of those measured here, or of all where a row has none yet, for as many epochs as its
    finished ones took: they may have stopped early.
    """
    now = time.monotonic()
    overall = _pace(jobs, now)
    if overall is None:
        return None
    rows: dict[Path, list[JobProgress]] = {}
    for job in jobs:
        rows.setdefault(job.folder.parent, []).append(job)
    lengths: list[float] = []
    for row in rows.values():
        finished = [job.epochs for job in row if job.state == "done" and job.epochs]
        pace = _pace(row, now) or overall
        for job in row:
            if job.state in ("waiting", "running"):
                expected = sum(finished) / len(finished) if finished else job.max_epochs
                lengths.append(max(expected - job.epochs, 0) * pace)
    at_once = max(sum(job.state == "running" for job in jobs), 1)
    return max(sum(lengths) / at_once, max(lengths)) if lengths else None


def _pace(jobs: Collection[JobProgress], now: float) -> float | None:
    """Return seconds per epoch over what was run here."""
    measured = [job for job in jobs if job.began is not None and job.epochs > job.epochs_before]
    if not measured:
        return None
    seconds = sum((job.ended or now) - (job.began or now) for job in measured)
    return seconds / sum(job.epochs - job.epochs_before for job in measured)


class _CutColumn(TextColumn):
    """Text that is cut where the console is too narrow for the whole table."""

    def __init__(self, text_format: str, style: str = "none", min_width: int | None = None) -> None:
        super().__init__(text_format, style, markup=False, table_column=Column(min_width=min_width))

    def render(self, task: Task) -> Text:
        """Return the text on one line."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class JobTable(AbstractContextManager["JobTable"]):
    """How far each job is: a line for each row of the table in a terminal, a log elsewhere; an observer of the runner.

    Args:
        jobs: The plan, in order.
        console: Where to show it.
    """

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self._console = console
        self._titles = _titles(jobs)
        self._jobs = {job.folder: JobProgress(job.folder, job.max_epochs) for job in jobs}
        self._running: dict[Path, JobProgress] = {}
        self.progress = Progress(
            _CutColumn("{task.description}", min_width=8),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[done]}", markup=False),
            TextColumn("{task.fields[failed]}", "bold red"),
            _CutColumn("{task.fields[running]}", "cyan"),
            TextColumn("{task.fields[score]}", "green", justify="right"),
            TextColumn("{task.fields[left]}", "dim", justify="right"),
            console=console,
            auto_refresh=False,
        )
        self._rows: dict[TaskID, list[JobProgress]] = {}
        for folder, title in _row_titles(jobs).items():
            row = [job for job in self._jobs.values() if job.folder.parent == folder]
            self._rows[self.progress.add_task(title, **_fields(row))] = row
        total = _fields(list(self._jobs.values()))
        self._total = self.progress.add_task(f"all {len(self._rows)} rows", visible=len(self._rows) != 1, **total)

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._console.is_terminal:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        if self._console.is_terminal:
            try:
                self._draw()
            finally:  # or the cursor stays hidden
                self.progress.stop()

    def __call__(self, event: JobEvent) -> None:
        """Log a change of a job's state; the next poll draws it."""
        job = self._jobs[event.job.folder]
        if event.change is Change.STARTED:  # it runs from the first line in its log
            job.start()
            self._running[job.folder] = job
            return
        self._running.pop(job.folder, None)
        job.read_epochs()
        note = event.note
        if event.change in (Change.RETRIED, Change.LOST):
            job.end("waiting")
        elif event.change in (Change.FINISHED, Change.FOUND_DONE):
            job.end("done")
            best = _best(job)
            job.score = _test_score(job.folder)
            note += best if math.isnan(job.score) else f", UA {job.score:.1%}"
        else:
            job.end("failed")
            note += _best(job) if event.change is Change.FAILED else ""
        ran = job.began is not None and job.state != "waiting"
        self._log(job.folder, f"{note} ({self.tally()})" if ran else note)

    def poll(self) -> None:
        """Show what the running jobs have written; a file that cannot be read now is read at the next poll."""
        for folder, job in self._running.items():
            if not job.has_begun():
                continue
            if job.began is None:
                job.begin()
                self._log(folder, f"resumes after epoch {job.epochs}" if job.epochs else "starting")
            before = job.epochs
            job.read_epochs()
            step = max(job.max_epochs // 10, 1)  # a log wants about ten lines a job, a terminal is redrawn
            if job.epochs // step > before // step:
                self._log(folder, f"epoch {job.epochs} of {job.max_epochs}{_best(job)}")
        self._draw()

    def tally(self) -> str:
        """How many jobs are done, running and failed, and about how long the rest takes."""
        states = [job.state for job in self._jobs.values()]
        parts = [f"{states.count('done')} of {len(states)} done"]
        parts += [f"{states.count(state)} {state}" for state in ("running", "failed") if state in states]
        left = seconds_left(self._jobs.values())
        if left:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def _draw(self) -> None:
        if not self._console.is_terminal:
            return
        shown = self._rows_that_fit()
        for task, jobs in self._rows.items():
            self.progress.update(task, visible=task in shown, **_fields(jobs))
        everything = list(self._jobs.values())
        running = sum(job.state == "running" for job in everything)
        total = _fields(everything) | {"running": f"{running} running" if running else "", "score": ""}
        self.progress.update(self._total, **total)
        self.progress.refresh()

    def _rows_that_fit(self) -> list[TaskID]:
        """Return the rows that the console has room for: those at work first, then waiting, then finished ones."""

        def urgency(task: TaskID) -> int:
            states = {job.state for job in self._rows[task]}
            return 0 if "running" in states else 1 if "waiting" in states else 2

        return sorted(self._rows, key=urgency)[: max(self._console.height - 4, 1)]

    def _log(self, folder: Path, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{self._titles[folder]}: {text}", highlight=False, markup=False)


def _fields(jobs: Sequence[JobProgress]) -> dict[str, Any]:
    """Return what the table's columns show of some jobs."""
    done = [job for job in jobs if job.state == "done"]
    failed = sum(job.state == "failed" for job in jobs)
    scores = [job.score for job in done if not math.isnan(job.score)]
    left = seconds_left(jobs)
    return {
        "total": sum(job.max_epochs for job in jobs),
        "completed": sum(job.max_epochs if job.state == "done" else job.epochs for job in jobs),
        "done": f"{len(done)}/{len(jobs)} done",
        "failed": f"{failed} failed" if failed else "",
        "running": ", ".join(_running(job) for job in jobs if job.state == "running"),
        "score": f"UA {sum(scores) / len(scores):.1%}" if scores else "",
        "left": f"{_duration(left)} left" if left else "",
    }


def _running(job: JobProgress) -> str:
    """Return a running job's epochs and best validation UA: ``fold 3: 12/50 45.0%``."""
    prefix, dash, number = job.folder.name.partition("-")
    name = f"{prefix} {int(number)}" if dash else prefix
    return f"{name}: {job.epochs}/{job.max_epochs}{'' if math.isnan(job.score) else f' {job.score:.1%}'}"


def _test_score(folder: Path) -> float:
    """Return the test UA, a share of 1, or NaN where there is none; the report says what is wrong with the file."""
    try:
        return read_scores(folder).get("UA", math.nan)
    except (OSError, ConfigurationError):
        return math.nan


def _titles(jobs: Sequence[Job]) -> dict[Path, str]:
    """Return by folder what a job is called: its fold, with row and seed where there are several of them."""
    rows = {job.folder.parents[1] for job in jobs}
    seeds = {job.seed for job in jobs}

    def title(job: Job) -> str:
        row = f"{_row_title(job)} " if len(rows) > 1 else ""
        seed = f"seed {job.seed} " if len(seeds) > 1 else ""
        return f"{row}{seed}{job.folder.name}"

    return {job.folder: title(job) for job in jobs}


def _row_titles(jobs: Sequence[Job]) -> dict[Path, str]:
    """Return by a seed's folder what the table's rows are called: row, and seed where there are several."""
    seeds = {job.seed for job in jobs}
    return {job.folder.parent: _row_title(job) + (f", seed {job.seed}" if len(seeds) > 1 else "") for job in jobs}


def _row_title(job: Job) -> str:
    return job.experiment if job.row == DEFAULT_ROW else job.row


def _best(job: JobProgress) -> str:
    return "" if math.isnan(job.score) else f", best validation UA {job.score:.1%}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
