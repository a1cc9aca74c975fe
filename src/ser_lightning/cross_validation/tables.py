"""Table files: which experiments make a published table, what a row needs of another, and what the paper reports.

A file such as `experiments/ando2019/table3.yaml` is an OmegaConf structured config: merged with `key=value` overrides,
interpolated, and refused with file and key where it does not fit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from ser_lightning.cross_validation.cross_validate import Choice, group_folder, plan_experiment, run_planned
from ser_lightning.cross_validation.plan import Job, parse_numbers
from ser_lightning.errors import ConfigurationError
from ser_lightning.experiment import ExperimentCLI
from ser_lightning.reports.comparison import TableRow, comparison
from ser_lightning.reports.runs import FOLD_FOLDER, CrossValidation, find_cross_validations
from ser_lightning.reports.summary import summarize
from ser_lightning.run_record import CONFIG_FILE, DEFAULT_ROW, differing_keys

# A fold's own, and the protocol, which is stated as a whole.
_OWN_KEYS = ("seed_everything", "data.init_args.seed", "data.init_args.fold")
_PROTOCOL = "data.init_args.protocol"
# Behind it are the caller's arguments for rows that are trained once.
ONCE = "--once"


@dataclass
class Row:
    """One row of a table.

    Attributes:
        name: What the row is called; unique in the table.
        experiment: The experiment's YAML, relative to the table file; none for a row that is only quoted.
        overrides: LightningCLI's arguments behind it. Rows without any share the experiment's own runs.
        needs: Row by argument: the argument gets the best checkpoint of that row's same fold and seed.
        paper: The paper's scores in percent: UA, WA.
        parameters: What the paper says of the number of trainable parameters.
        note: What a reader of the number must know.
        once: Trained once, on no fold of the corpus (pre-training); it has no scores in the table. Of the caller's
            arguments it takes the trainer's, and those behind ``--once``: its corpus is another one.
    """

    name: str = MISSING
    experiment: str | None = None
    overrides: list[str] = field(default_factory=list)
    needs: dict[str, str] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)
    parameters: str = ""
    note: str = ""
    once: bool = False


@dataclass
class Table:
    """A published table or figure.

    Attributes:
        title: Which one, and of what.
        corpus: The corpus that the paper's numbers are on. Rows may name it in their experiments as ``${corpus}``, so
            that ``corpus=ravdess`` runs the table on another.
        pretraining: The corpus of rows that are trained once, which they may name as ``${pretraining}``.
        rows: Its rows, in the paper's order.
    """

    title: str = MISSING
    corpus: str = MISSING
    pretraining: str = ""
    rows: list[Row] = MISSING


def read_table(path: Path, overrides: Sequence[str] = ()) -> Table:
    """Read a table file.

    Args:
        path: The YAML file.
        overrides: ``key=value`` for keys of the table, such as ``corpus=ravdess``.

    Raises:
        ConfigurationError: Naming the file and the key, if a key is unknown, missing or of the wrong kind, a row's
            name occurs twice, or a row needs one that is not there or that comes behind it.
    """
    try:
        loaded = OmegaConf.merge(
            OmegaConf.structured(Table), OmegaConf.load(path), OmegaConf.from_dotlist([*overrides])
        )
        table = cast(Table, OmegaConf.to_object(loaded))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no such table file; see experiments/<paper>/") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"{path}: {error.full_key or 'top level'}: {error.msg or error}") from error
    known: set[str] = set()
    for row in table.rows:
        if row.name in known:
            raise ConfigurationError(f"{path}: rows: '{row.name}' occurs twice; give each row its own name")
        for argument, needed in row.needs.items():
            if needed not in known:
                raise ConfigurationError(
                    f"{path}: row '{row.name}': needs.{argument} is '{needed}', which is no row above it; "
                    f"above are {', '.join(sorted(known)) or 'none'}"
                )
        known.add(row.name)
    return table


def folder_name(row: Row) -> str:
    """Return the part of a run's folder that tells a row from others of its experiment."""
    if not row.overrides and not row.needs:
        return DEFAULT_ROW
    return re.sub(r"[^A-Za-z0-9.=+-]+", "_", row.name).strip("_")


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
    failures = run_planned(jobs, longest, console)
    show_table(path, overrides, arguments, choice, console)
    return 1 if failures else 0


def show_table(
    path: Path, overrides: Sequence[str], arguments: Sequence[str], choice: Choice, console: Console
) -> None:
    """Print ours beside the paper's, for what is on disk, and say where it was not configured as in the file.

    Args:
        path: The table file.
        overrides: ``key=value`` for keys of the table.
        arguments: LightningCLI's arguments for every row: they say where its runs lie.
        choice: Folds and seeds to show, and places.
        console: Where to print.
    """
    table = read_table(path, overrides)
    rows = []
    for row in table.rows:
        runs: list[CrossValidation] = []
        if row.experiment and not row.once:
            folder = group_folder(row_arguments(path, row, arguments), folder_name(row), choice)
            if finished := _finished_folds(folder, choice):
                runs = find_cross_validations(finished)
        summary = summarize(runs) if runs else None
        unlike = _unlike_file(path, row, runs, choice.allow) if runs else []
        rows.append(TableRow(row.name, row.paper, summary, row.note, row.parameters, row.experiment is None, unlike))
    for line in comparison(table.title, read_table(path).corpus, rows):
        console.print(line, highlight=False, soft_wrap=isinstance(line, str))


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
