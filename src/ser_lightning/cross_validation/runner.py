"""How to run many jobs: each in a fresh process that ends with this one, and a view of how far they are."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ser_lightning.callbacks.checkpoints import FOLDER as CHECKPOINTS
from ser_lightning.callbacks.results import FILES
from ser_lightning.cross_validation.plan import Job, in_order
from ser_lightning.run_record import CONFIG_FILE, DEFAULT_ROW, FACTS_FILE

LOG_FILE = "log.txt"
_POLL_SECONDS = 0.5
# What a fold's process has unless the user says otherwise. glibc gives every freed activation back to the kernel and
# asks for it anew at the next step: a quarter of a training step on a CPU (measured: 420,000 page faults in 30 steps
# of Huang's system, 57,000 with these thresholds, in bytes). Other C libraries do not read them.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "120",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
}
_GRACE_SECONDS = 10.0
# A child of a W&B sweep's agent is a run of its own; with these it would write into the agent's. And each child has a
# W&B service of its own: one found through WANDB_SERVICE keeps the run of a killed child open and refuses its restart.
_NOT_INHERITED = (
    "WANDB_RUN_ID",
    "WANDB_SWEEP_ID",
    "WANDB_SWEEP_PARAM_PATH",
    "WANDB_RESUME",
    "WANDB_NAME",
    "WANDB_SERVICE",
)


def is_done(job: Job) -> bool:
    """Whether what the job leaves is there: the facts of what was trained and, if it is tested, predictions.

    Predictions are written last and whole; in pre-training, and where nothing is tested, it is the facts that are.
    """
    ends_with_facts = not (job.scored and job.tested)
    return (job.folder / FACTS_FILE).exists() and (ends_with_facts or (job.folder / FILES["test"]).exists())


def is_outdated(job: Job) -> bool:
    """Whether the job was begun before the checkpoint was saved that it starts from."""
    claimed = job.folder / CONFIG_FILE
    sources = [needed / CHECKPOINTS / "best.ckpt" for needed in job.needs]
    return claimed.exists() and any(
        source.exists() and source.stat().st_mtime_ns > claimed.stat().st_mtime_ns for source in sources
    )


def run_jobs(jobs: Sequence[Job], max_epochs: int, console: Console) -> dict[Path, str]:
    """Run what is not done, one job after another.

    A job that fails does not stop the others, except those that need it.

    Args:
        jobs: The plan.
        max_epochs: Epochs of a job at most, for the view.
        console: Where to show progress.

    Returns:
        The reason by folder for every job that failed or could not start.
    """
    failures: dict[Path, str] = {}
    ordered = in_order(jobs)
    with ProgressView(ordered, max_epochs, console) as view:
        for job in ordered:
            if is_outdated(job):
                failures[job.folder] = "it started from a stage that was trained anew since; delete its folder"
                view.finish(job, "outdated")
            elif is_done(job):
                view.finish(job, "done before")
            elif missing := [str(needed) for needed in job.needs if needed in failures]:
                failures[job.folder] = f"not started: it needs {', '.join(missing)}"
                view.finish(job, "not started")
            else:
                status = _run_in_process(job, view)
                if status == 0 and is_done(job):
                    view.finish(job, "done")
                else:
                    failures[job.folder] = f"exit status {status}; the end of its log:\n{_log_tail(job)}"
                    view.finish(job, "failed")
    return failures


def _run_in_process(job: Job, view: "ProgressView") -> int:
    job.folder.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    environment = _ENVIRONMENT | inherited
    command = [sys.executable, "-m", "ser_lightning.cli", *job.command(), "--end-with-parent"]
    with (job.folder / LOG_FILE).open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                view.update(job)
                time.sleep(_POLL_SECONDS)
        finally:
            _stop(child)
    return child.returncode


def _stop(child: "subprocess.Popen[bytes]") -> None:
    """End a child that still runs, and whatever it has started."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.stdin:
        child.stdin.close()


def _log_tail(job: Job, lines: int = 20) -> str:
    return "\n".join((job.folder / LOG_FILE).read_text(errors="replace").splitlines()[-lines:])


class ProgressView(AbstractContextManager["ProgressView"]):
    """How far each job is: a live table in a terminal, a line now and then elsewhere.

    Args:
        jobs: The plan, in order.
        max_epochs: Epochs of a job at most.
        console: Where to show it.
    """

    def __init__(self, jobs: Sequence[Job], max_epochs: int, console: Console) -> None:
        self.max_epochs = max_epochs
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs  {task.fields[score]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self.titles = _titles(jobs)
        self.tasks: dict[Path, TaskID] = {
            folder: self.progress.add_task(title, total=max_epochs, start=False, score="waiting")
            for folder, title in self.titles.items()
        }
        self._shown: dict[Path, int] = {}

    def __enter__(self) -> Self:
        """Start drawing."""
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        if self.console.is_terminal:
            self.progress.stop()

    def update(self, job: Job) -> None:
        """Show the epochs that ``metrics.csv`` has."""
        if job.folder not in self._shown:
            self.progress.start_task(self.tasks[job.folder])
            self._shown[job.folder] = 0
            self._say(job, "starting")
        epochs, score = _epochs(job)
        if epochs == self._shown[job.folder]:
            return
        self.progress.update(self.tasks[job.folder], completed=epochs, score=score)
        # A log wants about ten lines a job, a terminal is drawn anew.
        step = max(self.max_epochs // 10, 1)
        if epochs // step > self._shown[job.folder] // step:
            self._say(job, f"epoch {epochs} of {self.max_epochs}, {score}")
        self._shown[job.folder] = epochs

    def finish(self, job: Job, how: str) -> None:
        """Show how a job ended."""
        epochs, score = _epochs(job)
        text = how if how == "not started" or not score else f"{how}, {score}"
        self.progress.start_task(self.tasks[job.folder])
        self.progress.update(self.tasks[job.folder], completed=epochs, total=max(epochs, 1), score=text)
        self.progress.stop_task(self.tasks[job.folder])
        self._say(job, text)

    def _say(self, job: Job, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(f"{self.titles[job.folder]}: {text}", highlight=False)


def _titles(jobs: Sequence[Job]) -> dict[Path, str]:
    """Return by folder what a job is called: its fold, with row and seed where there are several of them."""
    rows = {job.folder.parents[1] for job in jobs}
    seeds = {job.seed for job in jobs}

    def title(job: Job) -> str:
        row = f"{job.experiment.stem if job.row == DEFAULT_ROW else job.row} " if len(rows) > 1 else ""
        seed = f"seed {job.seed} " if len(seeds) > 1 else ""
        return f"{row}{seed}{job.folder.name}"

    return {job.folder: title(job) for job in jobs}


def _epochs(job: Job) -> tuple[int, str]:
    """Return the epochs on record and the best validation score so far, in words."""
    path = job.folder / "metrics.csv"
    if not path.exists():
        return 0, ""
    rows = pd.read_csv(path)
    return len(rows), f"validation UA {rows['validation/UA'].max():.1%} at best" if len(rows) else ""
