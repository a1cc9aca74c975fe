"""The runner: starts jobs whose dependencies finished, retries failures, and notifies observers."""

import importlib.util
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.engine import Engine, JobExit, SequentialEngine
from ser_lightning.jobs.live_table import JobTable
from ser_lightning.jobs.plan import Change, Job, JobEvent, Observer, Resources, is_done, is_outdated, sort_by_dependency
from ser_lightning.jobs.process import LOG_FILE, USER_ERROR

INSTALL_RAY = "in the clone, pip install -e '.[ray]', or make setup-dev"
# A job that loses its machine this often is probably the cause.
_MAX_LOSSES = 10
# How long files of another machine may stay invisible here: NFS caches for a minute by default.
_FILE_DELAY_SECONDS = 65.0


def run_jobs(
    jobs: Sequence[Job], console: Console, resources: Resources | None = None, observers: Sequence[Observer] = ()
) -> dict[Path, str]:
    """Run the unfinished jobs, each after its dependencies.

    A failed job is retried ``resources.retries`` times from its last checkpoint; a job lost with its machine is
    rescheduled. A failure stops only the jobs that depend on it. Errors that only the user can fix are not retried.

    Args:
        jobs: The plan.
        console: Console for progress.
        resources: Resources of the plan and of each job; None: one job after another.
        observers: Called with each change of a job's state.

    Returns:
        The reason, by folder, for each job that failed or could not start.

    Raises:
        ConfigurationError: If the cluster cannot be joined, or a job fits on no machine.
    """
    resources = resources or Resources()
    ordered = sort_by_dependency(jobs)
    with JobTable(ordered, console) as table:
        schedule = _Schedule(ordered, (table, *observers), resources)
        schedule.resolve_waiting()
        if schedule.ready:  # starting Ray takes seconds: skip it if everything is done
            with _engine(resources, console) as engine:
                _run(schedule, engine, table)
    return schedule.failures


def _run(schedule: "_Schedule", engine: Engine, table: JobTable) -> None:
    running: set[Path] = set()
    while schedule.ready or running or schedule.unconfirmed:
        while schedule.ready and (engine.at_once is None or len(running) < engine.at_once):
            job = schedule.start_next()
            engine.start(job)
            running.add(job.folder)
        for job_exit in engine.poll_exits():
            running.remove(job_exit.folder)
            schedule.end(job_exit)
        schedule.recheck()
        schedule.resolve_waiting()
        table.poll()


