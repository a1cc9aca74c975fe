"""A sweep without a W&B server: trials are drawn by Optuna, and run by the one planner and runner.

A trial is a whole cross-validation that ends with the validation sets; its folder is named by its parameters. It is
judged by the mean score of those sets. The winner alone is tested.
"""

import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.markup import escape

from ser_lightning.cross_validation.cross_validate import cross_validate, run_planned
from ser_lightning.cross_validation.planner import RunOptions, build_anywhere, plan_experiment
from ser_lightning.cross_validation.wandb import log_summary_runs
from ser_lightning.errors import SerError
from ser_lightning.files import write_atomically
from ser_lightning.jobs.plan import Form, Job, parse_numbers, show_plan
from ser_lightning.reports.figures import save
from ser_lightning.runs.folder import DEFAULT_ROW, trial_row
from ser_lightning.runs.summary import OBJECTIVES, over_folds
from ser_lightning.sweeps.file import Method, Sweep, trial_arguments
from ser_lightning.sweeps.report import in_words, parameter_figure, trials_table
from ser_lightning.sweeps.space import Range
from ser_lightning.sweeps.study import RANDOM_BEFORE_BAYES
from ser_lightning.sweeps.trials import FAILED, Trial, Trials, TrialTakenError, parameters_of, record_of

# At once on a cluster whose size is not known here; more would be drawn without knowing of each other's results.
_TRIALS_ON_A_CLUSTER = 8


@dataclass(frozen=True)
class Setting:
    """What all trials of a sweep share.

    Attributes:
        sweep: What is swept.
        arguments: LightningCLI's arguments for every trial.
        row: What the user calls the sweep, or the default.
        choice: Folds, seeds, places and resources.
        console: Where to show progress.
    """

    sweep: Sweep
    arguments: tuple[str, ...]
    row: str
    choice: RunOptions
    console: Console

    def plan(self, parameters: dict[str, Any]) -> list[Job]:
        """Plan a trial's jobs, which leave the test set alone."""
        return plan_experiment(self.trial(parameters), replace(self.choice, tested=False), self.console)

    def trial(self, parameters: dict[str, Any]) -> list[str]:
        """Return LightningCLI's arguments for a trial."""
        return [*trial_arguments(self.arguments, parameters), f"--run.row={trial_row(parameters, self.row)}"]

    def objective(self, jobs: Sequence[Job]) -> float:
        """Return what a trial's finished folds are judged by."""
        return over_folds([job.folder for job in jobs]).mean[OBJECTIVES[self.sweep.file.metric.name]]


def run_sweep(setting: Setting, limit: int | None, storage: str | None) -> int:
    """Run the trials of a sweep that are not done, show all, and test the winner.

    Args:
        setting: What all trials share.
        limit: Number of trials at most, with those that are there already; None: as the file says.
        storage: URL of a database that several machines may share; None: a file in the sweep's folder.

    Returns:
        Exit status: 0 if no trial failed and the winner is tested, unless other processes still run trials.

    Raises:
        ConfigurationError: If the sweep cannot run like this, or its earlier trials were not made like this.
    """
    setting.sweep.refuse_fixed(setting.arguments)
    # Where trials run is theirs; this is to know what all of them are made of.
    cli = build_anywhere(setting.arguments, setting.choice.allow)
    name = setting.sweep.path.stem if setting.row == DEFAULT_ROW else setting.row
    folder = cli.run_name.row_folder(setting.choice.runs).with_name(name)
    folds = (
        list(range(cli.data.num_folds()))
        if setting.choice.folds is None
        else parse_numbers(setting.choice.folds, "--folds")
    )
    at_once = _trials_at_once(setting, len(folds))
    if setting.choice.dry_run:
        return _show_plan(setting, setting.choice.dry_run, limit)
    with Trials(setting.sweep, folder.relative_to(setting.choice.runs).as_posix(), folder, storage, limit) as trials:
        trials.refuse_other_foundation(_foundation(setting, folds, cli.configuration))
        trials.begin_failed_again()
        while batch := trials.begin(at_once):
            for trial in batch:
                shown = ", ".join(f"{name}={in_words(value)}" for name, value in trial.parameters.items())
                setting.console.print(f"trial {trial.number}: {escape(shown)}", highlight=False, soft_wrap=True)
            _run(setting, trials, batch)
        return _conclude(setting, trials, folder)


def _trials_at_once(setting: Setting, folds: int) -> int:
    """Return how many trials it takes to keep all jobs at once busy; with early termination each runs a fold."""
    if setting.choice.resources.at_once is None:
        return _TRIALS_ON_A_CLUSTER
    together = len(parse_numbers(setting.choice.seeds, "--seeds")) * (
        1 if setting.sweep.file.early_terminate else folds
    )
    return math.ceil(setting.choice.resources.at_once / together)


