"""What is said of a table, sweep or measurement file that does not fit its schema."""

from pathlib import Path

from omegaconf.errors import OmegaConfBaseException

from ser_lightning.errors import ConfigurationError


def misfit(path: Path, error: OmegaConfBaseException) -> ConfigurationError:
    """Return the error that names file, key and fault in one line."""
    fault = str(error.msg or error).splitlines()[0]  # what follows names OmegaConf's classes
    return ConfigurationError(f"{path}: {error.full_key or 'top level'}: {fault}")