class _Schedule:
    """Waiting, ready, finished and failed jobs; notifies observers of each change.

    Args:
        ordered: The plan, each job after its dependencies.
        observers: Called with each change of a job's state.
        resources: Number of retries, and whether other machines run jobs.
    """

    def __init__(self, ordered: Sequence[Job], observers: Sequence[Observer], resources: Resources) -> None:
        self.ready: deque[Job] = deque()
        self.unconfirmed: dict[Path, float] = {}  # exited with status 0, files not visible yet: when to give up
        self.failures: dict[Path, str] = {}
        self._jobs = {job.folder: job for job in ordered}
        self._waiting = list(ordered)
        self._done: set[Path] = set()
        self._observers = observers
        self._retries = resources.retries
        self._file_delay = _FILE_DELAY_SECONDS if resources.address else 0.0
        self._failed: Counter[Path] = Counter()
        self._lost: Counter[Path] = Counter()

    def resolve_waiting(self) -> None:
        """Resolve waiting jobs whose dependencies finished into done, failed and ready."""
        still = []
        for job in self._waiting:
            if any(need not in self._done and need not in self.failures for need in job.needs):
                still.append(job)
            elif is_outdated(job):
                reason = "a stage it started from was retrained; delete its folder"
                self._fail(job, reason, Change.NOT_STARTED, "outdated")
            elif is_done(job):
                self._finish(job, Change.FOUND_DONE, "already done")
            elif missing := [str(need) for need in job.needs if need in self.failures]:
                self._fail(job, f"not started: it needs {', '.join(missing)}", Change.NOT_STARTED, "not started")
            else:
                self.ready.append(job)
        self._waiting = still

    def start_next(self) -> Job:
        """Return the next ready job, which the caller starts."""
        job = self.ready.popleft()
        self._notify(job, Change.STARTED)
        return job

    def end(self, job_exit: JobExit) -> None:
        """Record a job's exit: done, to be retried, or failed."""
        job, status = self._jobs[job_exit.folder], job_exit.status
        if is_done(job):
            # An error after the last file, in W&B or teardown, does not affect the results.
            warning = f", but its process failed at the end ({_status_text(status)}; see {LOG_FILE})" if status else ""
            self.unconfirmed.pop(job.folder, None)
            self._finish(job, Change.FINISHED, f"done{warning}")
        elif status == 0 and self._may_appear_later(job):
            return
        elif status is None:
            self._lost[job.folder] += 1
            if self._lost[job.folder] < _MAX_LOSSES:
                self._queue_again(job, Change.LOST, f"lost ({job_exit.note}), will be rescheduled")
            else:
                self._fail(job, f"lost {_MAX_LOSSES} times with its machine: {job_exit.note}")
        elif status == USER_ERROR:
            self.unconfirmed.pop(job.folder, None)
            self._fail(job, _user_error(job))
        else:
            self.unconfirmed.pop(job.folder, None)
            self._failed[job.folder] += 1
            if self._failed[job.folder] <= self._retries:
                self._queue_again(job, Change.RETRIED, f"failed ({_status_text(status)}), will be retried")
            else:
                times = f" {self._retries + 1} times" if self._retries else ""
                end = job_exit.note or _last_error(job)
                self._fail(job, f"failed{times}, {_status_text(status)}; {end}")

    def _may_appear_later(self, job: Job) -> bool:
        """Whether files written by another machine may still become visible here."""
        now = time.monotonic()
        return now < self.unconfirmed.setdefault(job.folder, now + self._file_delay)

    def recheck(self) -> None:
        """Look again for the files of jobs that exited with status 0."""
        for folder in list(self.unconfirmed):
            self.end(JobExit(folder, 0))

    def _queue_again(self, job: Job, change: Change, note: str) -> None:
        self.ready.appendleft(job)
        self._notify(job, change, note)

    def _finish(self, job: Job, change: Change, note: str) -> None:
        self._done.add(job.folder)
        self._notify(job, change, note)

    def _fail(self, job: Job, reason: str, change: Change = Change.FAILED, note: str = "failed") -> None:
        self.failures[job.folder] = reason
        self._notify(job, change, note)

    def _notify(self, job: Job, change: Change, note: str = "") -> None:
        for observer in self._observers:
            observer(JobEvent(job, change, note))


def _engine(resources: Resources, console: Console) -> Engine:
    if resources.at_once == 1 and not resources.address:
        return SequentialEngine(resources)
    if importlib.util.find_spec("ray") is not None:
        from ser_lightning.jobs.ray_engine import RayEngine

        return RayEngine(resources)
    if resources.address:
        raise ConfigurationError(f"--address {resources.address} needs Ray: {INSTALL_RAY}")
    console.print(
        f"--jobs {resources.jobs} needs Ray ({INSTALL_RAY}); without it jobs run one after another",
        highlight=False,
        markup=False,
    )
    return SequentialEngine(resources)


def _status_text(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"ended by {signal.Signals(-status).name}"


def _user_error(job: Job) -> str:
    """Return the error message at the end of a job's log; jobs with equal messages are reported together."""
    return re.split(r"^error: ", _log_tail(job, lines=1000), flags=re.MULTILINE)[-1]


def _last_error(job: Job) -> str:
    """Return the error in the last line of a job's log, or the end of the log."""
    end = _log_tail(job)
    last = end.rpartition("\n")[2]
    if last.startswith("error: "):
        return f"{last} (traceback: {job.folder / LOG_FILE})"
    return f"end of its log:\n{end}"


def _log_tail(job: Job, lines: int = 20) -> str:
    path = job.folder / LOG_FILE
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(there is none)"
