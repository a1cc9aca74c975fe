"""Published tables: trained as far as they are missing, and shown, ours beside the paper's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ser_lightning.cross_validation.cross_validate import Choice, group_folder, plan_experiment, run_planned
from ser_lightning.cross_validation.dry_run import show_plan
from ser_lightning.cross_validation.plan import Job, parse_numbers
from ser_lightning.cross_validation.table_file import Row, Table, folder_name, read_table
from ser_lightning.errors import ConfigurationError
from ser_lightning.experiment import ExperimentCLI
from ser_lightning.reports.comparison import TableRow, comparison
from ser_lightning.reports.report import write_systems
from ser_lightning.reports.runs import FOLD_FOLDER, CrossValidation, find_cross_validations
from ser_lightning.reports.summary import summarize
from ser_lightning.reports.systems import AbsentRow, Published, ReportedSystem
from ser_lightning.run_record import CONFIG_FILE, differing_keys

# A fold's own, and the protocol, which is stated as a whole.
_OWN_KEYS = ("seed_everything", "data.init_args.seed", "data.init_args.fold")
_PROTOCOL = "data.init_args.protocol"
# Behind it are the caller's arguments for rows that are trained once.
ONCE = "--once"


def plan_table(
    path: Path, table: Table, arguments: Sequence[str], names: Sequence[str], choice: Choice, console: Console
) -> tuple[list[Job], int]:
    """Plan the jobs of rows, and of each row they need.

    Args:
        path: The table file.
        table: What it holds.
        arguments: LightningCLI's arguments for every row.
        names: Rows to run; all if empty.
        choice: Folds, seeds and places.
        console: Where to say what is done.

    Returns:
        The jobs, and how many epochs a job has at most.

    Raises:
        ConfigurationError: If a row is unknown, or a folder holds a run of another configuration.
    """
    rows = {row.name: row for row in table.rows if row.experiment}
    if unknown := sorted(set(names) - set(rows)):
        raise ConfigurationError(f"{path} has no row '{unknown[0]}' to run; there are {', '.join(rows)}")
    wanted = set(names or rows)
    for row in reversed(rows.values()):
        if row.name in wanted:
            wanted.update(row.needs.values())
    jobs: dict[str, list[Job]] = {}
    longest = 1
    for row in rows.values():
        if row.name in wanted:
            needs = {argument: jobs[name] for argument, name in row.needs.items()}
            jobs[row.name], epochs = plan_experiment(
                row_arguments(path, row, arguments), folder_name(row), choice, console, needs, row.once
            )
            longest = max(longest, epochs)
    # Rows that share an experiment's own runs share its jobs.
    return list({job.folder: job for planned in jobs.values() for job in planned}.values()), longest


def row_arguments(path: Path, row: Row, arguments: Sequence[str]) -> list[str]:
    """Return LightningCLI's arguments for a row: its experiment, its overrides, and the caller's behind them.

    Args:
        path: The table file.
        row: The row.
        arguments: The caller's, each as ``--key=value``; behind ``--once`` those for rows that are trained once.
    """
    split = arguments.index(ONCE) if ONCE in arguments else len(arguments)
    callers = list(arguments[:split])
    if row.once:
        shared = [argument for argument in callers if argument.startswith(("--trainer", "--config"))]
        callers = [*shared, *arguments[split + 1 :]]
    return [f"--config={path.parent / str(row.experiment)}", *row.overrides, *callers]


def run_table(
    path: Path,
    overrides: Sequence[str],
    arguments: Sequence[str],
    names: Sequence[str],
    choice: Choice,
    console: Console,
) -> int:
    """Train what is missing of a table, in the order in which rows need each other, then print it.

    Args:
        path: The table file.
        overrides: ``key=value`` for keys of the table.
        arguments: LightningCLI's arguments for every row.
        names: Rows to run; all if empty.
        choice: Folds, seeds and places.
        console: Where to show progress and the table.

    Returns:
        Exit status: 0 if every job is done.
    """
    table = read_table(path, overrides)
    jobs, longest = plan_table(path, table, arguments, names, choice, console)
    if choice.dry_run:
        show_plan(jobs, choice.resources, console, choice.dry_run)
        return 0
    failures = run_planned(jobs, longest, console, choice.resources)
    shown = show_table(path, overrides, arguments, choice, console)
    if page := _write_report(path, table.title, read_table(path).corpus, shown, choice.runs):
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return 1 if failures else 0


def show_table(
    path: Path, overrides: Sequence[str], arguments: Sequence[str], choice: Choice, console: Console
) -> list[tuple[TableRow, Sequence[CrossValidation]]]:
    """Print ours beside the paper's, for what is on disk, and say where it was not configured as in the file.

    Args:
        path: The table file.
        overrides: ``key=value`` for keys of the table.
        arguments: LightningCLI's arguments for every row: they say where its runs lie.
        choice: Folds and seeds to show, and places.
        console: Where to print.

    Returns:
        Each row with what is on disk of it.
    """
    table = read_table(path, overrides)
    rows: list[tuple[TableRow, Sequence[CrossValidation]]] = []
    for row in table.rows:
        runs: list[CrossValidation] = []
        if row.experiment and not row.once:
            folder = group_folder(row_arguments(path, row, arguments), folder_name(row), choice)
            if finished := _finished_folds(folder, choice):
                runs = find_cross_validations(finished)
        summary = summarize(runs) if runs else None
        unlike = _unlike_file(path, row, runs, choice.allow) if runs else []
        shown = TableRow(row.name, row.paper, summary, row.note, row.parameters, row.experiment is None, unlike)
        rows.append((shown, runs))
    for line in comparison(table.title, read_table(path).corpus, [shown for shown, _ in rows]):
        console.print(line, highlight=False, soft_wrap=isinstance(line, str))
    return rows


def _write_report(
    path: Path, title: str, corpus: str, rows: Sequence[tuple[TableRow, Sequence[CrossValidation]]], folder: Path
) -> Path | None:
    """Write the report about a table's rows into the runs' folder of its own, if anything is finished."""
    systems, absent = [], []
    for row, runs in rows:
        published = Published(path.stem, corpus, row.paper, row.note, row.unlike_file)
        if runs:
            systems.append(ReportedSystem.of(runs, [published], row.name))
        elif row.paper:
            absent.append(AbsentRow(row.name, published, "quoted" if row.quoted else "not run"))
    if not systems:
        return None
    corpora = "-".join(sorted({system.runs[0].folder.parents[1].name for system in systems}))
    return write_systems(systems, folder / path.parent.name / path.stem / corpora, title, absent)


def _finished_folds(folder: Path, choice: Choice) -> list[Path]:
    """Return the folders of the chosen seeds' chosen folds that are finished."""
    folds = ["fold-*"] if choice.folds is None else [f"fold-{fold:02d}" for fold in parse_numbers(choice.folds)]
    seeds = [folder / f"seed-{seed}" for seed in parse_numbers(choice.seeds)]
    found = [done.parent for seed in seeds for fold in folds for done in seed.glob(f"{fold}/predictions.csv")]
    return [folder for folder in found if FOLD_FOLDER.fullmatch(folder.name)]


