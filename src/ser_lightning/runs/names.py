"""Names of runs and their folders.

``runs/<paper>/<experiment>/<corpus>/<row>/seed-<n>/fold-<nn>``: paper, experiment and row are part of the
configuration; by default they come from the YAML's path below ``experiments/`` and from ``--row``. The corpus comes
from the data module.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import parse_yaml
from ser_lightning.runs.configuration import flatten

RUNS = Path("runs")
DEFAULT_ROW = "default"
LARGEST_SEED = 2**32 - 1
"""NumPy's limit."""
_MOST_BYTES = 200  # file systems allow 255, and names of temporary files are longer
_FOLD_NAME = re.compile(r"fold-\d+")
_TRIAL_ROW = re.compile(r".+-.*=.*-[0-9a-f]{8}")
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_MOST_LETTERS_OF_PARAMETERS = 60


def check_folder_name(name: str, key: str) -> None:
    """Reject a name that would not be one folder of its own, or would be taken for a fold's.

    Args:
        name: The name.
        key: The option or key that holds it, for the error.

    Raises:
        ConfigurationError: Naming key and name.
    """
    if name.strip(" .") == "":
        problem = "is empty or dots only"
    elif name != name.strip():
        problem = "begins or ends with a space"
    elif not name.isprintable() or set(name) & set("/\\"):
        problem = "holds a slash, a backslash or an invisible character"
    elif len(name.encode(errors="replace")) > _MOST_BYTES:
        problem = f"is longer than {_MOST_BYTES} bytes"
    elif is_fold_name(name):
        problem = "is the name of a fold's folder"
    else:
        return
    raise ConfigurationError(f"{key} '{name}' {problem}, but it names a folder; choose a name such as 'dropout-0.3'")


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

    def __post_init__(self) -> None:
        """Reject parts that do not name a folder."""
        named = {"run.experiment": self.experiment, "the corpus": self.corpus, "--row (run.row)": self.row}
        for key, name in (({"run.paper": self.paper} if self.paper else {}) | named).items():
            check_folder_name(name, key)

    @property
    def group(self) -> str:
        """Name common to all folds of this experiment and seed; also their folder below ``runs``."""
        parts = (self.paper, self.experiment, self.corpus, self.row, seed_name(self.seed))
        return "/".join(part for part in parts if part)

    @property
    def fold_name(self) -> str:
        """``fold-00`` and so on."""
        return fold_name(self.fold)

    @property
    def title(self) -> str:
        """Name of this experiment and seed where it is read: the group without the row "default"."""
        row = "" if self.row == DEFAULT_ROW else self.row
        parts = (self.paper, self.experiment, self.corpus, row, seed_name(self.seed))
        return "/".join(part for part in parts if part)

    def folder(self, runs: Path = RUNS) -> Path:
        """Return the run's folder below ``runs``."""
        return runs / self.group / self.fold_name

    def row_folder(self, runs: Path = RUNS) -> Path:
        """Return the folder of the row's seeds below ``runs``."""
        return (runs / self.group).parent


def seed_name(seed: int) -> str:
    """Return the name of a seed's folder: ``seed-0`` and so on."""
    return f"seed-{seed}"


def fold_name(fold: int) -> str:
    """Return the name of a fold's folder: ``fold-00`` and so on."""
    return f"fold-{fold:02d}"


def is_fold_name(name: str) -> bool:
    """Return whether a folder's name is that of a fold."""
    return _FOLD_NAME.fullmatch(name) is not None


def trial_row(parameters: Mapping[str, Any], row: str = DEFAULT_ROW) -> str:
    """Return the row of a sweep trial's runs: its parameters, and a hash that is equal for equal parameters only.

    Args:
        parameters: Values by name, which may be nested.
        row: Prefix chosen by the user, or the default.

    Returns:
        Such as ``trial-clusters=8,dropout=0.3-1175f4cf``.
    """
    flat = dict(flatten(parameters))
    digest = hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:8]
    shown = ",".join(f"{name.rpartition('.')[2]}={_short(flat[name])}" for name in sorted(flat))
    readable = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in shown)
    return f"{'trial' if row == DEFAULT_ROW else row}-{readable[:_MOST_LETTERS_OF_PARAMETERS]}-{digest}"


def is_trial(row: str) -> bool:
    """Return whether a row is that of a sweep's trial."""
    return _TRIAL_ROW.fullmatch(row) is not None


def in_words(value: Any) -> str:
    """Return a parameter's value in a few words: a class by its name, with its arguments."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        content: Any = parse_yaml(value) if value.startswith("{") else {"class_path": value}
    except ValueError:
        return value
    path = str(content.get("class_path")) if isinstance(content, dict) else ""
    if not _CLASS_PATH.fullmatch(path):
        return value
    arguments = [f" {name}={in_words(given)}" for name, given in (content.get("init_args") or {}).items()]
    return path.rpartition(".")[2] + "".join(arguments)


def _short(value: Any) -> str:
    """Return a parameter's value for a folder's name."""
    words = in_words(value)
    return words.replace(" ", "-" if isinstance(value, str) else "")
