"""Run a sweep without a W&B server: Optuna draws the trials.

A trial is a cross-validation that ends with the validation sets, in a folder named after its parameters. Its objective
is the mean validation score. Only the best trial is tested.
"""

import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ser_lightning.cross_validation.cross_validate import cross_validate, run_planned
from ser_lightning.cross_validation.planner import RunOptions, build_on_cpu, plan_experiment
from ser_lightning.cross_validation.wandb import log_summary_runs
from ser_lightning.errors import SerError
from ser_lightning.files import locked, write_atomically
from ser_lightning.jobs.plan import Form, Job, parse_numbers, show_plan
from ser_lightning.reports.figures import save
from ser_lightning.runs.names import DEFAULT_ROW, check_folder_name, in_words, trial_row
from ser_lightning.runs.summary import OBJECTIVES, over_folds
from ser_lightning.sweeps.file import Method, Sweep, trial_arguments
from ser_lightning.sweeps.report import parameter_figure, trials_table
from ser_lightning.sweeps.space import Range
from ser_lightning.sweeps.study import RANDOM_BEFORE_BAYES
from ser_lightning.sweeps.trials import (
    FAILED,
    RunningTrial,
    TrialReassignedError,
    TrialStore,
    trial_parameters,
    trial_record,
)

# Trials at once on a cluster of unknown size. More would be drawn without the results of earlier ones.
_TRIALS_ON_A_CLUSTER = 8


@dataclass(frozen=True)
class SweepSettings:
    """Settings that all trials of a sweep share.

    Attributes:
        sweep: The sweep.
        arguments: LightningCLI's arguments for every trial.
        row: The sweep's name given by the user, or the default.
        options: Folds, seeds, folders and resources.
        console: Console for progress.
    """

    sweep: Sweep
    arguments: tuple[str, ...]
    row: str
    options: RunOptions
    console: Console

    def plan(self, parameters: dict[str, Any]) -> list[Job]:
        """Plan a trial's jobs, which do not evaluate the test set."""
        return plan_experiment(self.trial(parameters), replace(self.options, tested=False), self.console)

    def trial(self, parameters: dict[str, Any]) -> list[str]:
        """Return LightningCLI's arguments for a trial."""
        return [*trial_arguments(self.arguments, parameters), f"--run.row={trial_row(parameters, self.row)}"]

    def objective(self, jobs: Sequence[Job]) -> float:
        """Return the objective over a trial's finished folds."""
        return over_folds([job.folder for job in jobs]).mean[OBJECTIVES[self.sweep.file.metric.name]]


def run_sweep(settings: SweepSettings, limit: int | None, storage: str | None) -> int:
    """Run the unfinished trials, show all, and test the best.

    Args:
        settings: Settings of all trials.
        limit: Largest number of trials, earlier ones included; None: as in the file.
        storage: URL of a database that several machines may share; None: a file in the sweep's folder.

    Returns:
        Exit status: 0 if no trial failed and the best one is tested or other processes still run trials.

    Raises:
        ConfigurationError: If the settings are not valid, or earlier trials were run with other settings.
    """
    settings.sweep.reject_swept_keys(settings.arguments)
    check_folder_name(settings.row, "--row")
    # Built only to learn what all trials share.
    cli = build_on_cpu(settings.arguments, settings.options.allow)
    name = settings.sweep.path.stem if settings.row == DEFAULT_ROW else settings.row
    folder = cli.run_name.row_folder(settings.options.runs).with_name(name)
    folds = (
        list(range(cli.data.num_folds()))
        if settings.options.folds is None
        else parse_numbers(settings.options.folds, "--folds")
    )
    seeds = settings.options.chosen_seeds(cli.configuration)
    at_once = _trials_at_once(settings, len(folds), len(seeds))
    if settings.options.dry_run:
        return _show_plan(settings, settings.options.dry_run, limit)
    with TrialStore(
        settings.sweep, folder.relative_to(settings.options.runs).as_posix(), folder, storage, limit
    ) as trials:
        trials.check_shared_settings(_shared_settings(settings, folds, seeds, cli.configuration))
        trials.requeue_failed()
        while batch := trials.begin(at_once):
            for trial in batch:
                shown = ", ".join(f"{name}={in_words(value)}" for name, value in trial.parameters.items())
                settings.console.print(f"trial {trial.number}: {escape(shown)}", highlight=False, soft_wrap=True)
            _run(settings, trials, batch)
        return _finish(settings, trials, folder)


def _trials_at_once(settings: SweepSettings, folds: int, seeds: int) -> int:
    """Return the number of parallel trials; with early termination each runs one fold at a time."""
    if settings.options.resources.at_once is None:
        return _TRIALS_ON_A_CLUSTER
    together = seeds * (1 if settings.sweep.file.early_terminate else folds)
    return math.ceil(settings.options.resources.at_once / together)


