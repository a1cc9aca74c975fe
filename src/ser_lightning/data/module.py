"""Base class of data modules: Lightning's, or a bare one in processes that do not train.

Importing Lightning takes four seconds, and ``ser audit`` does not need it.
"""

from typing import Any

_is_left_out = False


class BareDataModule:
    """Replaces ``LightningDataModule`` in processes that do not train."""


def leave_out_lightning() -> None:
    """Give corpora imported from now on the bare base class; only for processes that do not train."""
    global _is_left_out
    _is_left_out = True


def __getattr__(name: str) -> Any:
    """Return the base class ``DataModule`` lazily, when a corpus is imported."""
    if name != "DataModule":
        raise AttributeError(name)
    if _is_left_out:
        return BareDataModule
    from lightning.pytorch import LightningDataModule

    return LightningDataModule
