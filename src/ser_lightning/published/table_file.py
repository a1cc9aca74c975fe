"""Table files: the experiments of a published table, dependencies between its rows, and the paper's scores.

A file such as `experiments/ando2019/table3.yaml` is an OmegaConf structured config, with `key=value` overrides and
interpolation; errors name file and key.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import check_keys, load_file, override, schema_error
from ser_lightning.runs.names import DEFAULT_ROW, check_folder_name
from ser_lightning.runs.summary import METRICS
from ser_lightning.training.experiment_files import check_kind


@dataclass
class Row:
    """One row of a table.

    Attributes:
        name: Name of the row, unique in the table.
        experiment: The system's YAML, relative to the table file; None for a quoted row, which is not run.
        corpus: The corpus's YAML without its extension, relative to the table file; by default the table's. Empty if
            the system's YAML names its corpus.
        overrides: LightningCLI arguments. Rows without overrides and needs share the experiment's runs.
        needs: Row by argument: the argument gets the best checkpoint of that row on the same fold and seed.
        paper: The paper's scores in percent: UA, WA.
        parameters: The paper's number of trainable parameters.
        note: What a reader of the scores must know.
        once: Whether it is trained once, not per fold (pre-training on another corpus); it has no scores. It takes the
            caller's trainer arguments and those after ``--once``.
    """

    name: str = MISSING
    experiment: str | None = None
    corpus: str = "${corpus}"
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
        title: Number and subject of the table.
        corpus: The corpus of the paper's scores; ``corpus=ravdess`` runs the table on another.
        baseline: The row with which recalls of classes are compared; by default the first that is run per fold.
        pretraining: The corpus of rows that are trained once, which refer to it as ``corpus: ${pretraining}``.
        rows: The rows in the paper's order.
    """

    title: str = MISSING
    corpus: str = MISSING
    baseline: str = ""
    pretraining: str = ""
    rows: list[Row] = MISSING


def read_table(path: Path, overrides: Sequence[str] = ()) -> Table:
    """Read a table file.

    Args:
        path: The YAML file.
        overrides: ``key=value`` for keys of the table, such as ``corpus=ravdess``.

    Raises:
        ConfigurationError: Naming file and key, if the file cannot be read, a key is unknown, missing or of the wrong
            type, a row's name is a duplicate or not a valid folder name, or a needed row does not exist, comes later or
            leaves no checkpoint.
    """
    content = load_file(path, "table file; `ser experiments` lists and copies them")
    check_kind(path, list(map(str, content)), "a table")
    try:
        loaded = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Table), content))
        for one in overrides:
            override(path, loaded, one)
        table = cast(Table, OmegaConf.to_object(loaded))
    except OmegaConfBaseException as error:
        _check_keys(path, content)
        raise schema_error(path, error) from error
    except TypeError as error:  # a list instead of a mapping, or the reverse
        _check_keys(path, content)
        raise ConfigurationError(f"{path}: {error}") from error
    _check_rows(path, table.rows)
    run = [row.name for row in table.rows if row.experiment and not row.once]
    if table.baseline and table.baseline not in run:
        raise ConfigurationError(
            f"{path}: baseline is '{table.baseline}', which is not a row that is run per fold; these are: "
            f"{', '.join(run) or 'none'}"
        )
    table.baseline = table.baseline or next(iter(run), "")
    return table


def _check_keys(path: Path, content: DictConfig) -> None:
    """Name the key that does not fit. A good file is not checked so: a merge for each key takes a second."""
    rows = None if OmegaConf.is_interpolation(content, "rows") else content.get("rows")
    for index, row in enumerate(rows if isinstance(rows, ListConfig) else []):
        if isinstance(row, DictConfig):
            name = cast(dict[str, object], OmegaConf.to_container(row)).get("name")
            check_keys(path, Row, row, f"rows[{index}]", f" (row '{name}')" if name else "")
    check_keys(path, Table, content)


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    """Reject duplicate rows, names that are not valid folder names, and needs that cannot be met."""
    known: dict[str, Row] = {}
    for row in rows:
        at = f"{path}: row '{row.name}'"
        if row.name in known:
            raise ConfigurationError(f"{path}: rows: '{row.name}' occurs twice; rename one of them")
        if unknown := sorted(set(row.paper) - set(METRICS)):
            raise ConfigurationError(f"{at}: paper.{unknown[0]} is not a known score; use {' or '.join(METRICS)}")
        check_folder_name(folder_name(row), f"{at}: in letters from a to z, digits and . = + - the name")
        for argument, needed in row.needs.items():
            if needed not in known:
                raise ConfigurationError(
                    f"{at}: needs.{argument} is '{needed}', which is not an earlier row; "
                    f"earlier rows: {', '.join(sorted(known)) or 'none'}"
                )
            if known[needed].experiment is None:
                raise ConfigurationError(
                    f"{at}: needs.{argument} is '{needed}', a quoted row without a checkpoint; give '{needed}' an "
                    "experiment, or name another row"
                )
            if row.once and not known[needed].once:
                raise ConfigurationError(
                    f"{at}: needs.{argument} is '{needed}', which is trained per fold, but this row is trained once; "
                    f"set once: true for '{needed}' too, or remove it here"
                )
        known[row.name] = row


def folder_name(row: Row) -> str:
    """Return the name of a row's folder inside its experiment's."""
    if not row.overrides and not row.needs:
        return DEFAULT_ROW
    return re.sub(r"[^A-Za-z0-9.=+-]+", "_", row.name).strip("_")


def experiment_file(path: Path, row: Row) -> Path:
    """Return the YAML of a row's system, which may be in another paper's folder."""
    return Path(os.path.normpath(path.parent / str(row.experiment)))


ONCE = "--once"
"""Precedes the caller's arguments for rows that are trained once."""


def row_arguments(path: Path, row: Row, arguments: Sequence[str]) -> list[str]:
    """Return LightningCLI's arguments for a row: system, corpus, overrides, the caller's arguments, row name.

    Args:
        path: The table file.
        row: The row.
        arguments: The caller's arguments as ``--key=value``; after ``--once`` those for rows that are trained once.
    """
    split = arguments.index(ONCE) if ONCE in arguments else len(arguments)
    callers = list(arguments[:split])
    if row.once:
        shared = [argument for argument in callers if argument.startswith(("--trainer", "--config"))]
        callers = [*shared, *arguments[split + 1 :]]
    files = [row.experiment, f"{row.corpus}.yaml" if row.corpus else None]
    configs = [f"--config={os.path.normpath(path.parent / file)}" for file in files if file]
    return [*configs, *row.overrides, *callers, f"--run.row={folder_name(row)}"]
