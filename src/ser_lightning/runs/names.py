"""Names of runs and their folders.

``runs/<paper>/<experiment>/<corpus>/<row>/seed-<n>/fold-<nn>``: paper, experiment and row are part of the
configuration; by default they come from the YAML's path below ``experiments/`` and from ``--row``. The corpus comes
from the data module.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import flatten

RUNS = Path("runs")
DEFAULT_ROW = "default"


@dataclass(frozen=True)
class ExperimentName:
    """Key ``run`` of a configuration: the names of a run, without corpus, seed and fold.

    Attributes:
        paper: Folder of the paper, or empty; None: the first YAML's folder below ``experiments/``.
        experiment: None: the stem of the first YAML.
        row: Row of a table, or the user's name for this variant (``--row``).
    """

    paper: str | None = None
    experiment: str | None = None
    row: str = DEFAULT_ROW


def name_from_path(path: Path) -> tuple[str, str]:
    """Return paper and experiment of an experiment's YAML by its path; outside ``experiments/`` the paper is empty."""
    folders = path.resolve().parts[:-1]
    below = folders[len(folders) - folders[::-1].index("experiments") :] if "experiments" in folders else ()
    return below[0] if below else "", path.stem


@dataclass(frozen=True)
class RunName:
    """Identity of one fold's run.

    Attributes:
        paper: Folder of the paper, or empty.
        experiment: Name of the experiment.
        corpus: Name of the corpus, with the suffix ``-synthetic`` if generated.
        row: Row of a table, or ``default``.
        seed: Seed of the run.
        fold: Index of the fold, from 0.
    """

    paper: str
    experiment: str
    corpus: str
    row: str
    seed: int
    fold: int

    @property
    def group(self) -> str:
        """Name common to all folds of this experiment and seed; also their folder below ``runs``."""
        parts = (self.paper, self.experiment, self.corpus, self.row, seed_name(self.seed))
        return "/".join(part for part in parts if part)

    @property
    def fold_name(self) -> str:
        """``fold-00`` and so on."""
        return fold_name(self.fold)

    def folder(self, runs: Path = RUNS) -> Path:
        """Return the run's folder below ``runs``."""
        return runs / self.group / self.fold_name

    def row_folder(self, runs: Path = RUNS) -> Path:
        """Return the folder of the row's seeds below ``runs``."""
        return (runs / self.group).parent


MOST_SEED = 2**32 - 1


def check_seed(seed: object, key: str) -> None:
    """Check that ``seed`` is one that NumPy and torch accept.

    Args:
        seed: The value.
        key: Its key or option, for the error.

    Raises:
        ConfigurationError: If it is not.
    """
    if type(seed) is not int or not 0 <= seed <= MOST_SEED:
        raise ConfigurationError(f"{key} {seed}: a seed is an integer from 0 to {MOST_SEED}")


def seed_name(seed: int) -> str:
    """Return the name of a seed's folder: ``seed-0`` and so on."""
    return f"seed-{seed}"


def fold_name(fold: int) -> str:
    """Return the name of a fold's folder: ``fold-00`` and so on."""
    return f"fold-{fold:02d}"


def trial_row(parameters: Mapping[str, Any], row: str = DEFAULT_ROW) -> str:
    """Return the row of a sweep trial's runs: a hash of its parameters, equal for equal parameters.

    Args:
        parameters: Values by name, which may be nested.
        row: Prefix chosen by the user, or the default.
    """
    content = json.dumps(dict(flatten(parameters)), sort_keys=True)
    return f"{'trial' if row == DEFAULT_ROW else row}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
