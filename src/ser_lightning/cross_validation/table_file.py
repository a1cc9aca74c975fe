"""Table files: which experiments make a published table, what a row needs of another, and what the paper reports.

A file such as `experiments/ando2019/table3.yaml` is an OmegaConf structured config: merged with `key=value` overrides,
interpolated, and refused with file and key where it does not fit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ser_lightning.cross_validation.structured_file import misfit
from ser_lightning.errors import ConfigurationError
from ser_lightning.run_record import DEFAULT_ROW


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
        raise misfit(path, error) from error
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
