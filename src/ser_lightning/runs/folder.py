"""A run's folder: its files, the run that claims it, and whether it is finished."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.plain_files import read_json, read_yaml
from ser_lightning.runs.configuration import CHECKPOINT_KEYS_END, differing_keys, flatten
from ser_lightning.runs.names import is_fold_name

if TYPE_CHECKING:
    import torch

# A fold's files.
CONFIG_FILE = "config.yaml"
SPLIT_FILE = "split_hash"
SOURCES_FILE = "source_hashes.json"
CHECKPOINTS, BEST, LAST, CARD = "checkpoints", "best.ckpt", "last.ckpt", "best.md"
FACTS_FILE = "run.json"
FILES = {  # predictions by set
    "validation": "validation_predictions.csv",
    "test": "predictions.csv",
    "all": "corpus_predictions.csv",
}
SCORES_FILE = "scores.json"
EMBEDDINGS_FILE = "embeddings.safetensors"
ASSIGNMENT_FILE = "assignment.csv"
CONFUSION_PICTURE, EMBEDDINGS_PICTURE, ATTENTION_PICTURE = "confusion.png", "embeddings.png", "attention.png"
# Results of a training, in the order in which they are deleted before the next one.
RESULTS = (
    FACTS_FILE,
    *FILES.values(),
    SCORES_FILE,
    CONFUSION_PICTURE,
    EMBEDDINGS_FILE,
    EMBEDDINGS_PICTURE,
    ASSIGNMENT_FILE,
)


def has_begun(folder: Path) -> bool:
    """Return whether a run has claimed a folder; a planned one contains only a configuration."""
    return any((folder / name).exists() for name in (SPLIT_FILE, CHECKPOINTS, FACTS_FILE, *FILES.values()))


def reject_other_run(folder: Path, configuration: Mapping[str, Any], split_hash: str) -> None:
    """Reject a folder that another run has claimed.

    Args:
        folder: The run's folder.
        configuration: The resolved configuration.
        split_hash: Hash of the fold's split.

    Raises:
        ConfigurationError: If the folder belongs to a run with another configuration or split; names each key.
    """
    if not (folder / CONFIG_FILE).exists() or not has_begun(folder):
        return
    differences = differing_keys(read_config(folder), configuration)
    split = folder / SPLIT_FILE
    if not split.is_file():
        raise ConfigurationError(f"{split} is missing; put it back, or delete the folder to run it again")
    earlier = split.read_text(errors="replace")
    if earlier != split_hash:
        shown = repr(earlier) if len(earlier) < 40 else f"{earlier[:40]!r}..."  # of a damaged file
        differences.append(f"  {SPLIT_FILE}: {shown} there, '{split_hash}' now (the corpus or its labels changed)")
    if differences:
        raise ConfigurationError(
            f"{folder} holds a run with another configuration:\n"
            + "\n".join(differences)
            + "\nUse --row NAME (or another --trainer.default_root_dir) for a new run, or delete the folder."
        )


def claim_folder(folder: Path, configuration: Mapping[str, Any], split_hash: str) -> None:
    """Write a run's configuration and split hash into its folder, unless it has already claimed it.

    Args:
        folder: The run's folder.
        configuration: The resolved configuration.
        split_hash: Hash of the fold's split.

    Raises:
        ConfigurationError: As ``reject_other_run``.
    """
    reject_other_run(folder, configuration, split_hash)
    if not (folder / CONFIG_FILE).exists() or not has_begun(folder):
        write_config(folder, configuration)
        write_atomically(folder / SPLIT_FILE, split_hash.encode())


def write_config(folder: Path, configuration: Mapping[str, Any]) -> None:
    """Write a run's resolved configuration, atomically."""
    write_atomically(folder / CONFIG_FILE, yaml.safe_dump(dict(configuration), sort_keys=False).encode())


def read_config(folder: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the resolved configuration in a run's folder.

    Args:
        folder: The run's folder.
        keys: Required dotted keys.

    Raises:
        ConfigurationError: If the file is missing, is not a configuration, or lacks one of ``keys``.
    """
    path = folder / CONFIG_FILE
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        cause = "file not found"
    except ValueError as error:
        cause = str(error)
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
    """Record the hashes of the checkpoints that a run starts from, or compare them with those recorded.

    Missing files are ignored: evaluation needs only the run's own checkpoint.

    Args:
        folder: The run's folder, already claimed.
        configuration: The resolved configuration.

    Raises:
        ConfigurationError: If a checkpoint has changed since the run started from it.
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
                f"{folder} started from another {key}: the checkpoint has changed since; delete the folder, or use "
                "--row NAME (or another --trainer.default_root_dir) for a new run"
            )
    if now and not recorded:
        write_atomically(folder / SOURCES_FILE, json.dumps(now, indent=2).encode())


def recorded_sources(folder: Path) -> dict[str, str]:
    """Return the recorded hashes of the checkpoints that a run started from, by key of its configuration.

    Raises:
        ConfigurationError: If the record is damaged.
    """
    path = folder / SOURCES_FILE
    try:
        return {str(key): str(value) for key, value in read_json(path).items()} if path.exists() else {}
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is not a record of checkpoint hashes ({error}); delete the folder to run it again"
        ) from error


def file_hash(path: Path) -> str:
    """Return a file's SHA-256, cached until the file changes."""
    status = path.stat()
    return _hash(path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


@functools.lru_cache(maxsize=4096)
def _hash(path: Path, state: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version() -> str:
    """Return the package's version, with the commit in a git checkout."""
    version = importlib.metadata.version("ser-lightning")
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return version
    return f"{version}+{answer.stdout.strip()}" if answer.returncode == 0 else version


def hardware(device: "torch.device", num_processes: int) -> str:
    """Describe the hardware of a run."""
    import torch

    if device.type == "cuda":
        return f"{num_processes} x {torch.cuda.get_device_name(device)}"
    name = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{num_processes} x {device.type} ({name}, {threads} thread{'s' * (threads != 1)})"


def is_finished(folder: Path, scored: bool = True, tested: bool = True) -> bool:
    """Return whether a job has finished: its facts and its predictions, if any, exist, and it did not diverge.

    The test predictions are written last; without a test, the facts are, after the validation predictions.

    Args:
        folder: The job's folder.
        scored: Whether the job writes predictions; pre-training does not.
        tested: Whether the job evaluates the test set.
    """
    # List the folders: network file systems cache for up to a minute that a file does not exist; opening its folder
    # revalidates the cache.
    try:
        os.listdir(folder.parent)
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    has_results = FACTS_FILE in names and (not scored or FILES["test" if tested else "validation"] in names)
    return has_results and not divergence(folder)


def divergence(folder: Path) -> str:
    """Return where and how a fold's training diverged; empty if it did not, or if ``run.json`` cannot be read."""
    try:
        content = read_json(folder / FACTS_FILE)
    except (OSError, ValueError):
        return ""
    return str(content.get("diverged", "")) if isinstance(content, dict) else ""


def fold_folders(folder: Path) -> list[Path]:
    """Return ``folder`` if it is a fold's, else the folds' folders below it, sorted."""
    if is_fold_name(folder.name):
        return [folder]
    found = []
    for above, below, _ in os.walk(folder):
        found += [Path(above, name) for name in below if is_fold_name(name)]
        below[:] = [name for name in below if not is_fold_name(name)]
    return sorted(found)