def _foundation(setting: Setting, folds: Sequence[int], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal for trials to be comparable, as JSON's types."""
    file = setting.sweep.file
    own = {
        "folds": list(folds),
        "seeds": parse_numbers(setting.choice.seeds, "--seeds"),
        "method": file.method.value,
        "metric": file.metric.name,
        "parameters": {name: str(parameter) for name, parameter in setting.sweep.parameters.items()},
        "early_terminate": file.early_terminate and asdict(file.early_terminate),
    }
    return {"sweep": own, **configuration}


def _run(setting: Setting, trials: Trials, batch: Sequence[Trial]) -> None:
    """Run trials side by side; with early termination fold by fold, and those that fall behind no further."""
    going: dict[int, list[Job]] = {}
    by_number = {trial.number: trial for trial in batch}
    for trial in batch:
        try:
            going[trial.number] = setting.plan(trial.parameters)
        except SerError as error:  # these parameters do not make a system; others may
            _say_unplanned(setting, trial, error)
            trials.fail(trial, str(error).splitlines()[0])
            continue
    if not going:
        return
    folds = sorted({job.fold for jobs in going.values() for job in jobs if job.fold is not None})
    rounds = [[fold] for fold in folds] if setting.sweep.file.early_terminate else [folds]
    so_far: list[int] = []
    for some in rounds:
        so_far += some
        jobs = [job for planned in going.values() for job in planned if job.fold in some]
        failures = run_planned(jobs, setting.console, setting.choice.resources)
        for number, planned in list(going.items()):
            done = [job for job in planned if job.fold in so_far]
            try:
                if _judge(setting, trials, by_number[number], done, failures, len(so_far) == len(folds)):
                    log_summary_runs(sorted({job.folder.parent for job in going.pop(number)}))
            except TrialTakenError as error:  # this process was not heard of for too long
                setting.console.print(f"{error}; its result counts", highlight=False, markup=False)
                del going[number]
        if not going:
            return


def _judge(
    setting: Setting,
    trials: Trials,
    trial: Trial,
    done: Sequence[Job],
    failures: Mapping[Path, str],
    has_all_folds: bool,
) -> bool:
    """Keep what a trial's folds so far have come to; return whether it ends there."""
    if missing := [job for job in done if job.folder in failures]:
        first, *log = failures[missing[0].folder].splitlines()
        trials.fail(trial, " ".join([f"{missing[0].folder.name}: {first}", *log[-1:]]))
        return True
    if has_all_folds:
        trials.complete(trial, setting.objective(done))
        return True
    if trials.report(trial, len({job.fold for job in done}), setting.objective(done)):
        trials.stop(trial)
        return True
    return False


def _say_unplanned(setting: Setting, trial: Trial, error: SerError) -> None:
    setting.console.print(f"[red]trial {trial.number}[/red]: {escape(str(error))}", highlight=False)


def _conclude(setting: Setting, trials: Trials, folder: Path) -> int:
    """Show all trials, write them and their picture into the sweep's folder, and test the winner."""
    console, metric = setting.console, setting.sweep.file.metric.name
    records = [record_of(trial, setting.row) for trial in trials.shown()]
    best = trials.best()
    title = f"{setting.sweep.path.stem}: {setting.sweep.file.method.value}, {len(records)} trials"
    number = None if best is None else best.number
    console.print(trials_table(title, metric, records, number), markup=False)
    content = {
        "sweep": str(setting.sweep.path),
        "storage": trials.place,
        "metric": metric,
        "best": number,
        "trials": [asdict(record) for record in records],
    }
    write_atomically(folder / "sweep.json", json.dumps(content, indent=2).encode())
    logarithmic = [
        name for name, drawn in setting.sweep.parameters.items() if isinstance(drawn, Range) and drawn.is_log
    ]
    picture = save(parameter_figure(title, metric, records, number, logarithmic), folder / "parameters.png")
    console.print(f"parameters: {picture}", highlight=False, markup=False, soft_wrap=True)
    if best is None:
        console.print("[red]no trial was completed[/red]; the same command tries those that failed again")
        return 1
    parameters = parameters_of(best)
    console.print(f"best: trial {best.number}, {metric} {100 * (best.value or 0.0):.2f}%", highlight=False)
    for name, value in parameters.items():
        console.print(f"  {name}: {value}", highlight=False, markup=False, soft_wrap=True)
    if not trials.are_finished():
        console.print("other processes still run trials; the one that ends last tests the winner", highlight=False)
        return 0
    failed = [record for record in records if record.state == FAILED]
    with FileLock(folder / ".winner.lock"):  # of processes that end together, the second finds it done
        status = cross_validate(setting.trial(parameters), setting.choice, console)
    return 1 if failed else status


def _show_plan(setting: Setting, form: Form, limit: int | None) -> int:
    """Print the jobs of the trials to come, as far as they do not depend on the results of others."""
    with tempfile.TemporaryDirectory() as nowhere:
        trials = Trials(setting.sweep, "dry run", Path(nowhere), None, limit)
        found = trials.begin(RANDOM_BEFORE_BAYES if setting.sweep.file.method is Method.bayes else sys.maxsize)
    jobs: list[Job] = []
    unplanned = 0
    for trial in found:
        try:
            jobs += setting.plan(trial.parameters)
        except SerError as error:
            _say_unplanned(setting, trial, error)
            unplanned += 1
    show_plan(jobs, setting.choice.resources, setting.console, form)
    return 1 if unplanned else 0
