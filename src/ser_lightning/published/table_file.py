"""Table files: which experiments make a published table, what a row needs of another, and what the paper reports.

A file such as `experiments/ando2019/table3.yaml` is an OmegaConf structured config: merged with `key=value` overrides,
interpolated, and refused with file and key where it does not fit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import check_keys, load_file, override, schema_error
from ser_lightning.runs.names import DEFAULT_ROW
from ser_lightning.runs.summary import METRICS


@dataclass
class Row:
    """One row of a table.

    Attributes:
        name: What the row is called; unique in the table.
        experiment: The system's YAML, relative to the table file; none for a row that is only quoted.
        corpus: Its corpus's YAML without the ending, relative to the table file; the table's unless given. Empty where
            the system's YAML names its corpus.
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
        title: Which one, and of what.
        corpus: The corpus that the paper's numbers are on; ``corpus=ravdess`` runs the table on another.
        pretraining: The corpus of rows that are trained once, which they name as ``corpus: ${pretraining}``.
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
        ConfigurationError: Naming the file and the key, if the file cannot be read, a key is unknown, missing or of
            the wrong kind, a row's name occurs twice or can name no folder, or a row needs one that is not there, comes
            behind it or leaves no checkpoint for it.
    """
    content = load_file(path, "table file; see experiments/<paper>/")
    rows = None if OmegaConf.is_interpolation(content, "rows") else content.get("rows")
    for index, row in enumerate(rows if isinstance(rows, ListConfig) else []):
        if isinstance(row, DictConfig):
            name = cast(dict[str, object], OmegaConf.to_container(row)).get("name")
            check_keys(path, Row, row, f"rows[{index}]", f" (row '{name}')" if name else "")
    check_keys(path, Table, content)
    try:
        loaded = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Table), content))
        for one in overrides:
            override(path, loaded, one)
        table = cast(Table, OmegaConf.to_object(loaded))
    except OmegaConfBaseException as error:
        raise schema_error(path, error) from error
    _check_rows(path, table.rows)
    return table


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    """Refuse rows that are there twice, that no folder can be named by, or that need what they cannot get."""
    known: dict[str, Row] = {}
    for row in rows:
        at = f"{path}: row '{row.name}'"
        if row.name in known:
            raise ConfigurationError(f"{path}: rows: '{row.name}' occurs twice; give each row its own name")
        if unknown := sorted(set(row.paper) - set(METRICS)):
            raise ConfigurationError(f"{at}: paper.{unknown[0]} is no score that is shown; give {' or '.join(METRICS)}")
        if folder_name(row) in ("", ".", ".."):
            raise ConfigurationError(
                f"{at}: no folder can be named by it; take another name, of which letters from a to z, digits and "
                ". = + - count"
            )
        for argument, needed in row.needs.items():
            if needed not in known:
                raise ConfigurationError(
                    f"{at}: needs.{argument} is '{needed}', which is no row above it; "
                    f"above are {', '.join(sorted(known)) or 'none'}"
                )
            if known[needed].experiment is None:
                raise ConfigurationError(
                    f"{at}: needs.{argument} is '{needed}', which is only quoted and leaves no checkpoint; give "
                    f"'{needed}' an experiment, or name another row"
                )
            if row.once and not known[needed].once:
                raise ConfigurationError(
                    f"{at}: needs.{argument} is '{needed}', which is trained on each fold, and this row only once; "
                    f"give '{needed}' once: true as well, or leave it out here"
                )
        known[row.name] = row


def folder_name(row: Row) -> str:
    """Return the part of a run's folder that tells a row from others of its experiment."""
    if not row.overrides and not row.needs:
        return DEFAULT_ROW
    return re.sub(r"[^A-Za-z0-9.=+-]+", "_", row.name).strip("_")


ONCE = "--once"
"""After it are the caller's arguments for rows that are trained once."""


def row_arguments(path: Path, row: Row, arguments: Sequence[str]) -> list[str]:
    """Return LightningCLI's arguments for a row: its system, its corpus, its overrides, the caller's, and its name.

    Args:
        path: The table file.
        row: The row.
        arguments: The caller's, each as ``--key=value``; after ``--once`` those for rows that are trained once.
    """
    split = arguments.index(ONCE) if ONCE in arguments else len(arguments)
    callers = list(arguments[:split])
    if row.once:
        shared = [argument for argument in callers if argument.startswith(("--trainer", "--config"))]
        callers = [*shared, *arguments[split + 1 :]]
    files = [row.experiment, f"{row.corpus}.yaml" if row.corpus else None]
    configs = [f"--config={path.parent / file}" for file in files if file]
    return [*configs, *row.overrides, *callers, f"--run.row={folder_name(row)}"]
