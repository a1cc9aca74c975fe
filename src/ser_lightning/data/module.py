"""The base class of the corpora's data modules: Lightning's, or a bare one in a process that trains nothing.

Importing Lightning takes four seconds, which is half of ``ser audit``; what an audit asks of a corpus needs none of it.
"""

from typing import Any

_is_left_out = False


class BareDataModule:
    """Stands for ``LightningDataModule`` where nothing is trained."""


def leave_out_lightning() -> None:
    """Give corpora that are imported from now on the bare base class; only for a process that trains nothing."""
    global _is_left_out
    _is_left_out = True


def __getattr__(name: str) -> Any:
    """Return the base class ``DataModule`` when a corpus is imported, and no earlier."""
    if name != "DataModule":
        raise AttributeError(name)
    if _is_left_out:
        return BareDataModule
    from lightning.pytorch import LightningDataModule

    return LightningDataModule
