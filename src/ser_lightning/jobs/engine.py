"""The engine interface, the sequential engine, and the arguments and environment of a job's process."""

import os
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ser_lightning.jobs.plan import Job, Resources
from ser_lightning.jobs.process import NOT_INHERITED, POLL_SECONDS, STATUS_SECONDS, JobProcess

PROGRAM = (sys.executable, "-m", "ser_lightning.cli")
# A network file system keeps the locks of a lost machine until their lease ends (NFSv4: 90 s).
_LOCK_SECONDS = 180
_SECRET = "WANDB_API_KEY"


@dataclass(frozen=True)
class JobExit:
    """How a job's process exited.

    Attributes:
        folder: The job's folder.
        status: Exit status, negative for a signal; None if its worker or machine was lost.
        note: Details that the job's log does not hold.
    """

    folder: Path
    status: int | None
    note: str = ""


class Engine(Protocol):
    """Runs jobs; leaving the context stops those that still run."""

    at_once: int | None

    def __enter__(self) -> Self:
        """Start the engine."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop running jobs."""

    def start(self, job: Job) -> None:
        """Start a job, or queue it until there is room."""

    def poll_exits(self) -> list[JobExit]:
        """Wait briefly; return the jobs that exited since the last call."""


class SequentialEngine(AbstractContextManager["SequentialEngine"]):
    """Runs one job at a time on this machine.

    Args:
        resources: Resources of each job.
    """

    at_once: int | None = 1

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._running: dict[Path, JobProcess] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Return itself: nothing needs to be started."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the running job."""
        self._stack.close()

    def start(self, job: Job) -> None:
        """Start a job's process."""
        process = JobProcess(
            PROGRAM, arguments(job, self.resources), job.folder, Path.cwd(), environment(self.resources)
        )
        self._running[job.folder] = self._stack.enter_context(process)

    def poll_exits(self) -> list[JobExit]:
        """Wait briefly; return the job if it has exited."""
        until = time.monotonic() + POLL_SECONDS
        while time.monotonic() < until:
            time.sleep(STATUS_SECONDS)
            for folder, process in self._running.items():
                if (status := process.status()) is not None:
                    del self._running[folder]
                    self._stack.close()
                    return [JobExit(folder, status)]
        return []


def arguments(job: Job, resources: Resources) -> list[str]:
    """Return the arguments of ``ser`` that run a job and end it with its parent."""
    wait = [f"--wait={_LOCK_SECONDS}"] if resources.address else []
    return [*job.command(), *wait, "--end-with-parent"]


def environment(resources: Resources) -> dict[str, str]:
    """Return a job's environment variables on any machine: threads and W&B settings, without W&B's key."""
    wandb = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("WANDB_") and name not in (_SECRET, *NOT_INHERITED)
    }
    return wandb | resources.environment()
