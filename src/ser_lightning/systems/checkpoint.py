"""Safe reading of checkpoints, and rebuilding of the system they hold.

A checkpoint is a zip archive with a CRC-32 of each part, which ``torch.save`` writes and ``torch.load`` ignores. Every
read checks it here (0.06 s for 94 MB).
"""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser

from ser_lightning.allow_list import check_class_paths, enforce_allow_list, shortest_path
from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import check_extent
from ser_lightning.systems.classifier import CHECKPOINT_KEY, EmotionClassifier

_ENTRY: dict[str, Any] = {
    "system": str,
    "is_pretraining": bool,
    "class_names": list,
    "configuration": (dict, NoneType),
    "origin": dict,
}
_SPEAKERS = ("training_speakers", "validation_speakers")
_ORIGIN: dict[str, type] = {"corpus": str, "split_hash": str, "extractor": dict, "earlier": list, "origin": dict}
_ORIGIN |= dict.fromkeys(_SPEAKERS, list)


def read_checkpoint_file(path: Path, subject: str, mapped: bool = True) -> dict[str, Any]:
    """Read a checkpoint of this suite without running code, and check its checksums; class names are not checked.

    Args:
        path: The file.
        subject: Start of error messages, such as the path.
        mapped: Memory-map the weights instead of reading them.

    Raises:
        FileNotFoundError: If the file does not exist.
        PermissionError: If the file may not be read.
        ConfigurationError: If it is a folder, is damaged, is not a checkpoint of this version of the suite, or holds
            more than weights and plain data.
    """
    try:
        _check_archive(path, subject)
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except (ConfigurationError, FileNotFoundError, PermissionError):
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, error.filename) from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{subject} is a folder; give a file, such as checkpoints/best.ckpt") from error
    except pickle.UnpicklingError as error:
        # torch's message advises to switch this check off.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ConfigurationError(
            f"{subject} holds more than weights and plain data{f', such as {named[1]},' if named else ''} and was not "
            "loaded; such a file can run any code, so only use it if you made it, and save its state_dict again"
        ) from error
    except Exception as error:  # the unpickler, zip reader or system may raise anything
        raise _not_a_checkpoint(subject) from error
    if not isinstance(checkpoint, dict):
        raise _not_a_checkpoint(subject)
    if CHECKPOINT_KEY not in checkpoint:
        keys = ", ".join(map(str, list(checkpoint)[:20]))
        raise ConfigurationError(f"{subject} does not hold a system of this suite; its keys are {keys}")
    if fault := _fault(checkpoint):
        raise ConfigurationError(f"{subject} is not a checkpoint of this suite: {fault}; train it again")
    system = checkpoint[CHECKPOINT_KEY]["system"]
    if system != (public := shortest_path(system)):
        raise ConfigurationError(
            f"{subject} is from an earlier version: its system {system} is now {public}; train it again"
        )
    return checkpoint


