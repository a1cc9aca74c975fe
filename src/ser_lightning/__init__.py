"""Speech emotion recognition: corpora in, cross-validated and comparable results out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ser_lightning.inference.classification import Classifier


def load(checkpoint: str | Path, device: str = "auto", allow: Sequence[str] = ()) -> "Classifier":
    """Return a trained checkpoint, or the mean of several, as a classifier of recordings.

    Args:
        checkpoint: Such as a run's ``checkpoints/best.ckpt``, or a folder of folds or seeds.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for the GPU if there is one.
        allow: Module prefixes whose classes the checkpoint may name, besides this suite's and torch's.

    Raises:
        ConfigurationError: If the checkpoint cannot be read or classifies speakers, or the device is not available.
    """
    from ser_lightning.inference.classification import Classifier

    return Classifier(checkpoint, device, allow)
