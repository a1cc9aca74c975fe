"""The engine that runs one job after another on this machine, and what every engine gives a job's process."""

import os
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ser_lightning.jobs.plan import Job, Resources
from ser_lightning.jobs.process import NOT_INHERITED, POLL_SECONDS, JobProcess

PROGRAM = (sys.executable, "-m", "ser_lightning.cli")
# A machine that is gone holds its locks on a network file system for as long as the server grants (NFSv4: 90 s).
_LOCK_SECONDS = 180
_SECRET = "WANDB_API_KEY"


@dataclass(frozen=True)
class JobExit:
    """How a job's process ended.

    Attributes:
        folder: The job's folder.
        status: Exit status, negative for a signal; None if it was lost with its machine, through no fault of its own.
        note: What is known beyond the job's log.
    """

    folder: Path
    status: int | None
    note: str = ""


class Engine(Protocol):
    """Runs jobs; a context that stops those which still run when it is left."""

    at_once: int | None

    def __enter__(self) -> Self:
        """Get ready."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what runs."""

    def start(self, job: Job) -> None:
        """Start a job, at once or as soon as there is room for it."""

    def poll_exits(self) -> list[JobExit]:
        """Wait a moment, and return what has ended since the last call."""


class SequentialEngine(AbstractContextManager["SequentialEngine"]):
    """Runs one job at a time on this machine.

    Args:
        resources: What a job gets.
    """

    at_once: int | None = 1

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._running: dict[Path, JobProcess] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Nothing needs to be there first."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the job that runs."""
        self._stack.close()

    def start(self, job: Job) -> None:
        """Start a job's process."""
        process = JobProcess(command(job, self.resources), job.folder, Path.cwd(), environment(self.resources))
        self._running[job.folder] = self._stack.enter_context(process)

    def poll_exits(self) -> list[JobExit]:
        """Wait a moment, and return the job that has ended, if it has."""
        time.sleep(POLL_SECONDS)
        found = [
            JobExit(folder, status)
            for folder, process in self._running.items()
            if (status := process.status()) is not None
        ]
        for ended in found:
            del self._running[ended.folder]
            self._stack.close()
        return found


def command(job: Job, resources: Resources) -> list[str]:
    """Return the program and the arguments that run a job."""
    patience = [f"--wait={_LOCK_SECONDS}"] if resources.address else []
    return [*PROGRAM, *job.command(), *patience, "--end-with-parent"]


def environment(resources: Resources) -> dict[str, str]:
    """Return what a job's process gets on any machine: its threads, and how W&B is used here, but not its key."""
    wandb = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("WANDB_") and name not in (_SECRET, *NOT_INHERITED)
    }
    return wandb | resources.environment()
