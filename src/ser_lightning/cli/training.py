"""Commands that train: ``run-fold``, ``smoke``, ``cv``, ``table``, ``sweep``; ``experiments`` lists what they take."""

import argparse
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ser_lightning.cli.command_line import (
    CommandLine,
    add_allow,
    add_row,
    console,
    reject_abbreviations,
    row_argument,
    user_path,
)
from ser_lightning.errors import ConfigurationError

if TYPE_CHECKING:
    from ser_lightning.cross_validation.planner import RunOptions

EXPERIMENT_FILES = "a system's file and a corpus's, or one with both; then one of experiments/trainer (repeatable)"
TRAINER_FILES = "a file of experiments/trainer, for every run (repeatable)"
LIGHTNING_COMMANDS = {
    "fit": "train on one fold (LightningCLI)",
    "validate": "score a checkpoint (--ckpt_path best) on the fold's validation set (LightningCLI)",
    "test": "score a checkpoint (--ckpt_path best) on the fold's test set (LightningCLI)",
    "predict": "predict the whole corpus with a checkpoint, --ckpt_path PATH (LightningCLI)",
}


def add_commands(commands: CommandLine) -> None:
    """Add the commands of this file."""
    for name, text in LIGHTNING_COMMANDS.items():
        command = commands.add(name, partial(_lightning, name), text, overrides=EXPERIMENT_FILES, add_help=False)
        add_row(command)
        add_allow(command)
    command = commands.add(
        "run-fold",
        _run_fold,
        "fit, validate and test one fold, or resume it",
        overrides=EXPERIMENT_FILES,
    )
    add_row(command)
    add_allow(command)
    command.add_argument("--no-test", action="store_true", help="stop after the validation set; a later run tests")
    command.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="time to wait for another process that runs this fold (default: 0)",
    )
    command = commands.add(
        "smoke",
        _smoke,
        "train one fold for two batches on synthetic speech, to see that everything works",
        overrides=f"{EXPERIMENT_FILES}; default: the quick start",
    )
    add_allow(command)
    command.add_argument("--speakers", type=int, default=4, metavar="N", help="speakers of the corpus (default: 4)")
    command.add_argument("--clips-per-speaker", type=int, default=8, metavar="N", help="clips of each (default: 8)")
    command = commands.add("experiments", _experiments, "list the installed YAML files, or copy them")
    command.add_argument(
        "--out", type=user_path, metavar="FOLDER", help="copy them into this folder, such as experiments"
    )
    command = commands.add(
        "cv", _cv, "run all unfinished folds, then write summary and report", overrides=EXPERIMENT_FILES
    )
    add_row(command)
    _add_run_options(command)
    command = commands.add(
        "table",
        _table,
        "train the missing rows of a published table, and print our scores next to the paper's",
        "key=value, anywhere after FILE, overrides a key of FILE, such as corpus=ravdess. Pre-training rows take "
        "--config, --trainer arguments, and the arguments after --once, such as --once --data.init_args.root "
        "/data/voxceleb2.",
        TRAINER_FILES,
    )
    command.add_argument("action", choices=["run", "show"], help="run: train and show; show: show finished runs")
    command.add_argument("file", type=user_path, metavar="FILE", help="table file, experiments/<paper>/<table>.yaml")
    command.add_argument("--rows", action="append", default=[], metavar="NAME", help="row to run (repeatable)")
    _add_run_options(command)
    command = commands.add(
        "sweep",
        _sweep,
        "run the trials of a sweep without a W&B server, and test the best",
        "key=value, anywhere after FILE, overrides a key of FILE, such as method=random. All options of "
        "`ser cv` (--folds, --seeds, --runs, --jobs, ...) apply to every trial.",
        TRAINER_FILES,
    )
    command.add_argument(
        "file", type=user_path, metavar="FILE", help="sweep file in W&B's format, experiments/sweeps/*.yaml"
    )
    command.add_argument(
        "--trials", type=int, metavar="N", help="largest number of trials (default: the whole grid, or run_cap)"
    )
    command.add_argument("--storage", metavar="URL", help="database shared by machines (default: a file)")
    add_row(command)
    add_allow(command)


def _add_run_options(command: argparse.ArgumentParser) -> None:
    add_allow(command)
    command.add_argument("--folds", metavar="0,3-5", help="folds to run (default: all)")
    command.add_argument("--seeds", metavar="0,1", help="seeds to run (default: seed_everything of the YAML)")
    command.add_argument("--runs", type=user_path, default=Path("runs"), metavar="FOLDER", help="folder of all runs")
    group = command.add_argument_group("many jobs at once (docs/scaling.md)")
    group.add_argument(
        "--jobs", type=int, metavar="N", help="jobs at once (default: 1, or on a cluster as many as fit)"
    )
    group.add_argument("--address", metavar="HOST:PORT", help="address of a Ray cluster")
    group.add_argument(
        "--gpus-per-job", type=float, metavar="X", help="GPUs of a job; 0.25: four jobs share one, 2: DDP on two"
    )
    group.add_argument(
        "--cpus-per-job", type=int, metavar="N", help="threads of a job (default: OMP_NUM_THREADS, or 1)"
    )
    group.add_argument("--retries", type=int, default=1, metavar="N", help="retries of a failed job (default: 1)")
    group.add_argument(
        "--dry-run", dest="dry_run", action="store_const", const="text", help="print the jobs' commands, run nothing"
    )
    group.add_argument(
        "--dry-run=json", dest="dry_run", action="store_const", const="json", help="print the plan as JSON, run nothing"
    )


