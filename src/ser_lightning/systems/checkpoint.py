"""Safe reading of checkpoints, and rebuilding of the system they hold."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from ser_lightning.allow_list import check_class_paths, enforce_allow_list, shortest_path
from ser_lightning.errors import ConfigurationError
from ser_lightning.systems.classifier import CHECKPOINT_KEY, EmotionClassifier


def read_checkpoint_file(path: Path, subject: str) -> dict[str, Any]:
    """Read a checkpoint of this suite, memory-mapped and without running code; its class names are not checked.

    Args:
        path: The file.
        subject: Start of error messages, such as the path.

    Raises:
        FileNotFoundError: If the file does not exist.
        PermissionError: If the file may not be read.
        ConfigurationError: If it is a folder, is damaged, is not a checkpoint of this version of the suite, or holds
            more than weights and plain data.
    """
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (FileNotFoundError, PermissionError):
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, error.filename) from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{subject} is a folder; give a file, such as checkpoints/best.ckpt") from error
    except pickle.UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        fault = next((line for line in lines if line.startswith("WeightsUnpickler error:")), lines[0] if lines else "")
        raise ConfigurationError(
            f"{subject} is damaged or holds more than weights and plain data, and was not loaded: {fault}"
        ) from error
    except Exception as error:  # the unpickler, zip reader or system may raise anything
        raise _not_a_checkpoint(subject) from error
    if not isinstance(checkpoint, dict):
        raise _not_a_checkpoint(subject)
    if CHECKPOINT_KEY not in checkpoint:
        keys = ", ".join(map(str, checkpoint))
        raise ConfigurationError(f"{subject} does not hold a system of this suite; its keys are {keys}")
    system = checkpoint[CHECKPOINT_KEY]["system"]
    if system != (public := shortest_path(system)):
        raise ConfigurationError(
            f"{subject} is from an earlier version: its system {system} is now {public}; train it again"
        )
    return checkpoint


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
    system: EmotionClassifier = parser.instantiate_classes(parser.parse_object({"system": configuration})).system
    system.configuration = configuration
    system.on_load_checkpoint(checkpoint)
    system.load_state_dict(checkpoint["state_dict"])
    return system.eval()
