"""Predictions of a fold: target, decision and probabilities of each test utterance, in one CSV file."""
# Shapes: N utterances, C classes.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import csv_file, write_atomically
from ser_lightning.metrics import scores
from ser_lightning.text import from_cell

COLUMNS = ("utterance", "speaker", "fold", "target", "predicted")
PROBABILITY, GROUP = "probability_", "group_"
SUM_TOLERANCE = 1e-3  # float16 probabilities sum to 1 only this precisely


@dataclass(frozen=True)
class Predictions:
    """Targets, decisions and probabilities, one row per utterance.

    Attributes:
        class_names: The classes, in the order of the probabilities.
        table: ``utterance``, ``speaker``, ``target`` and ``predicted`` as text, ``fold`` as integer, then
            ``probability_<class>`` for each class as float64, and ``group_<name>`` as text for each kind of groups,
            such as gender, empty where it is unknown; utterances are unique.
    """

    class_names: tuple[str, ...]
    table: pd.DataFrame

    @classmethod
    def collect(
        cls,
        *,
        utterances: Sequence[str],
        speakers: Sequence[str],
        fold: int,
        targets: Tensor,
        predicted: Tensor,
        probabilities: Tensor,
        class_names: Sequence[str],
        groups: Sequence[Mapping[str, str]] = (),
    ) -> Self:
        """Build predictions from the outputs of a system.

        Args:
            utterances: Names of the N utterances.
            speakers: Speaker of each utterance.
            fold: Index of the fold, from 0.
            targets: Index of the reference class [N].
            predicted: Index of the predicted class [N]; for an SVM it need not be the most probable class.
            probabilities: Probability of each class [N, C].
            class_names: Names of the C classes.
            groups: Each utterance's groups by kind, such as gender.

        Raises:
            ConfigurationError: If an utterance occurs twice, or probabilities are not finite or do not sum to one.
            IndexError: If a class index is not below C.
        """
        names = np.asarray(class_names, dtype=object)
        table = pd.DataFrame(
            {
                "utterance": list(utterances),
                "speaker": list(speakers),
                "fold": fold,
                "target": names[targets.cpu().numpy()],
                "predicted": names[predicted.cpu().numpy()],
            }
        )
        table[_probability_columns(class_names)] = probabilities.detach().double().cpu().numpy()
        for kind in dict.fromkeys(kind for one in groups for kind in one):
            table[f"{GROUP}{kind}"] = [one.get(kind, "") for one in groups]
        _check(table, tuple(class_names), table, f"predictions of fold {fold}, row", 0)
        return cls(tuple(class_names), table)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a predictions file.

        Raises:
            ConfigurationError: If the file is missing or malformed; names file, line and value.
        """
        cells = _read_cells(path)
        header = list(cells.iloc[0])
        class_names = _class_names(header, path)
        texts = cells.iloc[1:].reset_index(drop=True)
        texts.columns = pd.Index(header)
        table = texts.copy()
        for column in ("fold", *_probability_columns(class_names)):
            table[column] = pd.to_numeric(texts[column], errors="coerce")  # not a number: NaN
        _check(table, class_names, texts, f"{path}, line", 2)
        return cls(class_names, table.astype({"fold": "int64"}))

    def write(self, path: Path) -> None:
        """Write the file atomically: if it exists, the fold is finished."""
        write_atomically(path, csv_file(self.table))


def confusion(predictions: Predictions, class_names: Sequence[str]) -> Tensor:
    """Return the confusion matrix [C, C] (int64; rows: reference, columns: decision) in the order of ``class_names``.

    Raises:
        ConfigurationError: If the predictions have other classes.
    """
    if set(predictions.class_names) != set(class_names):
        message = f"the predictions have classes {list(predictions.class_names)}, not {list(class_names)}"
        raise ConfigurationError(message)
    _, targets, predicted = tensors(predictions.table, class_names)
    counts = torch.zeros(len(class_names), len(class_names), dtype=torch.long)
    return counts.index_put((targets, predicted), torch.ones_like(targets), accumulate=True)


def decision_scores(predictions: Predictions) -> dict[str, float]:
    """Return UA, WA and macro F1 of a fold's decisions, each between 0 and 1."""
    counts = confusion(predictions, predictions.class_names)
    return {name: value.item() for name, value in scores(counts).items()}


