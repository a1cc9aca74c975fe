"""What to run: jobs, what they depend on, and how far each is."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.runs.folder import (
    DEFAULT_ROW,
    file_hash,
    fold_name,
    is_finished,
    recorded_sources,
    seed_name,
)


@dataclass(frozen=True)
class Job:
    """One training: an experiment, on one fold or independent of folds, under one seed.

    Attributes:
        experiment: The YAML file.
        overrides: Arguments for LightningCLI behind it.
        fold: Fold, counted from 0; None for a job that belongs to no fold (pre-training on another corpus).
        seed: Seed of the run.
        folder: Where the run lies; also what names the job.
        row: Row of a table.
        needs: Folders of the jobs that must be done before.
        own: Arguments of this job alone, such as the checkpoint it starts from.
        allow: Module prefixes that the user trusts.
        scored: Whether it leaves predictions; pre-training leaves its checkpoint alone.
        tested: Whether the test set is looked at; a trial of a sweep ends with its validation set's predictions.
        max_epochs: Epochs at most.
        keeps_strategy: Whether its files or arguments choose how several processes train it, such as DDP that looks for
            unused parameters.
    """

    experiment: Path
    overrides: tuple[str, ...]
    fold: int | None
    seed: int
    folder: Path
    row: str = DEFAULT_ROW
    needs: tuple[Path, ...] = ()
    own: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    scored: bool = True
    tested: bool = True
    max_epochs: int = 1
    keeps_strategy: bool = False

    def arguments(self) -> list[str]:
        """Return LightningCLI's arguments for this job, without a subcommand."""
        fold = [] if self.fold is None else [f"--data.init_args.fold={self.fold}"]
        placed = [f"--seed_everything={self.seed}", f"--trainer.default_root_dir={self.folder}"]
        return [f"--config={self.experiment}", *self.overrides, *self.own, *fold, *placed]

    def command(self, more: Sequence[str] = ()) -> list[str]:
        """Return the arguments of ``ser`` that run this job, whole.

        Args:
            more: Arguments for LightningCLI of this execution alone, such as the number of devices.
        """
        untested = [] if self.tested else ["--no-test"]
        return ["run-fold", *untested, *self._own_options(), *self.arguments(), *self._unlike_chosen(more)]

    def fit_command(self, more: Sequence[str] = ()) -> list[str]:
        """Return the arguments of ``ser`` that do this job's training and nothing behind it.

        Args:
            more: Arguments for LightningCLI of this execution alone, such as the number of devices.
        """
        return ["fit", *self._own_options(), *self.arguments(), *self._unlike_chosen(more)]

    def _own_options(self) -> list[str]:
        return ["--row", self.row, *(argument for prefix in self.allow for argument in ("--allow", prefix))]

    def _unlike_chosen(self, more: Sequence[str]) -> list[str]:
        """Leave out a strategy where the user has chosen one."""
        return [
            argument for argument in more if not (self.keeps_strategy and argument.startswith("--trainer.strategy"))
        ]


def plan_folds(
    experiment: Path,
    overrides: Sequence[str],
    folds: Iterable[int],
    seeds: Iterable[int],
    group_folder: Path,
    row: str = DEFAULT_ROW,
    allow: Sequence[str] = (),
) -> list[Job]:
    """Return one job for each seed and fold.

    Args:
        experiment: The YAML file.
        overrides: Arguments for LightningCLI behind it.
        folds: Folds to run.
        seeds: Seeds to run.
        group_folder: Folder above the seeds' folders.
        row: Row of a table.
        allow: Module prefixes that the user trusts.
    """
    return [
        Job(
            experiment=experiment,
            overrides=tuple(overrides),
            fold=fold,
            seed=seed,
            folder=group_folder / seed_name(seed) / fold_name(fold),
            row=row,
            allow=tuple(allow),
        )
        for seed in seeds
        for fold in folds
    ]


def in_order(jobs: Sequence[Job]) -> list[Job]:
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


def write_plan(jobs: Sequence[Job], path: Path) -> None:
    """Write ``jobs`` as JSON to ``path``, atomically, beside those that stand there: of other folds, planned before.

    Raises:
        ConfigurationError: If what stands there is no plan.
    """
    now = json.loads(json.dumps([asdict(job) for job in jobs], default=str))
    try:
        earlier = json.loads(path.read_text()) if path.exists() else []
        by_folder = {entry["folder"]: entry for entry in (*earlier, *now)}
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"{path} is no plan of jobs ({error!r}); delete it: nothing that is finished is lost with it"
        ) from error
    ordered = [by_folder[folder] for folder in sorted(by_folder)]
    write_atomically(path, json.dumps(ordered, indent=2).encode())


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
    """Whether the job started from other checkpoints than lie there now.

    Contents are compared, not times: who copies runs changes these.
    """
    recorded = recorded_sources(job.folder)
    given = dict(argument.removeprefix("--").split("=", 1) for argument in job.own)
    return any(
        key in given and (path := Path(given[key])).is_file() and file_hash(path) != hash_then
        for key, hash_then in recorded.items()
    )