def _shared_settings(
    settings: SweepSettings, folds: Sequence[int], seeds: Sequence[int], configuration: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what trials must share to be comparable, as JSON types."""
    file = settings.sweep.file
    search = {
        "folds": list(folds),
        "seeds": list(seeds),
        "method": file.method.value,
        "metric": file.metric.name,
        "parameters": {name: str(parameter) for name, parameter in settings.sweep.parameters.items()},
        "early_terminate": file.early_terminate and asdict(file.early_terminate),
    }
    return {"sweep": search, **configuration}


def _run(settings: SweepSettings, trials: TrialStore, batch: Sequence[RunningTrial]) -> None:
    """Run trials in parallel; with early termination fold by fold, until they are stopped."""
    planned_jobs: dict[int, list[Job]] = {}
    by_number = {trial.number: trial for trial in batch}
    for trial in batch:
        try:
            planned_jobs[trial.number] = settings.plan(trial.parameters)
        except SerError as error:  # these parameters are not valid together; others may be
            _print_plan_error(settings, trial, error)
            trials.fail(trial, str(error).splitlines()[0])
            continue
    if not planned_jobs:
        return
    folds = sorted({job.fold for jobs in planned_jobs.values() for job in jobs if job.fold is not None})
    rounds = [[fold] for fold in folds] if settings.sweep.file.early_terminate else [folds]
    so_far: list[int] = []
    for some in rounds:
        so_far += some
        jobs = [job for planned in planned_jobs.values() for job in planned if job.fold in some]
        failures = run_planned(jobs, settings.console, settings.options.resources)
        for number, planned in list(planned_jobs.items()):
            done = [job for job in planned if job.fold in so_far]
            try:
                if _record_result(settings, trials, by_number[number], done, failures, len(so_far) == len(folds)):
                    log_summary_runs(sorted({job.folder.parent for job in planned_jobs.pop(number)}))
            except TrialReassignedError as error:  # this process's heartbeat was too old
                settings.console.print(f"{error}, whose result counts", highlight=False, markup=False)
                del planned_jobs[number]
        if not planned_jobs:
            return


def _record_result(
    settings: SweepSettings,
    trials: TrialStore,
    trial: RunningTrial,
    done: Sequence[Job],
    failures: Mapping[Path, str],
    has_all_folds: bool,
) -> bool:
    """Record a trial's result so far; return whether the trial ends."""
    if missing := [job for job in done if job.folder in failures]:
        first, *log = failures[missing[0].folder].splitlines()
        trials.fail(trial, " ".join([f"{missing[0].folder.name}: {first}", *log[-1:]]))
        return True
    if has_all_folds:
        trials.complete(trial, settings.objective(done))
        return True
    if trials.report(trial, len({job.fold for job in done}), settings.objective(done)):
        trials.stop(trial)
        return True
    return False


def _print_plan_error(settings: SweepSettings, trial: RunningTrial, error: SerError) -> None:
    settings.console.print(f"[red]trial {trial.number}[/red]: {escape(str(error))}", highlight=False)


def _finish(settings: SweepSettings, trials: TrialStore, folder: Path) -> int:
    """Show all trials, write table and figure into the sweep's folder, and test the best trial."""
    console, metric = settings.console, settings.sweep.file.metric.name
    records = [trial_record(trial, settings.row) for trial in trials.current()]
    best = trials.best()
    title = f"{settings.sweep.path.stem}: {settings.sweep.file.method.value}, {len(records)} trials"
    number = None if best is None else best.number
    console.print(trials_table(title, metric, records, number), markup=False)
    content = {
        "sweep": str(settings.sweep.path),
        "storage": trials.database,
        "metric": metric,
        "best": number,
        "trials": [asdict(record) for record in records],
    }
    write_atomically(folder / "sweep.json", json.dumps(content, indent=2).encode())
    logarithmic = [
        name for name, drawn in settings.sweep.parameters.items() if isinstance(drawn, Range) and drawn.is_log
    ]
    picture = save(parameter_figure(title, metric, records, number, logarithmic), folder / "parameters.png")
    console.print(f"parameters: {picture}", highlight=False, markup=False, soft_wrap=True)
    if best is None:
        console.print("[red]no trial was completed[/red]; the same command retries failed ones")
        return 1
    parameters = trial_parameters(best)
    console.print(f"best: trial {best.number}, {metric} {100 * (best.value or 0.0):.2f}%", highlight=False)
    for name, value in parameters.items():
        console.print(f"  {name}: {value}", highlight=False, markup=False, soft_wrap=True)
    if not trials.are_finished():
        console.print("other processes still run trials; the last to end tests the best trial", highlight=False)
        return 0
    failed = [record for record in records if record.state == FAILED]
    with locked(folder / ".winner.lock"):  # if processes end together, the second finds the test done
        status = cross_validate(settings.trial(parameters), settings.options, console)
    return 1 if failed else status


def _show_plan(settings: SweepSettings, form: Form, limit: int | None) -> int:
    """Print the jobs of the next trials that do not depend on the results of others."""
    with tempfile.TemporaryDirectory() as nowhere:
        trials = TrialStore(settings.sweep, "dry run", Path(nowhere), None, limit)
        found = trials.begin(RANDOM_BEFORE_BAYES if settings.sweep.file.method is Method.bayes else sys.maxsize)
    jobs: list[Job] = []
    unplanned = 0
    for trial in found:
        try:
            jobs += settings.plan(trial.parameters)
        except SerError as error:
            _print_plan_error(settings, trial, error)
            unplanned += 1
    show_plan(jobs, settings.options.resources, settings.console, form)
    return 1 if unplanned else 0
