"""The one place where files of weights are read: whatever is wrong with them is one error."""

import pickle
from pathlib import Path
from typing import Any

import torch

from ser_lightning.errors import ConfigurationError


def read_checkpoint_file(path: Path, named: str) -> dict[str, Any]:
    """Read a file of weights and plain data, memory-mapped; nothing of it is run.

    Args:
        path: The file.
        named: What errors begin with, in front of "is a folder".

    Raises:
        FileNotFoundError: If it is not there.
        PermissionError: If it may not be read.
        ConfigurationError: If it is a folder, damaged, no checkpoint, or holds more than weights and plain data.
    """
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (FileNotFoundError, PermissionError):
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, error.filename) from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{named} is a folder; give a file, such as a run's checkpoints/best.ckpt") from error
    except pickle.UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        fault = next((line for line in lines if line.startswith("WeightsUnpickler error:")), lines[0] if lines else "")
        raise ConfigurationError(
            f"{named} is damaged, or holds more than weights and plain data, and was not loaded: {fault}"
        ) from error
    except Exception as error:  # a damaged file can make the unpickler, zip reader and operating system raise anything
        raise _no_checkpoint(named) from error
    if not isinstance(checkpoint, dict):
        raise _no_checkpoint(named)
    return checkpoint


def _no_checkpoint(named: str) -> ConfigurationError:
    return ConfigurationError(
        f"{named} is no checkpoint, or not all of one; copy it again, delete it and train it anew, or give another file"
    )
