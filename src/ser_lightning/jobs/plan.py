"""Jobs: resources, dependencies, state and its changes, and the printed plan."""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import flatten
from ser_lightning.runs.folder import CONFIG_FILE, file_hash, is_finished, recorded_sources, write_config

_MOST_NUMBERS = 10_000


@dataclass(frozen=True)
class Resources:
    """Resources of a plan and of each job.

    Attributes:
        jobs: Largest number of jobs at once; None: one, or on a cluster as many as fit.
        address: Address of a Ray cluster, such as ``head:6379``; None: this machine.
        gpus_per_job: GPUs of each job: a fraction of one, or whole ones that share its batches (DDP); None: as the
            YAML's trainer says.
        cpus_per_job: Threads of each job, shared by its processes.
        retries: Retries of a failed job, each from its last checkpoint.
    """

    jobs: int | None = None
    address: str | None = None
    gpus_per_job: float | None = None
    cpus_per_job: int = 1
    retries: int = 1

    def __post_init__(self) -> None:
        """Reject numbers out of range."""
        if self.jobs is not None and self.jobs < 1:
            raise ConfigurationError(f"--jobs {self.jobs}: must be at least 1")
        if self.cpus_per_job < 1:
            raise ConfigurationError(f"--cpus-per-job {self.cpus_per_job}: must be at least 1")
        if self.retries < 0:
            raise ConfigurationError(f"--retries {self.retries}: must be at least 0")
        gpus = self.gpus_per_job
        if gpus is not None and (gpus <= 0 or (gpus > 1 and gpus != int(gpus))):
            raise ConfigurationError(
                f"--gpus-per-job {gpus:g}: must be a fraction of one GPU, such as 0.25, or a whole number; without "
                "the option the YAML's trainer decides"
            )

    @property
    def at_once(self) -> int | None:
        """Largest number of jobs at once; None if the cluster's size decides."""
        return self.jobs if self.jobs or self.address else 1

    @property
    def devices(self) -> int:
        """Processes of a job: one, or one per GPU if it has several."""
        return int(self.gpus_per_job) if self.gpus_per_job and self.gpus_per_job > 1 else 1

    def trainer(self) -> dict[str, Any]:
        """Return the trainer's arguments for a job's GPUs; none of them changes a run's identity."""
        if self.gpus_per_job is None:
            return {}
        shared = {"strategy": "ddp"} if self.devices > 1 else {}
        return {"accelerator": "gpu", "devices": self.devices, **shared}

    def environment(self) -> dict[str, str]:
        """Return the environment variables that set the threads of a job's processes."""
        return {"OMP_NUM_THREADS": str(max(self.cpus_per_job // self.devices, 1))}

    def __str__(self) -> str:
        """Return a job's resources: ``1 CPU, 0.25 GPU``."""
        cpus = f"{self.cpus_per_job} CPU{'s' * (self.cpus_per_job > 1)}"
        return cpus if self.gpus_per_job is None else f"{cpus}, {self.gpus_per_job:g} GPU{'s' * (self.devices > 1)}"


@dataclass(frozen=True)
class Job:
    """One training run: an experiment, a seed, and a fold or none.

    Attributes:
        folder: The run's folder, which identifies the job.
        configuration: The whole resolved configuration, which the job's process reads from the folder.
        experiment: Name of the experiment.
        row: Row of a table.
        fold: Fold, counted from 0; None for pre-training on another corpus.
        seed: Seed of the run.
        needs: Folders of the jobs that it depends on.
        allow: Module prefixes that the user trusts.
        scored: Whether it writes predictions; pre-training writes a checkpoint only.
        tested: Whether it evaluates the test set; a trial of a sweep ends with the validation set.
        max_epochs: Largest number of epochs.
    """

    folder: Path
    configuration: Mapping[str, Any]
    experiment: str
    row: str
    fold: int | None
    seed: int
    needs: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()
    scored: bool = True
    tested: bool = True
    max_epochs: int = 1

    def command(self) -> list[str]:
        """Return the arguments of ``ser`` that run this job."""
        untested = [] if self.tested else ["--no-test"]
        trusted = [f"--allow={prefix}" for prefix in self.allow]
        return ["run-fold", f"--config={self.folder / CONFIG_FILE}", *untested, *trusted]


class Change(Enum):
    """How a job's state changed."""

    STARTED = "handed to the engine"
    FINISHED = "finished by this run"
    FOUND_DONE = "finished by an earlier run"
    RETRIED = "failed and queued again"
    LOST = "lost with its machine and queued again"
    FAILED = "failed, no retries left"
    NOT_STARTED = "rejected before its start"


@dataclass(frozen=True)
class JobEvent:
    """A change of one job's state.

    Attributes:
        job: The job.
        change: The change.
        note: The change in words, for the log.
    """

    job: Job
    change: Change
    note: str = ""


Observer = Callable[[JobEvent], None]
"""Called in the runner's thread between two polls; an exception ends the run."""


def sort_by_dependency(jobs: Sequence[Job]) -> list[Job]:
    """Return ``jobs`` with each job after its dependencies, otherwise in the given order.

    Raises:
        ConfigurationError: If a dependency is not planned, or dependencies form a cycle.
    """
    by_folder = {job.folder: job for job in jobs}
    for job in jobs:
        for needed in job.needs:
            if needed not in by_folder:
                raise ConfigurationError(f"{job.folder} needs {needed}, which is not planned")
    try:
        return [by_folder[folder] for folder in TopologicalSorter({j.folder: j.needs for j in jobs}).static_order()]
    except CycleError as error:
        cycle = " -> ".join(str(folder) for folder in error.args[1])
        raise ConfigurationError(f"the jobs' dependencies form a cycle: {cycle}") from error


def write_configurations(jobs: Iterable[Job]) -> None:
    """Write the configuration of each unfinished job into its folder."""
    for job in jobs:
        if not is_done(job):
            write_config(job.folder, job.configuration)


def parse_numbers(text: str, option: str, largest: int = 9999) -> list[int]:
    """Return the sorted, distinct numbers of a list such as ``0,3-5``.

    Args:
        text: The list.
        option: The option that holds it, for the error.
        largest: The largest possible number.

    Raises:
        ConfigurationError: If a part is neither a number nor a range, or a number is too large.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise ConfigurationError(f"{option} {text}: '{part}' is neither a number nor a range such as 3-5")
        if last > largest:
            raise ConfigurationError(f"{option} {text}: {last} is too large; the numbers are 0 to {largest}")
        if last - first > _MOST_NUMBERS:
            raise ConfigurationError(f"{option} {text}: {part} is more than {_MOST_NUMBERS} numbers")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def is_done(job: Job) -> bool:
    """Whether the job's results exist."""
    return is_finished(job.folder, job.scored, job.tested)


def is_outdated(job: Job) -> bool:
    """Whether a checkpoint that the job started from has changed since.

    Contents are compared, not modification times, which copying changes.
    """
    recorded = recorded_sources(job.folder)
    paths = {key: Path(str(value)) for key, value in flatten(job.configuration) if key in recorded}
    return any(path.is_file() and file_hash(path) != recorded[key] for key, path in paths.items())


Form = Literal["text", "json"]


def show_plan(jobs: Sequence[Job], resources: Resources, console: Console, form: Form) -> None:
    """Print a plan and write the configurations that its commands name; run nothing.

    Args:
        jobs: The plan.
        resources: Resources of the plan and of each job.
        console: Console for text; JSON goes to standard output.
        form: ``text`` or ``json``.
    """
    write_configurations(jobs)
    content = describe(jobs, resources)
    if form == "json":
        print(json.dumps(content, indent=2))
        return
    where = f"on the cluster at {resources.address}" if resources.address else "on this machine"
    at_once = "as many at once as fit" if resources.at_once is None else f"{resources.at_once} at once"
    waiting = sum(job["state"] != "done" for job in content["jobs"])
    lines = [
        f"{waiting} of {len(jobs)} jobs to run {where}, {at_once}, each with {resources}; retries: {resources.retries}"
    ]
    for job in content["jobs"]:
        dependencies = f", waits for {', '.join(job['waits_for'])}" if job["waits_for"] else ""
        lines.append(f"\n{job['folder']}: {job['state']}{dependencies}")
        variables = " ".join(f"{name}={value}" for name, value in job["environment"].items())
        lines.append(f"  {variables} {shlex.join(job['run_fold'])}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def describe(jobs: Sequence[Job], resources: Resources) -> dict[str, Any]:
    """Return a plan as JSON types: each job's command, resources, state and unfinished dependencies.

    Args:
        jobs: The plan.
        resources: Resources of the plan and of each job.
    """
    unfinished = {job.folder for job in jobs if not is_done(job)}
    return {
        "at_once": resources.at_once,
        "address": resources.address,
        "retries": resources.retries,
        "jobs": [
            {
                "folder": str(job.folder),
                "experiment": job.experiment,
                "row": job.row,
                "seed": job.seed,
                "fold": job.fold,
                "state": _state(job, unfinished),
                "waits_for": [str(need) for need in job.needs if need in unfinished],
                "resources": {"cpus": resources.cpus_per_job, "gpus": resources.gpus_per_job},
                "environment": resources.environment(),
                "run_fold": ["ser", *job.command()],
            }
            for job in sort_by_dependency(jobs)
        ],
    }


def _state(job: Job, unfinished: Set[Path]) -> str:
    if is_outdated(job):
        return "outdated: a stage it started from was retrained; delete its folder"
    if job.folder not in unfinished:
        return "done"
    return "waiting" if any(need in unfinished for need in job.needs) else "ready"
