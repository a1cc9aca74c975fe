"""What a run is called, where it lies, and whether two runs are the same.

``runs/<paper>/<experiment>/<corpus>/<row>/seed-<n>/fold-<nn>``: the paper and the experiment come from the YAML's place
under ``experiments/``, the corpus from its folder, the row from a table file or ``--row``.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.runs.configuration import CHECKPOINT_KEYS_END, differing_keys, flatten

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "config.yaml"
SPLIT_FILE = "split_hash"
SOURCES_FILE = "source_hashes.json"
FACTS_FILE = "run.json"
RUNS = Path("runs")
DEFAULT_ROW = "default"
CHECKPOINTS = "checkpoints"
FILES = {
    "validation": "validation_predictions.csv",
    "test": "predictions.csv",
    "all": "corpus_predictions.csv",
}


@dataclass(frozen=True)
class RunName:
    """What tells one fold's run from all others.

    Attributes:
        paper: Folder below ``experiments/``, or empty for a YAML that lies directly in it or elsewhere.
        experiment: The YAML's name without ending.
        corpus: Corpus, with ``-synthetic`` behind it if it is a made one.
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

    @classmethod
    def of(cls, experiment: Path, corpus: str, row: str, seed: int, fold: int) -> "RunName":
        """Return the name of a run of the YAML file ``experiment``, or of a run's own ``config.yaml``."""
        folders = experiment.resolve().parts[:-1]
        if experiment.name == CONFIG_FILE and len(folders) > 5 and folders[-1].startswith("fold-"):
            return cls("", folders[-5], corpus, row, seed, fold)
        below = folders[len(folders) - folders[::-1].index("experiments") :] if "experiments" in folders else ()
        return cls(below[0] if below else "", experiment.stem, corpus, row, seed, fold)

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


def seed_name(seed: int) -> str:
    """Return the name of a seed's folder: ``seed-0`` and so on."""
    return f"seed-{seed}"


def fold_name(fold: int) -> str:
    """Return the name of a fold's folder: ``fold-00`` and so on."""
    return f"fold-{fold:02d}"


def claim_folder(folder: Path, config_text: str, split_hash: str) -> None:
    """Write the configuration and the split hash of a run into its folder, or check that it is this run's already.

    Args:
        folder: The run's folder.
        config_text: The resolved configuration as YAML.
        split_hash: Hash of the fold's split.

    Raises:
        ConfigurationError: If the folder belongs to a run with another configuration or split; it names each key.
    """
    path = folder / CONFIG_FILE
    if path.exists():
        differences = differing_keys(read_config(folder), yaml.safe_load(config_text))
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
        return
    write_atomically(folder / SPLIT_FILE, split_hash.encode())
    write_atomically(path, config_text.encode())


def read_config(folder: Path) -> dict[str, Any]:
    """Return the resolved configuration of a run, by its folder.

    Raises:
        ConfigurationError: If the file holds no configuration.
    """
    path = folder / CONFIG_FILE
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())
    else:
        if isinstance(content, dict):
            return content
        cause = "no keys"
    raise ConfigurationError(
        f"{path} is not the configuration of a run ({cause}); put the file back, or delete the folder to run it again"
    )


def claim_sources(folder: Path, config_text: str) -> None:
    """Put on record which checkpoints a run starts from, or check that they are those on record.

    A file that is not there is not looked at: who evaluates needs only the run's own checkpoint.

    Args:
        folder: The run's folder, which is claimed.
        config_text: The resolved configuration as YAML.

    Raises:
        ConfigurationError: If a stage was trained anew since the run started from it.
    """
    now = {
        key: file_hash(Path(value))
        for key, value in flatten(yaml.safe_load(config_text))
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


def is_finished(folder: Path, scored: bool, tested: bool) -> bool:
    """Whether what a job leaves is there: the facts of what was trained and, if it is tested, predictions.

    Predictions are written last and whole; in pre-training, and where nothing is tested, it is the facts that are.

    Args:
        folder: The job's folder.
        scored: Whether the job leaves predictions at all.
        tested: Whether it goes on to the test set.
    """
    # Listed, not looked up: a network file system remembers for up to a minute that a file or a folder is not there,
    # but opening the folder above it asks the server whether that still holds.
    try:
        os.listdir(folder.parent)
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    return FACTS_FILE in names and (not (scored and tested) or FILES["test"] in names)
