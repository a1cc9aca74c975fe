"""What papers report of a run: table files, looked up by a run's paper, experiment and row."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ser_lightning.errors import ConfigurationError
from ser_lightning.published.table_file import Row, folder_name, read_table
from ser_lightning.reports.systems import Publications, Published
from ser_lightning.runs.configuration import ABSENT, Difference, unlike_file
from ser_lightning.runs.folder import CONFIG_FILE, read_config
from ser_lightning.runs.gathering import CrossValidation
from ser_lightning.systems import EmotionClassifier, ExistencePretraining

EXPERIMENTS = Path("experiments")  # of the checkout that a command runs in
_CHOSEN_EACH_RUN = ("seed_everything", "data.init_args.seed", "data.init_args.fold", "data.class_path")


def table_files(experiments: Path) -> list[Path]:
    """Return the files of published tables, figures and sizes, by path."""
    found = experiments.glob("*/*.yaml")
    return sorted(path for path in found if path.name.startswith(("table", "figure", "parameters")))


def publications(experiments: Path) -> Publications:
    """Return a function that says what papers report of a run; of nothing where there are no table files.

    A run on another corpus than the paper's finds the paper's numbers too, which then say that they do not compare.

    Args:
        experiments: The folder of experiments.
    """
    rows: dict[tuple[str, str, str], list[tuple[Path, str, str, Row]]] = {}
    for path in table_files(experiments):
        table = read_table(path)
        for row in table.rows:
            if row.experiment and row.paper:
                key = (path.parent.name, Path(row.experiment).stem, folder_name(row))
                rows.setdefault(key, []).append((path, table.title, table.corpus, row))

    def published(runs: Sequence[CrossValidation]) -> list[Published]:
        facts = runs[0].facts
        found = rows.get((facts.paper, facts.experiment, facts.row), [])
        here = [entry for entry in found if entry[2] == facts.corpus]  # two tables may be the same on two corpora
        return [
            Published(f"{title}: {row.name}", corpus, row.paper, row.note, _unlike_file(path, row, runs))
            for path, title, corpus, row in here or found
        ]

    return published


def _unlike_file(path: Path, row: Row, runs: Sequence[CrossValidation]) -> list[str]:
    """Return what a run has otherwise than the row's experiment on the run's own corpus says, as far as it says it."""
    own = path.parent / runs[0].facts.corpus / Path(str(row.experiment)).name
    if not own.is_file():
        return []
    folders = [fold.folder for run in runs for fold in run.folds]
    configurations = [read_config(folder) for folder in folders if (folder / CONFIG_FILE).is_file()]
    filed = yaml.safe_load(own.read_text())
    for key, value in _settings(row.overrides):
        _set(filed, key.split("."), value)
    if configurations:
        filed = _spelt_as(configurations[0], filed)
    return list(unlike_file(configurations, filed, _is_own).values())


def _settings(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Return key and value of each override, which may stand in one word or in two."""
    words = iter(overrides)
    for word in words:
        key, equals, value = word.partition("=")
        yield key.removeprefix("--"), yaml.safe_load(value if equals else next(words, ""))


def _set(filed: dict[str, Any], key: Sequence[str], value: Any) -> None:
    """Set a value as LightningCLI does: a class takes the place of a class, and its arguments need no ``init_args``.

    Building the experiment would tell the same, and take the corpus and half a second for each row.
    """
    name, *rest = key
    if "class_path" in filed and name not in ("class_path", "init_args"):
        filed = filed.setdefault("init_args", {})
    inner = filed.get(name)
    if rest:
        if not isinstance(inner, dict):
            filed[name] = {"class_path": inner} if isinstance(inner, str) else {}
        _set(filed[name], rest, value)
    elif isinstance(inner, dict) and "class_path" in inner and isinstance(value, str):
        _set(inner, ["class_path"], value)
    else:
        if name == "class_path" and not _is_class(str(inner), value):
            filed.pop("init_args", None)  # of another class; what of them holds for this one too is left to the code
        filed[name] = value


def _is_class(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _spelt_as(run: Any, filed: Any) -> Any:
    """Return what the file says, classes and numbers spelt as in a run's configuration where they are the same."""
    if isinstance(run, dict) and isinstance(filed, str) and "class_path" in run:
        filed = {"class_path": filed}
    if isinstance(run, dict) and isinstance(filed, dict):
        return {key: _spelt_as(run.get(key), value) for key, value in filed.items()}
    if isinstance(run, str) and isinstance(filed, str) and _is_class(run, filed):
        return run
    if isinstance(run, float) and isinstance(filed, str) and filed[:1].isdigit():  # YAML takes 1e-4 for text
        return float(filed)
    return filed


def _is_own(difference: Difference) -> bool:
    """Whether it is the run's own affair, or a default that the experiment's file leaves to the code."""
    key = difference.key
    return difference.now == ABSENT or key.endswith("_checkpoint") or key in _CHOSEN_EACH_RUN


def refuse_missing_stages(system: EmotionClassifier, experiment: Path, supplied: Collection[str]) -> None:
    """Refuse to plan a system without the checkpoints that it is trained from; each fold would fail for itself.

    Args:
        system: The system.
        experiment: Its YAML file.
        supplied: Keys that each job is going to get a checkpoint for.

    Raises:
        ConfigurationError: Naming the first key that is missing, and the command that trains that stage too.
    """
    sources = system.sources if isinstance(system, ExistencePretraining) else {}
    keys = {f"model.init_args.{argument}": path for argument, path in sources.items()}
    missing = [key for key, path in keys.items() if path is None and key not in supplied]
    if missing:
        command = _table_command(experiment, missing[0])
        way_out = f"{command} trains that stage first, fold by fold" if command else "give it"
        raise ConfigurationError(
            f"{experiment}: {missing[0]} is missing, the checkpoint of the stage before on the same fold; {way_out}"
        )


def _table_command(experiment: Path, key: str) -> str | None:
    """Return the command for a row that trains ``experiment`` and gets ``key`` from another row, if there is one."""
    folder = experiment.resolve().parent
    found = []
    for path in (path for path in table_files(folder.parents[1]) if path.parent == folder.parent):
        table = read_table(path)
        corpus = [] if table.corpus == folder.name else [f"corpus={folder.name}"]
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        found += [
            (len(row.overrides), ["ser", "table", "run", str(shown), *corpus, "--rows", row.name])
            for row in read_table(path, corpus).rows
            if key in row.needs and (path.parent / str(row.experiment)).resolve() == experiment.resolve()
        ]
    return shlex.join(min(found, key=lambda one: one[0])[1]) if found else None
