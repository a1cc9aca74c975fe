"""Live progress of jobs: a table of rows in a terminal, a log elsewhere."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Change, Job, JobEvent
from ser_lightning.jobs.progress import JobProgress, seconds_left
from ser_lightning.runs.names import DEFAULT_ROW
from ser_lightning.runs.scores import read_scores


class _CutColumn(TextColumn):
    """Text that is truncated if the console is too narrow."""

    def __init__(self, text_format: str, style: str = "none", min_width: int | None = None) -> None:
        super().__init__(text_format, style, markup=False, table_column=Column(min_width=min_width))

    def render(self, task: Task) -> Text:
        """Return the text on one line."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class JobTable(AbstractContextManager["JobTable"]):
    """Observer of the runner that shows a line per row in a terminal, and writes a log elsewhere.

    Args:
        jobs: The plan, in order.
        console: Console to write to.
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
            finally:  # otherwise the cursor stays hidden
                self.progress.stop()

    def __call__(self, event: JobEvent) -> None:
        """Log a change of a job's state; the next poll draws it."""
        job = self._jobs[event.job.folder]
        if event.change is Change.STARTED:  # it counts as running from its first line in the log
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
        """Show what the running jobs have written; a file that cannot be read is retried at the next poll."""
        for folder, job in self._running.items():
            if not job.has_begun():
                continue
            if job.began is None:
                job.begin()
                self._log(
                    folder,
                    f"resumes after epoch {job.epochs}" if job.epochs else "starting: imports, features, epoch 1",
                )
            before = job.epochs
            job.read_epochs()
            step = max(job.max_epochs // 10, 1)  # about ten log lines per job
            if job.epochs // step > before // step:
                self._log(folder, f"epoch {job.epochs} of {job.max_epochs}{_best(job)}")
        self._draw()

    def tally(self) -> str:
        """Return how many jobs are done, running and failed, and about how long the rest takes."""
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
        """Return the rows that fit on the console: running ones first, then waiting, then finished."""

        def urgency(task: TaskID) -> int:
            states = {job.state for job in self._rows[task]}
            return 0 if "running" in states else 1 if "waiting" in states else 2

        return sorted(self._rows, key=urgency)[: max(self._console.height - 4, 1)]

    def _log(self, folder: Path, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{self._titles[folder]}: {text}", highlight=False, markup=False)


def _fields(jobs: Sequence[JobProgress]) -> dict[str, Any]:
    """Return the values of the table's columns for some jobs."""
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
    """Return the test UA, between 0 and 1, or NaN if it cannot be read; the report names a damaged file."""
    try:
        return read_scores(folder).get("UA", math.nan)
    except (OSError, ConfigurationError):
        return math.nan


def _titles(jobs: Sequence[Job]) -> dict[Path, str]:
    """Return each job's title by folder: its fold, with row and seed if there are several."""
    rows = {job.folder.parents[1] for job in jobs}
    seeds = {job.seed for job in jobs}

    def title(job: Job) -> str:
        row = f"{_row_title(job)} " if len(rows) > 1 else ""
        seed = f"seed {job.seed} " if len(seeds) > 1 else ""
        return f"{row}{seed}{job.folder.name}"

    return {job.folder: title(job) for job in jobs}


def _row_titles(jobs: Sequence[Job]) -> dict[Path, str]:
    """Return each table row's title by seed folder: row, and seed if there are several."""
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
