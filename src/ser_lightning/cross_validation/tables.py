"""Run published tables, and show our scores next to the paper's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ser_lightning.cross_validation.cross_validate import run_planned, write_summaries
from ser_lightning.cross_validation.planner import RunOptions, build_on_cpu, plan_experiment
from ser_lightning.cross_validation.wandb import log_summary_runs
from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Job, parse_numbers, show_plan
from ser_lightning.published.lookup import differences_from_file
from ser_lightning.published.table_file import Row, Table, read_table, row_arguments
from ser_lightning.reports.report import write_report
from ser_lightning.reports.systems import AbsentRow, Configured, PaperResult, ReportedSystem
from ser_lightning.reports.terminal import TableRow, comparison, warn_of_left_out
from ser_lightning.runs.configuration import relevant
from ser_lightning.runs.gathering import CrossValidation, LeftOut, diverged_folds, gather, tested_folds
from ser_lightning.runs.names import fold_name, seed_name
from ser_lightning.runs.summary import summarize

# A row as shown, its runs, and its configuration unless it is quoted.
ShownRow = tuple[TableRow, Sequence[CrossValidation], Configured | None]


def plan_table(
    path: Path, table: Table, arguments: Sequence[str], names: Sequence[str], options: RunOptions, console: Console
) -> list[Job]:
    """Plan the jobs of rows and of the rows that they need.

    Args:
        path: The table file.
        table: Its content.
        arguments: LightningCLI's arguments for every row.
        names: Rows to run; all if empty.
        options: Folds, seeds, folders and resources.
        console: Console for progress.

    Raises:
        ConfigurationError: If a row is unknown, two rows would share a folder, or a folder holds a run of another
            configuration.
    """
    rows = {row.name: row for row in table.rows if row.experiment}
    if unknown := sorted(set(names) - set(rows)):
        raise ConfigurationError(f"{path} has no row '{unknown[0]}' to run; its rows: {', '.join(rows)}")
    wanted = set(names or rows)
    for row in reversed(rows.values()):
        if row.name in wanted:
            wanted.update(row.needs.values())
    jobs: dict[str, list[Job]] = {}
    by_folder: dict[Path, tuple[str, Job]] = {}
    for row in rows.values():
        if row.name in wanted:
            needs = {argument: jobs[name] for argument, name in row.needs.items()}
            given = row_arguments(path, row, arguments)
            jobs[row.name] = plan_experiment(given, options, console, needs, row.once)
            # Rows without overrides share the experiment's jobs.
            for job in jobs[row.name]:
                other, theirs = by_folder.setdefault(job.folder, (row.name, job))
                if theirs != job:
                    raise _same_folder_error(path, other, row.name, job.folder)
    return [job for _, job in by_folder.values()]


def run_table(
    path: Path,
    overrides: Sequence[str],
    arguments: Sequence[str],
    names: Sequence[str],
    options: RunOptions,
    console: Console,
) -> int:
    """Train the missing rows of a table in the order of their dependencies, then print it.

    Args:
        path: The table file.
        overrides: ``key=value`` for keys of the table.
        arguments: LightningCLI's arguments for every row.
        names: Rows to run; all if empty.
        options: Folds, seeds, folders and resources.
        console: Console for progress and table.

    Returns:
        Exit status: 0 if every job is done.
    """
    table = read_table(path, overrides)
    jobs = plan_table(path, table, arguments, names, options, console)
    if options.dry_run:
        show_plan(jobs, options.resources, console, options.dry_run)
        return 0
    failures = run_planned(jobs, console, options.resources)
    _, faulty = write_summaries(jobs, failures, console)
    log_summary_runs(sorted({job.folder.parent for job in jobs} - set(faulty)), failures)
    shown, left_out = show_table(path, overrides, arguments, options, console)
    if page := _write_report(path, table, read_table(path).corpus, shown, left_out, options.runs):
        console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return 1 if failures or faulty else 0


def show_table(
    path: Path, overrides: Sequence[str], arguments: Sequence[str], options: RunOptions, console: Console
) -> tuple[list[ShownRow], list[LeftOut]]:
    """Print the scores of finished runs next to the paper's, with differences from the row's configuration.

    Folds that cannot be read, or must not be averaged with the rest, are left out; standard error names them.

    Args:
        path: The table file.
        overrides: ``key=value`` for keys of the table.
        arguments: LightningCLI's arguments for every row; they determine its run folder.
        options: Folds and seeds to show, and the folder of runs.
        console: Console to print to.

    Returns:
        Each row with its runs and its configuration, and the folders left out.

    Raises:
        ConfigurationError: If two rows share a folder.
    """
    table = read_table(path, overrides)
    rows: list[ShownRow] = []
    left_out: list[LeftOut] = []
    by_folder: dict[Path, tuple[Row, list[str]]] = {}
    for row in table.rows:
        runs: list[CrossValidation] = []
        configured = None
        if row.experiment and not row.once:
            given = row_arguments(path, row, arguments)
            cli = build_on_cpu(given, options.allow)
            name, folder = cli.run_name, cli.run_name.row_folder(options.runs)
            configured = Configured.of((name.paper, name.experiment, name.corpus), relevant(cli.configuration))
            other, theirs = by_folder.setdefault(folder, (row, given))
            if (theirs, other.needs) != (given, row.needs):
                raise _same_folder_error(path, other.name, row.name, folder)
            runs, others = gather(_finished_folds(folder, options, cli.configuration), whole=True)
            left_out += others
            for seed in options.chosen_seeds(cli.configuration):
                left_out += diverged_folds(folder / seed_name(seed))
        summary = summarize(runs) if runs else None
        differences = differences_from_file(path, row, runs, options.allow) if runs else []
        shown = TableRow(row.name, row.paper, summary, row.note, row.parameters, row.experiment is None, differences)
        rows.append((shown, runs, configured))
    for line in comparison(table.title, read_table(path).corpus, [shown for shown, _, _ in rows]):
        console.print(line, highlight=False, markup=False, soft_wrap=isinstance(line, str))
    warn_of_left_out(left_out)
    return rows, left_out


def _same_folder_error(path: Path, one: str, other: str, folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: rows '{one}' and '{other}' differ but would both use {folder}; rename one, so that its letters, "
        "digits or . = + - differ"
    )


def _write_report(
    path: Path, table: Table, corpus: str, rows: Sequence[ShownRow], left_out: Sequence[LeftOut], folder: Path
) -> Path | None:
    """Write the report on a table's rows below the folder of runs; None if nothing is finished."""
    systems, absent = [], []
    for row, runs, configured in rows:
        published = PaperResult(path.stem, corpus, row.paper, row.note, row.differences)
        if runs:
            systems.append(ReportedSystem.of(runs, [published], row.name))
        elif row.paper:
            absent.append(AbsentRow(row.name, published, "quoted" if row.quoted else "not run", configured))
    if not systems:
        return None
    corpora = "-".join(sorted({system.runs[0].folder.parents[1].name for system in systems}))
    out = folder / path.parent.name / path.stem / corpora
    return write_report(systems, out, table.title, absent, left_out, table.baseline)


def _finished_folds(folder: Path, options: RunOptions, configuration: Mapping[str, Any]) -> list[Path]:
    """Return the folders of the chosen seeds' and folds' tested runs."""
    folds = None if options.folds is None else set(map(fold_name, parse_numbers(options.folds, "--folds")))
    seeds = [folder / seed_name(seed) for seed in options.chosen_seeds(configuration)]
    tested = [fold for seed in seeds for fold in tested_folds(seed)]
    return [fold for fold in tested if folds is None or fold.name in folds]
