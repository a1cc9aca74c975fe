"""Published tables: trained as far as they are missing, and shown, ours beside the paper's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ser_lightning.cross_validation.cross_validate import (
    Choice,
    build_anywhere,
    plan_experiment,
    run_planned,
    write_summaries,
)
from ser_lightning.cross_validation.wandb import log_summaries
from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Job, parse_numbers
from ser_lightning.jobs.progress import show_plan
from ser_lightning.published.table_file import Row, Table, folder_name, read_table
from ser_lightning.reports.report import write_systems
from ser_lightning.reports.systems import AbsentRow, Configured, Published, ReportedSystem
from ser_lightning.reports.terminal import TableRow, comparison
from ser_lightning.runs.configuration import Difference, relevant, unlike_file
from ser_lightning.runs.folder import fold_name, read_config, seed_name
from ser_lightning.runs.gathering import FOLD_FOLDER, CrossValidation, find_cross_validations
from ser_lightning.runs.summary import summarize

# A fold's own, and the protocol, which is stated as a whole.
_OWN_KEYS = ("seed_everything", "data.init_args.seed", "data.init_args.fold")
_PROTOCOL = "data.init_args.protocol"
# Behind it are the caller's arguments for rows that are trained once.
ONCE = "--once"

# A row as it is shown, what is on disk of it, and what it would be trained as, unless it is only quoted.
ShownRow = tuple[TableRow, Sequence[CrossValidation], Configured | None]


def plan_table(
    path: Path, table: Table, arguments: Sequence[str], names: Sequence[str], choice: Choice, console: Console
) -> list[Job]:
    """Plan the jobs of rows, and of each row they need.

    Args:
        path: The table file.
        table: What it holds.
        arguments: LightningCLI's arguments for every row.
        names: Rows to run; all if empty.
        choice: Folds, seeds and places.
        console: Where to say what is done.

    Raises:
        ConfigurationError: If a row is unknown, two rows would share folders, or a folder holds a run of another
            configuration.
    """
    rows = {row.name: row for row in table.rows if row.experiment}
    if unknown := sorted(set(names) - set(rows)):
        raise ConfigurationError(f"{path} has no row '{unknown[0]}' to run; there are {', '.join(rows)}")
    wanted = set(names or rows)
    for row in reversed(rows.values()):
        if row.name in wanted:
            wanted.update(row.needs.values())
    jobs: dict[str, list[Job]] = {}
    by_folder: dict[Path, tuple[str, Job]] = {}
    for row in rows.values():
        if row.name in wanted:
            needs = {argument: jobs[name] for argument, name in row.needs.items()}
            jobs[row.name] = plan_experiment(
                row_arguments(path, row, arguments), folder_name(row), choice, console, needs, row.once
            )
            # Rows that share an experiment's own runs share its jobs.
            for job in jobs[row.name]:
                other, theirs = by_folder.setdefault(job.folder, (row.name, job))
                if theirs != job:
                    raise _of_one_folder(path, other, row.name, job.folder)
    return [job for _, job in by_folder.values()]


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
    jobs = plan_table(path, table, arguments, names, choice, console)
    if choice.dry_run:
        show_plan(jobs, choice.resources, console, choice.dry_run)
        return 0
    failures = run_planned(jobs, console, choice.resources)
    write_summaries(jobs, failures)
    log_summaries(sorted({job.folder.parent for job in jobs}), failures)
    shown = show_table(path, overrides, arguments, choice, console)
    if page := _write_report(path, table.title, read_table(path).corpus, shown, choice.runs):
        console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return 1 if failures else 0


def show_table(
    path: Path, overrides: Sequence[str], arguments: Sequence[str], choice: Choice, console: Console
) -> list[ShownRow]:
    """Print ours beside the paper's, for what is on disk, and say where it was not configured as in the file.

    Args:
        path: The table file.
        overrides: ``key=value`` for keys of the table.
        arguments: LightningCLI's arguments for every row: they say where its runs lie.
        choice: Folds and seeds to show, and places.
        console: Where to print.

    Returns:
        Each row with what is on disk of it, and what it would be trained as.

    Raises:
        ConfigurationError: If two rows share folders.
    """
    table = read_table(path, overrides)
    rows: list[ShownRow] = []
    by_folder: dict[Path, tuple[Row, list[str]]] = {}
    for row in table.rows:
        runs: list[CrossValidation] = []
        configured = None
        if row.experiment and not row.once:
            given = row_arguments(path, row, arguments)
            cli = build_anywhere(given, folder_name(row), choice.allow)
            name, folder = cli.run_name, cli.run_name.folder(choice.runs).parents[1]
            configured = Configured.of(
                (name.paper, name.experiment, name.corpus), relevant(yaml.safe_load(cli.config_text))
            )
            other, theirs = by_folder.setdefault(folder, (row, given))
            if (theirs, other.needs) != (given, row.needs):
                raise _of_one_folder(path, other.name, row.name, folder)
            if finished := _finished_folds(folder, choice):
                runs = find_cross_validations(finished)
        summary = summarize(runs) if runs else None
        unlike = _unlike_file(path, row, runs, choice.allow) if runs else []
        shown = TableRow(row.name, row.paper, summary, row.note, row.parameters, row.experiment is None, unlike)
        rows.append((shown, runs, configured))
    for line in comparison(table.title, read_table(path).corpus, [shown for shown, _, _ in rows]):
        console.print(line, highlight=False, markup=False, soft_wrap=isinstance(line, str))
    return rows


def _of_one_folder(path: Path, one: str, other: str, folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: rows '{one}' and '{other}' would both train in {folder}, and differ: give one another name, of which "
        "letters, digits and . = + - count"
    )


def _write_report(path: Path, title: str, corpus: str, rows: Sequence[ShownRow], folder: Path) -> Path | None:
    """Write the report about a table's rows into the runs' folder of its own, if anything is finished."""
    systems, absent = [], []
    for row, runs, configured in rows:
        published = Published(path.stem, corpus, row.paper, row.note, row.unlike_file)
        if runs:
            systems.append(ReportedSystem.of(runs, [published], row.name))
        elif row.paper:
            absent.append(AbsentRow(row.name, published, "quoted" if row.quoted else "not run", configured))
    if not systems:
        return None
    corpora = "-".join(sorted({system.runs[0].folder.parents[1].name for system in systems}))
    return write_systems(systems, folder / path.parent.name / path.stem / corpora, title, absent)


def _finished_folds(folder: Path, choice: Choice) -> list[Path]:
    """Return the folders of the chosen seeds' chosen folds that are finished."""
    folds = ["fold-*"] if choice.folds is None else [fold_name(fold) for fold in parse_numbers(choice.folds, "--folds")]
    seeds = [folder / seed_name(seed) for seed in parse_numbers(choice.seeds, "--seeds")]
    found = [done.parent for seed in seeds for fold in folds for done in seed.glob(f"{fold}/predictions.csv")]
    return [folder for folder in found if FOLD_FOLDER.fullmatch(folder.name)]


def _unlike_file(path: Path, row: Row, runs: Sequence[CrossValidation], allow: Sequence[str]) -> list[str]:
    """Return the keys in which any fold's configuration differs from the row's own in the file, with both values."""
    filed = yaml.safe_load(build_anywhere(row_arguments(path, row, []), allow=allow).config_text)
    configurations = (read_config(fold.folder) for run in runs for fold in run.folds)

    def is_own(difference: Difference) -> bool:
        return difference.key in (*_OWN_KEYS, *row.needs)

    found = unlike_file(map(_with_precision, configurations), _with_precision(filed), is_own)
    is_protocol = {key: key == _PROTOCOL or key.startswith(f"{_PROTOCOL}.") for key in found}
    return list(dict.fromkeys(_PROTOCOL if is_protocol[key] else words for key, words in found.items()))


def _with_precision(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with Lightning's own precision where none is given: trainer files state it."""
    trainer = config["trainer"]
    return {**config, "trainer": {**trainer, "precision": trainer["precision"] or "32-true"}}
