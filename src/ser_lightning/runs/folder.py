"""What a run is called, where its folder is, and whether two runs are the same.

``runs/<paper>/<experiment>/<corpus>/<row>/seed-<n>/fold-<nn>``: paper, experiment and row are part of a run's
configuration; by default they come from the YAML's place under ``experiments/`` and from ``--row``. The corpus comes
from the data module.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.runs.configuration import CHECKPOINT_KEYS_END, differing_keys, flatten

if TYPE_CHECKING:
    import torch

RUNS = Path("runs")
DEFAULT_ROW = "default"

# A fold's files.
CONFIG_FILE = "config.yaml"
SPLIT_FILE = "split_hash"
SOURCES_FILE = "source_hashes.json"
CHECKPOINTS, BEST, LAST, CARD = "checkpoints", "best.ckpt", "last.ckpt", "best.md"
METRICS_FILE = "metrics.csv"
FACTS_FILE = "run.json"
FILES = {  # predictions by set
    "validation": "validation_predictions.csv",
    "test": "predictions.csv",
    "all": "corpus_predictions.csv",
}
SCORES_FILE = "scores.json"
EMBEDDINGS_FILE = "embeddings.safetensors"
CONFUSION_PICTURE, EMBEDDINGS_PICTURE, ATTENTION_PICTURE = "confusion.png", "embeddings.png", "attention.png"
# What follows from a training, in the order in which it is deleted before another one.
RESULTS = (FACTS_FILE, *FILES.values(), SCORES_FILE, CONFUSION_PICTURE, EMBEDDINGS_FILE, EMBEDDINGS_PICTURE)


@dataclass(frozen=True)
class ExperimentName:
    """``run`` of a configuration: what names a run besides its corpus, seed and fold.

    Attributes:
        paper: Folder of its paper, or empty; None: the first YAML's folder below ``experiments/``.
        experiment: None: the first YAML's name without ending.
        row: Row of a table, or what the user calls this variant (``--row``).
    """

    paper: str | None = None
    experiment: str | None = None
    row: str = DEFAULT_ROW


def name_by_place(path: Path) -> tuple[str, str]:
    """Return paper and experiment by the place of the experiment's YAML; outside any paper's folder it has no paper."""
    folders = path.resolve().parts[:-1]
    below = folders[len(folders) - folders[::-1].index("experiments") :] if "experiments" in folders else ()
    return below[0] if below else "", path.stem


@dataclass(frozen=True)
class RunName:
    """What tells one fold's run from all others.

    Attributes:
        paper: Folder of its paper, or empty.
        experiment: Name of its experiment.
        corpus: Corpus, with ``-synthetic`` after it if it is a made one.
        row: Row of a table, or ``default``.
        seed: Seed of the run.
        fold: Fold, counted from 0.
    """

    paper: str
    experiment: str
    corpus: str
    row: str
    seed: int
    fold: int

    @property
    def group(self) -> str:
        """What all folds of this experiment and seed share; also their folder below ``runs``."""
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


def seed_name(seed: int) -> str:
    """Return the name of a seed's folder: ``seed-0`` and so on."""
    return f"seed-{seed}"


_FOLD_NAME = re.compile(r"fold-\d+")


def fold_name(fold: int) -> str:
    """Return the name of a fold's folder: ``fold-00`` and so on."""
    return f"fold-{fold:02d}"


def has_begun(folder: Path) -> bool:
    """Whether a run has claimed a folder; one that was only planned holds a configuration and nothing else."""
    return any((folder / name).exists() for name in (SPLIT_FILE, CHECKPOINTS, FACTS_FILE, *FILES.values()))


def refuse_other_run(folder: Path, configuration: Mapping[str, Any], split_hash: str) -> None:
    """Refuse a folder in which another run has begun.

    Args:
        folder: The run's folder.
        configuration: The resolved configuration.
        split_hash: Hash of the fold's split.

    Raises:
        ConfigurationError: If the folder belongs to a run with another configuration or split; it names each key.
    """
    if not (folder / CONFIG_FILE).exists() or not has_begun(folder):
        return
    differences = differing_keys(read_config(folder), configuration)
    split = folder / SPLIT_FILE
    if not split.is_file():
        raise ConfigurationError(f"{split} is missing; put it back, or delete the folder to run it again")
    earlier = split.read_text(errors="replace")
    if earlier != split_hash:
        differences.append(f"  split hash: {earlier} there, {split_hash} now (the corpus or its labels changed)")
    if differences:
        raise ConfigurationError(
            f"{folder} holds a run with another configuration:\n"
            + "\n".join(differences)
            + "\nUse --row NAME (or another --trainer.default_root_dir) for a new run, or delete the folder."
        )


def claim_folder(folder: Path, configuration: Mapping[str, Any], split_hash: str) -> None:
    """Write the configuration and the split hash of a run into its folder, or check that it is this run's already.

    Args:
        folder: The run's folder.
        configuration: The resolved configuration.
        split_hash: Hash of the fold's split.

    Raises:
        ConfigurationError: As ``refuse_other_run``.
    """
    refuse_other_run(folder, configuration, split_hash)
    if not (folder / CONFIG_FILE).exists() or not has_begun(folder):
        write_config(folder, configuration)
        write_atomically(folder / SPLIT_FILE, split_hash.encode())


