"""How far one job is, read from what it leaves in its folder, and how long several will take.

Whoever looks on must not end what it looks at: a file that another machine is just replacing is read next time.
"""

import json
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_lightning.cross_validation.job_process import LOG_FILE
from ser_lightning.reports.soft_scores import SCORES_FILE

_METRICS_FILE = "metrics.csv"
_SCORE = "validation/UA"


@dataclass
class JobProgress:
    """One job as it is shown.

    Attributes:
        folder: The job's folder.
        group: Index of the table's row.
        max_epochs: Its epochs at most.
        state: ``waiting``, ``running``, ``done`` or ``failed``.
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
    max_epochs: int
    state: str = "waiting"
    epochs: int = 0
    epochs_before: int = 0
    score: float = math.nan
    began: float | None = None
    ended: float | None = None
    log_size: int = 0
    read: tuple[int, int] = (0, 0)

    def begin(self) -> None:
        """Take note that it is handed to what runs it."""
        self.read_epochs()
        self.epochs_before = self.epochs
        self.log_size = self._size_of_log()
        self.began = self.ended = None

    def has_begun(self) -> bool:
        """Whether it has written a line since it was handed over."""
        return self.began is not None or self._size_of_log() != self.log_size

    def run(self) -> None:
        """Take note that it runs from now on."""
        self.state, self.began = "running", time.monotonic()

    def end(self, state: str) -> None:
        """Take note that it has ended, and what it is then."""
        self.state, self.ended = state, time.monotonic()

    def read_epochs(self) -> None:
        """Read the epochs on record and the best validation score so far, if the file is new."""
        path = self.folder / _METRICS_FILE
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

    def test_score(self) -> float:
        """Return the test UA, a share of 1, or NaN where there is none."""
        try:
            return float(json.loads((self.folder / SCORES_FILE).read_text())["UA"])
        except (OSError, ValueError, KeyError, TypeError):  # the report says what is wrong with it
            return math.nan

    def _size_of_log(self) -> int:
        try:
            return (self.folder / LOG_FILE).stat().st_size
        except OSError:
            return 0


def seconds_left(jobs: Collection[JobProgress]) -> float | None:
    """Return about how many seconds the rest takes; None before an epoch was measured, and where nothing is left.

    A row's jobs go on at the pace of those measured here, or of all where a row has none yet, for as many epochs as
    its finished ones took: they may have stopped early.
    """
    now = time.monotonic()
    paces = {job.group: _pace([other for other in jobs if other.group == job.group], now) for job in jobs}
    overall = _pace(list(jobs), now)
    rest = [job for job in jobs if job.state in ("waiting", "running")]
    if overall is None or not rest:
        return None
    lengths = []
    for job in rest:
        finished = [other.epochs for other in jobs if other.group == job.group and other.state == "done"]
        finished = [epochs for epochs in finished if epochs]
        expected = sum(finished) / len(finished) if finished else job.max_epochs
        lengths.append(max(expected - job.epochs, 0) * (paces[job.group] or overall))
    at_once = max(sum(job.state == "running" for job in jobs), 1)
    return max(sum(lengths) / at_once, max(lengths))


def _pace(jobs: Sequence[JobProgress], now: float) -> float | None:
    """Return seconds per epoch over what was run here."""
    measured = [job for job in jobs if job.began is not None and job.epochs > job.epochs_before]
    if not measured:
        return None
    seconds = sum((job.ended or now) - (job.began or now) for job in measured)
    return seconds / sum(job.epochs - job.epochs_before for job in measured)
