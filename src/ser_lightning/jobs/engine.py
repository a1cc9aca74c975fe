"""The resources of a job, and the engine that runs one job after another on this machine."""

import os
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Job
from ser_lightning.jobs.process import NOT_INHERITED, POLL_SECONDS, JobProcess


@dataclass(frozen=True)
class Resources:
    """What jobs may use.

    Attributes:
        jobs: Jobs at once at most; None: one, or on a cluster as many as it has room for.
        address: A Ray cluster's, such as ``head:6379``; None: this machine alone.
        gpus_per_job: GPUs of each job: a part of one, or whole ones, which share its batches (DDP); None: the trainer
            decides as its YAML says.
        cpus_per_job: Threads of each job; its processes share them.
        retries: How often a job that fails is started again, from its last checkpoint.
    """

    jobs: int | None = None
    address: str | None = None
    gpus_per_job: float | None = None
    cpus_per_job: int = 1
    retries: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.jobs is not None and self.jobs < 1:
            raise ConfigurationError(f"--jobs {self.jobs}: at least one job runs at once")
        if self.cpus_per_job < 1:
            raise ConfigurationError(f"--cpus-per-job {self.cpus_per_job}: a job needs at least one")
        if self.retries < 0:
            raise ConfigurationError(f"--retries {self.retries}: less than none is not possible")
        gpus = self.gpus_per_job
        if gpus is not None and (gpus <= 0 or (gpus > 1 and gpus != int(gpus))):
            raise ConfigurationError(
                f"--gpus-per-job {gpus:g}: a part of one GPU, such as 0.25, or a number of whole ones; without the "
                "option the YAML's trainer decides"
            )

    @property
    def at_once(self) -> int | None:
        """Jobs at once at most; None if the cluster's size decides."""
        return self.jobs if self.jobs or self.address else 1

    @property
    def devices(self) -> int:
        """Processes of a job: one, or one for each of several GPUs."""
        return int(self.gpus_per_job) if self.gpus_per_job and self.gpus_per_job > 1 else 1

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments that make a job's trainer use what it gets; none of them changes what a run is."""
        if self.gpus_per_job is None:
            return ()
        shared = ("--trainer.strategy=ddp",) if self.devices > 1 else ()
        return ("--trainer.accelerator=gpu", f"--trainer.devices={self.devices}", *shared)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make a job's processes use what they get."""
        return {"OMP_NUM_THREADS": str(max(self.cpus_per_job // self.devices, 1))}

    def __str__(self) -> str:
        """In words, of one job: ``1 CPU, 0.25 GPU``."""
        cpus = f"{self.cpus_per_job} CPU{'s' * (self.cpus_per_job > 1)}"
        return cpus if self.gpus_per_job is None else f"{cpus}, {self.gpus_per_job:g} GPU{'s' * (self.devices > 1)}"


PROGRAM = (sys.executable, "-m", "ser_lightning.cli")
# A machine that is gone holds its locks on a network file system for as long as the server grants (NFSv4: 90 s).
_LOCK_SECONDS = 180
_SECRET = "WANDB_API_KEY"


@dataclass(frozen=True)
class Ended:
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

    def ended(self) -> list[Ended]:
        """Wait a moment, and return what has ended since the last call."""


class OneAfterAnother(AbstractContextManager["OneAfterAnother"]):
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

    def ended(self) -> list[Ended]:
        """Wait a moment, and return the job that has ended, if it has."""
        time.sleep(POLL_SECONDS)
        found = [
            Ended(folder, status)
            for folder, process in self._running.items()
            if (status := process.status()) is not None
        ]
        for ended in found:
            del self._running[ended.folder]
            self._stack.close()
        return found


def command(job: Job, resources: Resources) -> list[str]:
    """Return the program and the arguments that run a job with what it gets."""
    patience = [f"--wait={_LOCK_SECONDS}"] if resources.address else []
    return [*PROGRAM, *job.command(resources.arguments()), *patience, "--end-with-parent"]


def environment(resources: Resources) -> dict[str, str]:
    """Return what a job's process gets on any machine: its threads, and how W&B is used here, but not its key."""
    wandb = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("WANDB_") and name not in (_SECRET, *NOT_INHERITED)
    }
    return wandb | resources.environment()
