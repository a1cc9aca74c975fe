"""What to run and with what: jobs, what they depend on, whether they are done, and a plan in print."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import flatten
from ser_lightning.runs.folder import (
    CONFIG_FILE,
    file_hash,
    is_finished,
    recorded_sources,
    write_config,
)


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

    def trainer(self) -> dict[str, Any]:
        """Return the trainer's arguments that make it use what a job gets; none of them changes what a run is."""
        if self.gpus_per_job is None:
            return {}
        shared = {"strategy": "ddp"} if self.devices > 1 else {}
        return {"accelerator": "gpu", "devices": self.devices, **shared}

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make a job's processes use what they get."""
        return {"OMP_NUM_THREADS": str(max(self.cpus_per_job // self.devices, 1))}

    def __str__(self) -> str:
        """In words, of one job: ``1 CPU, 0.25 GPU``."""
        cpus = f"{self.cpus_per_job} CPU{'s' * (self.cpus_per_job > 1)}"
        return cpus if self.gpus_per_job is None else f"{cpus}, {self.gpus_per_job:g} GPU{'s' * (self.devices > 1)}"


@dataclass(frozen=True)
class Job:
    """One training: an experiment, on one fold or independent of folds, under one seed.

    Attributes:
        folder: Where the run is; also what names the job.
        configuration: Its whole resolved configuration, which its process reads from the folder.
        experiment: Name of its experiment.
        row: Row of a table.
        fold: Fold, counted from 0; None for a job that belongs to no fold (pre-training on another corpus).
        seed: Seed of the run.
        needs: Folders of the jobs that must be done before.
        allow: Module prefixes that the user trusts.
        scored: Whether it leaves predictions; pre-training leaves its checkpoint alone.
        tested: Whether the test set is looked at; a trial of a sweep ends with its validation set's predictions.
        max_epochs: Epochs at most.
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
        """Return the arguments of ``ser`` that run this job, whole."""
        untested = [] if self.tested else ["--no-test"]
        trusted = [f"--allow={prefix}" for prefix in self.allow]
        return ["run-fold", f"--config={self.folder / CONFIG_FILE}", *untested, *trusted]


def sort_by_dependency(jobs: Sequence[Job]) -> list[Job]:
    """Return ``jobs`` so that each comes behind those it needs; otherwise the order stays.

    Raises:
        ConfigurationError: If a job needs one that is not planned, or jobs need each other in a circle.
    """
    by_folder = {job.folder: job for job in jobs}
    for job in jobs:
        for needed in job.needs:
            if needed not in by_folder:
                raise ConfigurationError(f"{job.folder} needs {needed}, which is not part of the plan")
    try:
        return [by_folder[folder] for folder in TopologicalSorter({j.folder: j.needs for j in jobs}).static_order()]
    except CycleError as error:
        circle = " -> ".join(str(folder) for folder in error.args[1])
        raise ConfigurationError(f"these jobs need each other in a circle: {circle}") from error


def write_configurations(jobs: Iterable[Job]) -> None:
    """Write the configuration of each job that is not done into its folder, where its process reads it."""
    for job in jobs:
        if not is_done(job):
            write_config(job.folder, job.configuration)


def parse_numbers(text: str, option: str) -> list[int]:
    """Return the numbers of a list such as ``0,3-5``, sorted, each once.

    Args:
        text: The list.
        option: The option it was given to, for the error.

    Raises:
        ConfigurationError: If a part is neither a number nor a range.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise ConfigurationError(f"{option} {text}: '{part}' is neither a number nor a range such as 3-5")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def is_done(job: Job) -> bool:
    """Whether what the job leaves is there."""
    return is_finished(job.folder, job.scored, job.tested)


def is_outdated(job: Job) -> bool:
    """Whether the job started from other checkpoints than are there now.

    Contents are compared, not times: copying runs changes these.
    """
    recorded = recorded_sources(job.folder)
    paths = {key: Path(str(value)) for key, value in flatten(job.configuration) if key in recorded}
    return any(path.is_file() and file_hash(path) != recorded[key] for key, path in paths.items())


Form = Literal["text", "json"]


def show_plan(jobs: Sequence[Job], resources: Resources, console: Console, form: Form) -> None:
    """Print a plan, and write the configurations that its commands name; nothing is run.

    Args:
        jobs: The plan.
        resources: How many jobs at once, where, and what each gets.
        console: Where to print text; JSON goes to standard output.
        form: ``text`` to read, or ``json`` for programs.
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
        behind = f", waits for {', '.join(job['waits_for'])}" if job["waits_for"] else ""
        lines.append(f"\n{job['folder']}: {job['state']}{behind}")
        variables = " ".join(f"{name}={value}" for name, value in job["environment"].items())
        lines.append(f"  {variables} {shlex.join(job['run_fold'])}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def describe(jobs: Sequence[Job], resources: Resources) -> dict[str, Any]:
    """Return a plan as JSON's types: each job's command, resources and state, and the folders it waits for.

    Args:
        jobs: The plan.
        resources: How many jobs at once, where, and what each gets.
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
        return "outdated: a stage it started from was trained anew since; delete its folder"
    if job.folder not in unfinished:
        return "done"
    return "waiting" if any(need in unfinished for need in job.needs) else "ready"