def _check_archive(path: Path, subject: str) -> None:
    """Check that a file is an archive as ``torch.save`` writes it, and compare it with its checksums.

    Raises:
        ConfigurationError: If it is encrypted or compressed, or a part differs from its checksum.
        Exception: If it is not such an archive.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.flag_bits & 1 for part in parts):
            raise ConfigurationError(f"{subject} is an encrypted zip archive; decrypt it first")
        # torch only stores; a small compressed or overlapping part could expand to any size.
        if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > path.stat().st_size:
            raise _not_a_checkpoint(subject)
        if part := archive.testzip():
            raise ConfigurationError(
                f"{subject} is damaged: {part} differs from its checksum, so the disk or a copy failed; copy it again, "
                "or train it again (`ser run-fold` restores best.ckpt from last.ckpt if both are of one epoch)"
            )


def _fault(checkpoint: Mapping[Any, Any]) -> str:
    """Return the first malformed entry of a checkpoint, or an empty text."""
    try:
        check_extent(checkpoint)
    except ValueError as error:
        return str(error)
    entry, weights = checkpoint[CHECKPOINT_KEY], checkpoint.get("state_dict")
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        return "state_dict does not hold weights by name"
    if type(checkpoint.get("epoch")) is not int:
        return f"epoch is {checkpoint.get('epoch')!r}"
    if not isinstance(entry, dict):
        return f"{CHECKPOINT_KEY} has no keys"
    for key, kind in _ENTRY.items():
        if not isinstance(entry.get(key), kind):
            return f"{CHECKPOINT_KEY}.{key} is {entry.get(key)!r:.100}"
    if not _are_names(entry["class_names"]):
        return f"{CHECKPOINT_KEY}.class_names is {entry['class_names']!r:.100}"
    origins = [entry["origin"]]
    for origin in origins:
        for key, value in origin.items() if isinstance(origin, dict) else [("origin", origin)]:
            if not isinstance(value, _ORIGIN.get(key, object)) or (key in _SPEAKERS and not _are_names(value)):
                return f"{CHECKPOINT_KEY}.origin: {key} is {value!r:.100}"
        origins += origin.get("earlier", [])
    return ""


def _are_names(value: Any) -> bool:
    return all(isinstance(name, str) for name in value)


def _not_a_checkpoint(subject: str) -> ConfigurationError:
    return ConfigurationError(
        f"{subject} is not a checkpoint, or is incomplete; copy it again, train it again, or give another file"
    )


def read_checkpoint(path: Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Read a checkpoint of this suite, and check the classes it names against the allow-list.

    Args:
        path: The file.
        allow: Module prefixes that the user trusts besides the allow-list.

    Raises:
        ConfigurationError: If it is missing, damaged, not a checkpoint of this version of the suite, holds more than
            weights and plain data, or names a class outside the allow-list.
        PermissionError: If the file may not be read.
    """
    try:
        checkpoint = read_checkpoint_file(path, str(path))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no such checkpoint; see the run's folder checkpoints/") from error
    for key in ("hyper_parameters", "datamodule_hyper_parameters", CHECKPOINT_KEY):
        check_class_paths(checkpoint.get(key), f"{path}: {key}", allow)
    return checkpoint


def load_system(path: Path, allow: Sequence[str] = ()) -> EmotionClassifier:
    """Build a checkpoint's system and load its weights, in evaluation mode, on the CPU.

    Args:
        path: The file.
        allow: Module prefixes that the user trusts besides the allow-list.

    Raises:
        ConfigurationError: As ``read_checkpoint``, or if the checkpoint lacks its system's arguments.
    """
    checkpoint = read_checkpoint(path, allow)
    configuration = checkpoint[CHECKPOINT_KEY]["configuration"]
    if not configuration:
        raise ConfigurationError(f"{path} was saved from a system built in Python; build it again and load its weights")
    enforce_allow_list(allow)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(EmotionClassifier, "system")
    try:
        built = parser.instantiate_classes(parser.parse_object({"system": configuration}))
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: its system cannot be built: {' '.join(str(error).split())}; use the version of the suite that "
            "trained it, or train it again"
        ) from error
    system: EmotionClassifier = built.system
    system.configuration = configuration
    system.on_load_checkpoint(checkpoint)
    with weight_errors(path):
        system.load_state_dict(checkpoint["state_dict"])
    return system.eval()


@contextmanager
def weight_errors(path: Path | None) -> Iterator[None]:
    """Turn torch's error about weights that do not fit a system into one line.

    Args:
        path: The checkpoint.

    Raises:
        ConfigurationError: Naming the weights that are missing, left over or of another shape.
    """
    try:
        yield
    except RuntimeError as error:
        title, _, faults = str(error).partition("\n")
        if "loading state_dict" not in title:
            raise
        shown = " ".join(faults.split())
        raise ConfigurationError(
            f"{path}: its weights do not fit the system: {shown:.500} Use the version of the suite that trained it, "
            "or train it again"
        ) from error