def tensors(table: pd.DataFrame, class_names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities [N, C] (float64), reference classes [N] and predicted classes [N] of a table.

    Args:
        table: Rows of ``Predictions.table``, of one or several folds.
        class_names: The table's classes, in the order to return.
    """
    index = {name: position for position, name in enumerate(class_names)}
    targets, predicted = (
        torch.tensor([index[name] for name in table[column]], dtype=torch.long) for column in ("target", "predicted")
    )
    return torch.tensor(table[_probability_columns(class_names)].to_numpy(copy=True)), targets, predicted


def _probability_columns(class_names: Sequence[str]) -> list[str]:
    return [f"{PROBABILITY}{name}" for name in class_names]


def _read_cells(path: Path) -> pd.DataFrame:
    """Read all cells as text, header included, so that pandas neither renames columns nor reads speaker 01 as 1."""
    try:
        cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except FileNotFoundError as error:
        message = f"{path} is missing: the fold is not finished; run the fold"
        raise ConfigurationError(message) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        message = f"{path} is not a predictions file ({str(error).strip()}); delete it and run the fold again"
        raise ConfigurationError(message) from error
    return cells.fillna("").map(from_cell)  # a line that is too short has missing cells


def _class_names(header: list[str], path: Path) -> tuple[str, ...]:
    expected = f"{','.join(COLUMNS)},{PROBABILITY}<class>,...,{GROUP}<kind>,..."
    rest = header[len(COLUMNS) :]
    classes = [name for name in rest if name.startswith(PROBABILITY)]
    groups = [name for name in rest[len(classes) :] if name.startswith(GROUP)]
    if (
        tuple(header[: len(COLUMNS)]) != COLUMNS
        or rest != classes + groups
        or not classes
        or len(set(rest)) < len(rest)
    ):
        raise ConfigurationError(f"{path}, line 1: the columns are {','.join(header)}; expected {expected}")
    return tuple(name.removeprefix(PROBABILITY) for name in classes)


def _check(table: pd.DataFrame, class_names: tuple[str, ...], texts: pd.DataFrame, source: str, first: int) -> None:
    """Raise a ``ConfigurationError`` for the first faulty row.

    Args:
        table: Predictions to check.
        class_names: The valid classes.
        texts: The same table as written, for the message.
        source: Where a row is, such as "predictions.csv, line".
        first: Number of the first row in the source.
    """

    def reject(faulty: "pd.Series[bool]", column: str, reason: str) -> None:
        if faulty.any():
            row = int(np.flatnonzero(faulty.to_numpy())[0])
            raise ConfigurationError(f"{source} {row + first}: {column} {str(texts[column].iloc[row])!r} {reason}")

    if table.empty:
        raise ConfigurationError(f"{source} {first}: no utterance; delete it and run the fold again")
    reject(table["utterance"] == "", "utterance", "is not a name")
    reject(table["utterance"].duplicated(), "utterance", "occurs a second time; a fold tests each utterance once")
    reject(table["speaker"] == "", "speaker", "is not a name")
    reject(~((table["fold"] >= 0) & (table["fold"] % 1 == 0)), "fold", "is not the index of a fold")
    for column in ("target", "predicted"):
        reject(~table[column].isin(class_names), column, f"is not one of the classes {', '.join(class_names)}")
    columns = _probability_columns(class_names)
    for column in columns:
        reject(~table[column].between(0, 1 + SUM_TOLERANCE), column, "is not a probability between 0 and 1")
    total = table[columns].sum(axis="columns")
    faulty = (total - 1).abs() > SUM_TOLERANCE
    if faulty.any():
        row = int(np.flatnonzero(faulty.to_numpy())[0])
        raise ConfigurationError(f"{source} {row + first}: the probabilities sum to {total.iloc[row]:.6g}, not to 1")
