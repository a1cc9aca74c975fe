"""Systems that are trained from other systems' checkpoints: refused before anything runs, where those are not given."""

import shlex
from collections.abc import Collection
from pathlib import Path

from ser_lightning.cross_validation.published import table_files
from ser_lightning.cross_validation.table_file import read_table
from ser_lightning.errors import ConfigurationError
from ser_lightning.systems import EmotionClassifier, ExistencePretraining


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