def write_config(folder: Path, configuration: Mapping[str, Any]) -> None:
    """Write the resolved configuration of a run into its folder, atomically."""
    write_atomically(folder / CONFIG_FILE, yaml.safe_dump(dict(configuration), sort_keys=False).encode())


def read_config(folder: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the resolved configuration of a run, by its folder.

    Args:
        folder: The run's folder.
        keys: Keys that must be there, from the top, with dots.

    Raises:
        ConfigurationError: If the file is missing, holds no configuration, or lacks one of ``keys``.
    """
    path = folder / CONFIG_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        cause = "there is no such file"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())
    else:
        if not isinstance(content, dict):
            cause = "no keys"
        elif missing := [key for key in keys if not _has(content, key)]:
            cause = f"no key '{missing[0]}'"
        else:
            return content
    raise ConfigurationError(
        f"{path} is not the configuration of a run ({cause}); put the file back, or delete the folder to run it again"
    )


def _has(content: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(content, dict) or name not in content:
            return False
        content = content[name]
    return True


def claim_sources(folder: Path, configuration: Mapping[str, Any]) -> None:
    """Put on record which checkpoints a run starts from, or check that they are those on record.

    A file that is not there is not looked at: who evaluates needs only the run's own checkpoint.

    Args:
        folder: The run's folder, which is claimed.
        configuration: The resolved configuration.

    Raises:
        ConfigurationError: If a stage was trained anew since the run started from it.
    """
    now = {
        key: file_hash(Path(value))
        for key, value in flatten(configuration)
        if key.endswith(CHECKPOINT_KEYS_END) and isinstance(value, str) and Path(value).is_file()
    }
    recorded = recorded_sources(folder)
    for key, found in now.items():
        if recorded.get(key, found) != found:
            raise ConfigurationError(
                f"{folder} started from another {key} than lies there now: that stage was trained anew since; delete "
                "the folder, or use --row NAME (or another --trainer.default_root_dir) for a new run"
            )
    if now and not recorded:
        write_atomically(folder / SOURCES_FILE, json.dumps(now, indent=2).encode())


def recorded_sources(folder: Path) -> dict[str, str]:
    """Return the hashes of the checkpoints that a run started from, by key of its configuration.

    Raises:
        ConfigurationError: If the file that says so is damaged.
    """
    path = folder / SOURCES_FILE
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text()).items()} if path.exists() else {}
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} does not say which checkpoints the run started from ({error}); delete the folder to run it again"
        ) from error


def file_hash(path: Path) -> str:
    """Return a file's SHA-256; one that lies as it did is not read again."""
    status = path.stat()
    return _hash(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _hash(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version() -> str:
    """Return the version of the code that runs: the package's, and the commit where there is one."""
    version = importlib.metadata.version("ser-lightning")
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return version
    return f"{version}+{answer.stdout.strip()}" if answer.returncode == 0 else version


def hardware(device: "torch.device", num_processes: int) -> str:
    """Return what a run computes on, in words."""
    import torch

    if device.type == "cuda":
        return f"{num_processes} x {torch.cuda.get_device_name(device)}"
    name = platform.processor() or platform.machine()
    return f"{num_processes} x {device.type} ({name}, {torch.get_num_threads()} threads)"


def trial_row(parameters: Mapping[str, Any], row: str = DEFAULT_ROW) -> str:
    """Return the row that a trial's runs belong to: the same for the same parameters, whoever draws them.

    Args:
        parameters: Value by name, or by name within groups.
        row: What the user calls the trials, or the default.
    """
    content = json.dumps(dict(flatten(parameters)), sort_keys=True)
    return f"{'trial' if row == DEFAULT_ROW else row}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def is_finished(folder: Path, scored: bool = True, tested: bool = True) -> bool:
    """Whether what a job leaves is there: the facts of what was trained and, where there are some, predictions.

    The test set's predictions are written last and whole; where nothing is tested, the facts are, which follow the
    predictions of the validation set.

    Args:
        folder: The job's folder.
        scored: Whether the job leaves predictions at all; pre-training does not.
        tested: Whether it goes on to the test set.
    """
    # Listed, not looked up: a network file system remembers for up to a minute that a file or a folder is not there,
    # but opening the folder above it asks the server whether that still holds.
    try:
        os.listdir(folder.parent)
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    return FACTS_FILE in names and (not scored or FILES["test" if tested else "validation"] in names)


def fold_folders(folder: Path) -> list[Path]:
    """Return ``folder`` if it is a fold's, else the folds' folders below it, by path."""
    if _FOLD_NAME.fullmatch(folder.name):
        return [folder]
    found = []
    for above, below, _ in os.walk(folder):
        found += [Path(above, name) for name in below if _FOLD_NAME.fullmatch(name)]
        below[:] = [name for name in below if not _FOLD_NAME.fullmatch(name)]
    return sorted(found)


def tested_folds(folder: Path) -> list[Path]:
    """Return those of ``fold_folders`` that hold predictions of their test set."""
    return [entry for entry in fold_folders(folder.resolve()) if (entry / FILES["test"]).is_file()]
