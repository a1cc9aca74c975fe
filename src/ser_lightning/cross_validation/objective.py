"""What a sweep optimises: the mean score of the validation sets of a cross-validation's folds.

Nothing here reads ``predictions.csv``: a choice that has seen the test set makes its score worthless.
"""

from collections.abc import Sequence
from pathlib import Path

from ser_lightning.callbacks.results import FILES
from ser_lightning.metrics import scores
from ser_lightning.reports.predictions import Predictions, confusion
from ser_lightning.reports.summary import METRICS, Scores, Statistics

# Score by key in the summary run of a cross-validation.
OBJECTIVES = {f"cv/validation_{name}_mean": name for name in METRICS}


def validation_scores(fold: Path) -> Scores:
    """Return what the best checkpoint of a fold scores on the fold's validation set.

    Args:
        fold: The fold's folder; it is validated, and need not be tested.

    Raises:
        ConfigurationError: If the fold has no predictions of its validation set.
    """
    predictions = Predictions.read(fold / FILES["validation"])
    return {name: value.item() for name, value in scores(confusion(predictions, predictions.class_names)).items()}


def over_folds(folds: Sequence[Path]) -> Statistics:
    """Return mean and spread of the validation sets' scores over folds, each of which counts the same.

    Args:
        folds: Folders of the folds, at least one.
    """
    return Statistics.over([validation_scores(fold) for fold in folds])
