"""How to run many jobs: what is ready is started, what fails is tried again, and the rest goes on."""

import importlib.util
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.engine import Ended, Engine, OneAfterAnother
from ser_lightning.jobs.plan import Job, Resources, in_order, is_done, is_outdated
from ser_lightning.jobs.process import LOG_FILE, REFUSED
from ser_lightning.jobs.progress import ProgressView

RAY_EXTRA = "in the clone, pip install -e '.[ray]', or make setup-dev"
# A job whose machine is lost that often is what takes its machines down.
_MOST_LOSSES = 10
# How long a machine may take to see what another one has written: NFS remembers for a minute by default.
_SIGHT_SECONDS = 65.0


def run_jobs(jobs: Sequence[Job], console: Console, resources: Resources | None = None) -> dict[Path, str]:
    """Run what is not done, each job once those it needs are done.

    A job that fails is tried again as often as ``resources`` say, from its last checkpoint; one that is lost with its
    machine is run elsewhere. Neither stops the others, except those that need it. What the user has to mend is not
    tried again.

    Args:
        jobs: The plan.
        console: Where to show progress.
        resources: How many at once, where, and what each gets; None: one after another.

    Returns:
        The reason by folder for every job that failed or could not start.

    Raises:
        ConfigurationError: If the cluster cannot be joined, or has no machine that a job fits on.
    """
    resources = resources or Resources()
    ordered = in_order(jobs)
    with ProgressView(ordered, console) as view:
        progress = _Progress(ordered, view, resources)
        progress.settle()
        if progress.ready:  # Ray takes seconds to start, which a finished table need not wait for
            with _engine(resources, console) as engine, _terminated_like_interrupted():
                _run(progress, engine, view)
    return progress.failures


def _run(progress: "_Progress", engine: Engine, view: ProgressView) -> None:
    running: set[Path] = set()
    while progress.ready or running or progress.unseen:
        while progress.ready and (engine.at_once is None or len(running) < engine.at_once):
            job = progress.ready.popleft()
            view.begin(job)
            engine.start(job)
            running.add(job.folder)
        for ended in engine.ended():
            running.remove(ended.folder)
            progress.end(ended)
        progress.look_again()
        progress.settle()
        view.update()


class _Progress:
    """What waits, what is ready and what has failed.

    Args:
        ordered: The plan, each job behind those it needs.
        view: Where to show how jobs end.
        resources: How often a job that fails is started again, and whether other machines run jobs.
    """

    def __init__(self, ordered: Sequence[Job], view: ProgressView, resources: Resources) -> None:
        self.ready: deque[Job] = deque()
        self.unseen: dict[Path, float] = {}  # what ended well and left nothing to see yet, and when to give up looking
        self.failures: dict[Path, str] = {}
        self._jobs = {job.folder: job for job in ordered}
        self._waiting = list(ordered)
        self._done: set[Path] = set()
        self._view = view
        self._retries = resources.retries
        self._patience = _SIGHT_SECONDS if resources.address else 0.0
        self._failed: Counter[Path] = Counter()
        self._lost: Counter[Path] = Counter()

    def settle(self) -> None:
        """Sort out the waiting jobs whose needs have ended: into done, failed and ready."""
        still = []
        for job in self._waiting:
            if any(need not in self._done and need not in self.failures for need in job.needs):
                still.append(job)
            elif is_outdated(job):
                self._fail(job, "it started from a stage that was trained anew since; delete its folder", "outdated")
            elif is_done(job):
                self._finish(job, "done before")
            elif missing := [str(need) for need in job.needs if need in self.failures]:
                self._fail(job, f"not started: it needs {', '.join(missing)}", "not started")
            else:
                self.ready.append(job)
        self._waiting = still

    def end(self, ended: Ended) -> None:
        """Take note of how a job ended: done, to be tried again, or failed."""
        job = self._jobs[ended.folder]
        if is_done(job):
            # An error behind the last file, of W&B or in tearing down, makes the results no worse.
            badly = f", although its process ended badly ({_how(ended.status)}; see {LOG_FILE})" if ended.status else ""
            self.unseen.pop(job.folder, None)
            self._finish(job, f"done{badly}")
        elif ended.status == 0 and self._may_be_seen(job):
            return
        elif ended.status is None:
            self._lost[job.folder] += 1
            if self._lost[job.folder] < _MOST_LOSSES:
                self._again(job, f"lost ({ended.note}), run elsewhere")
            else:
                self._fail(job, f"lost {_MOST_LOSSES} times with the machine it ran on: {ended.note}", "failed")
        elif ended.status == REFUSED:
            self.unseen.pop(job.folder, None)
            self._fail(job, _refusal(job), "failed")
        else:
            self.unseen.pop(job.folder, None)
            self._failed[job.folder] += 1
            if self._failed[job.folder] <= self._retries:
                self._again(job, f"failed ({_how(ended.status)}), tried again")
            else:
                times = f" {self._retries + 1} times" if self._retries else ""
                end = ended.note or f"the end of its log:\n{_log_tail(job)}"
                self._fail(job, f"failed{times}, {_how(ended.status)}; {end}", "failed")

    def _may_be_seen(self, job: Job) -> bool:
        """Whether there may be files of another machine's which this one does not see yet."""
        now = time.monotonic()
        return now < self.unseen.setdefault(job.folder, now + self._patience)

    def look_again(self) -> None:
        """Look for what jobs that ended well have written on other machines."""
        for folder in list(self.unseen):
            self.end(Ended(folder, 0))

    def _again(self, job: Job, why: str) -> None:
        self.ready.appendleft(job)
        self._view.await_again(job, why)

    def _finish(self, job: Job, how: str) -> None:
        self._done.add(job.folder)
        self._view.finish(job, how)

    def _fail(self, job: Job, reason: str, how: str) -> None:
        self.failures[job.folder] = reason
        self._view.finish(job, how)


def _engine(resources: Resources, console: Console) -> Engine:
    if resources.at_once == 1 and not resources.address:
        return OneAfterAnother(resources)
    if importlib.util.find_spec("ray") is not None:
        from ser_lightning.jobs.ray_engine import RayEngine

        return RayEngine(resources)
    if resources.address:
        raise ConfigurationError(f"--address {resources.address} needs Ray: {RAY_EXTRA}")
    console.print(
        f"--jobs {resources.jobs} needs Ray ({RAY_EXTRA}); without it jobs run one after another",
        highlight=False,
        markup=False,
    )
    return OneAfterAnother(resources)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, which a batch system sends before it kills, stop jobs in the same way as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier or signal.SIG_DFL)


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"ended by {signal.Signals(-status).name}"


def _refusal(job: Job) -> str:
    """Return the error that a job's log ends with, without its place: other jobs may have met the same one."""
    return re.split(r"^error: ", _log_tail(job, lines=1000), flags=re.MULTILINE)[-1]


def _log_tail(job: Job, lines: int = 20) -> str:
    path = job.folder / LOG_FILE
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(there is none)"