def _run_options(options: argparse.Namespace) -> "RunOptions":
    from ser_lightning.jobs.plan import Resources
    from ser_lightning.training.arguments import threads_of_environment

    cpus = threads_of_environment() if options.cpus_per_job is None else options.cpus_per_job
    # SLURM's tasks are a cluster's machines here; Lightning would treat them as the processes of one training.
    os.environ.pop("SLURM_NTASKS", None)
    resources = Resources(options.jobs, options.address, options.gpus_per_job, cpus, options.retries)
    if resources.at_once == 1 and not resources.address and not options.dry_run:
        from ser_lightning.jobs.engine import PROGRAM, environment
        from ser_lightning.jobs.process import job_fork_server

        job_fork_server(PROGRAM, environment(resources))  # imports the suite while this process does
    from ser_lightning.cross_validation.planner import RunOptions

    return RunOptions(options.folds, options.seeds, options.runs, tuple(options.allow), resources, options.dry_run)


def import_what_jobs_need() -> None:
    """Import what ``run-fold`` uses: nothing that starts a CUDA context or a thread."""
    # What W&B imports when a run starts: first, because each of its classes looks through all imported modules.
    import wandb.sdk.launch.inputs.internal  # noqa: F401
    from wandb.sdk.data_types._private import MEDIA_TMP

    MEDIA_TMP.cleanup()  # a folder that a process deletes at its end: each job makes its own

    import sklearn.svm  # noqa: F401

    from ser_lightning.training import experiment, fold  # noqa: F401


def _lightning(subcommand: str, options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.training.subcommands import run_subcommand

    if not {"-h", "--help"}.isdisjoint(overrides):
        print(f"{options.parser.format_help()}\nLightningCLI's own help:\n")
    run_subcommand([subcommand, *overrides, *row_argument(options.row)], options.allow)
    return 0


def _run_fold(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.training.fold import run_fold

    arguments = [*overrides, *row_argument(options.row)]
    print(run_fold(arguments, options.allow, tested=not options.no_test, wait_seconds=options.wait))
    return 0


def _smoke(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.training.smoke import smoke

    print(smoke(overrides, options.allow, options.speakers, options.clips_per_speaker))
    return 0


def _experiments(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.training.experiment_files import INSTALLED, copy_files, describe_files

    if options.out:
        copied = copy_files(options.out)
        print(f"{options.out}: {copied} files copied; next: ser cv --config {options.out / 'quickstart.yaml'}")
        return 0
    from rich.table import Table

    table = Table("file", "what it is", box=None, pad_edge=False)
    for name, description in describe_files(INSTALLED).items():
        table.add_row(name, description)
    console().print(table)
    print(f"\nThese are in {INSTALLED}; ser experiments --out FOLDER copies them.")
    return 0


def _cv(options: argparse.Namespace, overrides: list[str]) -> int:
    run_options = _run_options(options)
    from ser_lightning.cross_validation.cross_validate import cross_validate
    from ser_lightning.cross_validation.wandb import agent_row

    arguments = [*overrides, *row_argument(agent_row(options.row))]
    return cross_validate(arguments, run_options, console(run_options.dry_run))


def _table(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.tables import run_table, show_table

    keys, overrides = split_keys(overrides)
    run_options = _run_options(options)
    if options.action == "run":
        return run_table(options.file, keys, overrides, options.rows, run_options, console(run_options.dry_run))
    show_table(options.file, keys, overrides, run_options, console())
    return 0


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.runs.names import DEFAULT_ROW
    from ser_lightning.sweeps.file import read_sweep

    try:
        from ser_lightning.sweeps.run import SweepSettings, run_sweep
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"ser sweep needs {error.name}: in the clone, pip install -e '.[sweeps]' or make setup-dev"
        ) from error
    keys, overrides = split_keys(overrides)
    sweep = read_sweep(options.file, keys)
    # A trial is `ser cv` with the file's arguments, the caller's, and its parameters.
    allowed = [f"--allow={module}" for module in options.allow]
    rows = [] if options.row is None else [f"--row={options.row}"]
    commands = CommandLine()
    add_commands(commands)
    cv_options, arguments = commands.parser.parse_known_args(["cv", *sweep.arguments, *rows, *allowed, *overrides])
    reject_abbreviations(cv_options.parser, arguments)
    run_options = _run_options(cv_options)
    row = DEFAULT_ROW if cv_options.row is None else cv_options.row
    settings = SweepSettings(sweep, tuple(arguments), row, run_options, console(run_options.dry_run))
    return run_sweep(settings, options.trials, options.storage)


def split_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split ``key=value`` of a table or sweep file from LightningCLI's arguments, returned as ``--key=value``.

    argparse cannot: it accepts optional positional arguments only directly after the required ones.
    """
    keys: list[str] = []
    others: list[str] = []
    awaits_value = False
    for argument in arguments:
        if argument.startswith("--") or argument == "-c":
            others.append("--config" if argument == "-c" else argument)
            awaits_value = "=" not in argument and argument not in ("--once", "--dry-run")
        elif awaits_value:
            others[-1] += f"={argument}"
            awaits_value = False
        elif re.match(r"\w[\w.]*=", argument):
            keys.append(argument)
        else:
            raise ConfigurationError(f"'{argument}' is neither a key=value of FILE nor the value of a --key before it")
    return keys, others
