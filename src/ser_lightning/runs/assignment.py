"""A fold's mean soft assignment to clusters by class, in ``assignment.csv``, for systems that pool with VLAD."""
# Shapes: N utterances, C classes, K clusters, G ghost clusters.

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import csv_file, write_atomically
from ser_lightning.runs.folder import ASSIGNMENT_FILE
from ser_lightning.runs.predictions import Predictions
from ser_lightning.text import from_cell

CLUSTER, GHOST = "cluster_", "ghost_"  # columns, counted from 1
SUM_TOLERANCE = 1e-3


def write_assignment(folder: Path, assignments: Tensor, ghosts: int, predictions: Predictions) -> Path:
    """Write the mean assignment [C, K + G] of each class's utterances, atomically; return the file.

    Args:
        folder: The fold's folder.
        assignments: Mean assignment of each utterance [N, K + G] in the order of ``predictions``, ghosts last.
        ghosts: G.
        predictions: The fold's predictions.
    """
    clusters = assignments.shape[1] - ghosts
    names = [*(f"{CLUSTER}{k + 1}" for k in range(clusters)), *(f"{GHOST}{g + 1}" for g in range(ghosts))]
    table = pd.DataFrame(assignments.detach().double().cpu().numpy(), columns=pd.Index(names))
    groups = table.groupby(predictions.table["target"].to_numpy())
    means = groups.mean().reindex(list(predictions.class_names))  # NaN, an empty cell, without utterances
    means.insert(0, "utterances", groups.size().reindex(means.index, fill_value=0))
    path = folder / ASSIGNMENT_FILE
    write_atomically(path, csv_file(means.rename_axis("class").reset_index()))
    return path


def read_assignment(folder: Path, class_names: Sequence[str]) -> pd.DataFrame | None:
    """Return ``utterances``, ``cluster_1`` to ``cluster_K`` and ``ghost_1`` to ``ghost_G`` by class; None without file.

    Raises:
        ConfigurationError: If the file is damaged, has other classes, or a class's shares do not sum to one.
    """
    path = folder / ASSIGNMENT_FILE
    if not path.is_file():
        return None
    try:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False).map(from_cell)  # a class may be called NA
        table = cells.set_index("class").replace("", "nan").astype(float)
    except (ValueError, KeyError) as error:  # also pandas' parser errors and wrong encodings
        raise ConfigurationError(f"{path} is not a table of assignments ({error}); test the fold again") from error
    shares = table.filter(regex=f"^({CLUSTER}|{GHOST})[0-9]+$")
    if list(table.index) != list(class_names) or ["utterances", *shares.columns] != list(table.columns):
        raise ConfigurationError(
            f"{path}: classes {', '.join(map(str, table.index))} and columns {', '.join(table.columns)} do not fit "
            f"the fold's classes {', '.join(class_names)}; test the fold again"
        )
    total = shares.sum(axis="columns")[table["utterances"] > 0]
    if ((total - 1).abs() > SUM_TOLERANCE).any():
        name = str((total - 1).abs().idxmax())
        raise ConfigurationError(
            f"{path}: the shares of {name} sum to {total[name]:.6g}, not to 1; test the fold again"
        )
    return table