def _unlike_file(path: Path, row: Row, runs: Sequence[CrossValidation], allow: Sequence[str]) -> list[str]:
    """Return the keys in which any fold's configuration differs from the row's own in the file, with both values."""
    cli = ExperimentCLI([*row_arguments(path, row, []), "--trainer.logger=false"], run=False, allow=allow)
    filed = _with_precision(cli.config_text)
    found: dict[str, str] = {}
    for fold in (fold for run in runs for fold in run.folds):
        for line in differing_keys(_with_precision((fold.folder / CONFIG_FILE).read_text()), filed):
            key, _, values = line.strip().partition(": ")
            ours, _, theirs = values.removesuffix(" now").rpartition(" there, ")
            if key == _PROTOCOL or key.startswith(f"{_PROTOCOL}."):
                found.setdefault(_PROTOCOL, _PROTOCOL)
            elif key not in (*_OWN_KEYS, *row.needs):
                found.setdefault(key, f"{key} {ours} (file: {theirs})")
    return list(found.values())


def _with_precision(config_text: str) -> dict[str, Any]:
    """Read a configuration, with Lightning's own precision where none is given: trainer files state it."""
    config: dict[str, Any] = yaml.safe_load(config_text)
    config["trainer"]["precision"] = config["trainer"]["precision"] or "32-true"
    return config
