"""A job's progress, read from its folder, and the time that a plan still takes."""

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ser_lightning.jobs.process import LOG_FILE
from ser_lightning.runs.facts import METRICS_FILE, read_metrics

_SCORE = "validation/UA"


@dataclass
class JobProgress:
    """A job's progress.

    Attributes:
        folder: The job's folder.
        max_epochs: Largest number of epochs.
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        epochs: Epochs in the metrics file.
        epochs_before: Epochs in the metrics file when the job was started.
        score: Test UA of a finished job, else the best validation UA so far; between 0 and 1, NaN if there is none.
        began: Time at which the process wrote its first line, in seconds; None before.
        ended: Time at which it ended, in seconds.
        log_size: Size of the log when the job was handed to the engine, in bytes.
        read: Modification time and size of the metrics file when it was last read.
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
        """Record that the job was handed to the engine."""
        self.read_epochs()
        self.epochs_before = self.epochs
        self.log_size = self._size_of_log()
        self.began = self.ended = None

    def has_begun(self) -> bool:
        """Whether the process has written to the log since."""
        return self.began is not None or self._size_of_log() != self.log_size

    def begin(self) -> None:
        """Record that the process runs."""
        self.state, self.began = "running", time.monotonic()

    def end(self, state: str) -> None:
        """Record the job's end and its new state."""
        self.state, self.ended = state, time.monotonic()

    def read_epochs(self) -> None:
        """Read the number of epochs and the best validation score, if the metrics file has changed."""
        path = self.folder / METRICS_FILE
        try:
            found = path.stat()
            changed = (found.st_mtime_ns, found.st_size)  # the size too: file systems' clocks tick in milliseconds
            if changed == self.read:
                return
        except OSError:  # a stale handle of a network file system
            return
        rows = read_metrics(self.folder)
        if rows is not None:
            score = float(rows[_SCORE].max()) if _SCORE in rows else math.nan
            self.read, self.epochs, self.score = changed, len(rows), score

    def _size_of_log(self) -> int:
        try:
            return (self.folder / LOG_FILE).stat().st_size
        except OSError:
            return 0


def seconds_left(jobs: Collection[JobProgress]) -> float | None:
    """Estimate the remaining seconds; None if no epoch was measured yet or nothing is left.

    A row's jobs are expected to run at the row's measured pace, or the overall one, for as many epochs as its finished
    jobs took on average, which may have stopped early.
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
    """Return the seconds per epoch over the epochs of this run; None if there are none."""
    measured = [job for job in jobs if job.began is not None and job.epochs > job.epochs_before]
    if not measured:
        return None
    seconds = sum((job.ended or now) - (job.began or now) for job in measured)
    return seconds / sum(job.epochs - job.epochs_before for job in measured)
