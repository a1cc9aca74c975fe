"""Look up a run's published scores by paper, experiment and row."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from ser_lightning.errors import ConfigurationError
from ser_lightning.published.table_file import Row, Table, experiment_file, folder_name, read_table, row_arguments
from ser_lightning.reports.systems import PaperResult, ReportedSystem
from ser_lightning.runs.configuration import CHECKPOINT_KEYS_END, differences
from ser_lightning.runs.folder import CONFIG_FILE, read_config
from ser_lightning.runs.gathering import CrossValidation
from ser_lightning.systems import EmotionClassifier
from ser_lightning.training.arguments import config_files
from ser_lightning.training.experiment import resolve
from ser_lightning.training.experiment_files import experiments_folder
from ser_lightning.types import split_corpus_name

_FOLD_KEYS = ("seed_everything", "data.init_args.fold")
_PROTOCOL = "data.init_args.protocol"


def table_files(experiments: Path) -> list[Path]:
    """Return the files of published tables, figures and model sizes, sorted by path."""
    found = experiments.glob("*/*.yaml")
    return sorted(path for path in found if path.name.startswith(("table", "figure", "parameters")))


@cache
def _read_version(path: Path, modified_ns: int) -> Table:
    return read_table(path)


def _read_once(path: Path) -> Table:
    """Read a version of a table file once in a process: a command may write many reports, and each looks at all."""
    return _read_version(path, path.stat().st_mtime_ns)


def with_published(systems: Sequence[ReportedSystem], experiments: Path | None = None) -> list[ReportedSystem]:
    """Return systems with the papers' results for them, none if there are no table files.

    A system on another corpus gets the paper's scores too, marked as not comparable.

    Args:
        systems: Systems of a report.
        experiments: The folder of experiments; None: as ``experiments_folder``.
    """
    rows: dict[tuple[str, str, str], list[tuple[Path, Table, Row]]] = {}
    is_of_paper = any(system.runs[0].facts.paper for system in systems)  # else no row can be its: do not read tables
    for path in table_files(experiments or experiments_folder()) if is_of_paper else ():
        table = _read_once(path)
        for row in table.rows:
            if row.experiment and row.paper:
                file = experiment_file(path, row)
                rows.setdefault((file.parent.name, file.stem, folder_name(row)), []).append((path, table, row))
    found = []
    for system in systems:
        facts = system.runs[0].facts
        entries = rows.get((facts.paper, facts.experiment, facts.row), [])
        # Two tables may differ in the corpus only.
        entries = [entry for entry in entries if entry[1].corpus == facts.corpus] or entries
        results = [
            PaperResult(
                f"{table.title}: {row.name}", table.corpus, row.paper, row.note, _differences(path, row, system.runs)
            )
            for path, table, row in entries
        ]
        found.append(replace(system, published=results))
    return found


def _differences(path: Path, row: Row, runs: Sequence[CrossValidation]) -> list[str]:
    """Return how a run's configuration differs from its row on the same corpus; empty if that has no experiment."""
    table = read_table(path, [f"corpus={runs[0].facts.corpus}"])
    (row_on_corpus,) = [other for other in table.rows if other.name == row.name]
    if not all(file.is_file() for file in config_files(row_arguments(path, row_on_corpus, []))):
        return []
    try:
        found = differences_from_file(path, row_on_corpus, runs)
    except ConfigurationError as error:  # such as a class that was trusted only for training
        return [f"not compared: {' '.join(str(error).split())}"]
    is_other_corpus = any(difference.startswith("data.class_path ") for difference in found)
    return [] if is_other_corpus else found


def differences_from_file(
    path: Path, row: Row, runs: Sequence[CrossValidation], allow: Sequence[str] = ()
) -> list[str]:
    """Return the keys in which a fold's configuration differs from the row's, with both values.

    Keys that differ between folds are left out; the protocol counts as one key.

    Args:
        path: The table file.
        row: The row.
        runs: The row's runs.
        allow: Module prefixes that the user trusts.

    Raises:
        ConfigurationError: If the row's experiment cannot be resolved, or a run's configuration is damaged.
    """
    folders = [fold.folder for run in runs for fold in run.folds if (fold.folder / CONFIG_FILE).is_file()]
    if not folders:
        return []
    filed = resolve(row_arguments(path, row, []), allow)
    found: dict[str, str] = {}
    for difference in (one for folder in folders for one in differences(read_config(folder), filed)):
        key = difference.key
        if key == _PROTOCOL or key.startswith(f"{_PROTOCOL}."):
            found[_PROTOCOL] = _PROTOCOL
        elif key not in (*_FOLD_KEYS, *row.needs) and not key.endswith(CHECKPOINT_KEYS_END):
            found.setdefault(key, f"{key} {difference.there} (file: {difference.now})")
    return list(found.values())


def check_earlier_stages(system: EmotionClassifier, experiment: Path, corpus: str, supplied: Collection[str]) -> None:
    """Reject a system without the checkpoints of its earlier stages, before each fold fails.

    Args:
        system: The system.
        experiment: Its YAML file.
        corpus: The corpus that it is trained on.
        supplied: Keys whose checkpoint the plan supplies.

    Raises:
        ConfigurationError: Naming the first missing key, and the command that trains that stage.
    """
    keys = {f"model.init_args.{argument}": path for argument, path in system.sources.items()}
    missing = [key for key, path in keys.items() if path is None and key not in supplied]
    if missing:
        command = _table_command(experiment, split_corpus_name(corpus)[0], missing[0])
        way_out = f"{command} trains that stage first, fold by fold" if command else f"give --{missing[0]}"
        raise ConfigurationError(
            f"{experiment}: {missing[0]} is missing, the earlier stage's checkpoint on the same fold; {way_out}"
        )


def _table_command(experiment: Path, corpus: str, key: str) -> str | None:
    """Return the command for a row that trains ``experiment`` and gets ``key`` from another row, or None."""
    folder = experiment.resolve().parent
    found = []
    tables = table_files(folder.parent) if (folder / f"{corpus}.yaml").is_file() else []
    for path in (path for path in tables if path.parent == folder):
        table = read_table(path)
        key_of_table = [] if table.corpus == corpus else [f"corpus={corpus}"]
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        found += [
            (len(row.overrides), ["ser", "table", "run", str(shown), *key_of_table, "--rows", row.name])
            for row in table.rows
            if key in row.needs and (path.parent / str(row.experiment)).resolve() == experiment.resolve()
        ]
    return shlex.join(min(found, key=lambda one: one[0])[1]) if found else None
