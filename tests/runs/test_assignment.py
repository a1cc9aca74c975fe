"""A fold's mean assignment to clusters by class, on disk."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.assignment import read_assignment, write_assignment
from ser_lightning.runs.gathering import FoldRun
from ser_lightning.runs.predictions import Predictions

# Utterances of the fold: two of the first class, two of the second, two of the third, none of the fourth.
SHARES = torch.tensor(
    [[0.2, 0.3, 0.5], [0.4, 0.3, 0.3], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]
)


@pytest.fixture
def fold(seed_folder: Path) -> Path:
    """A fold with two clusters and one ghost."""
    folder = seed_folder / "fold-01"
    write_assignment(folder, SHARES, 1, Predictions.read(folder / "predictions.csv"))
    return folder


def test_a_class_has_the_mean_of_its_utterances(fold: Path) -> None:
    found = read_assignment(fold, FoldRun.read(fold).facts.class_names)
    assert found is not None
    assert list(found.columns) == ["utterances", "cluster_1", "cluster_2", "ghost_1"]
    assert found["utterances"].tolist() == [2, 2, 2, 0]
    by_hand = [[0.3, 0.3, 0.4], [0.25, 0.75, 0.0], [0.2, 0.2, 0.6]]
    for row, means in zip(found.drop(columns="utterances").to_numpy().tolist(), by_hand, strict=False):
        assert row == pytest.approx(means)
    assert found.iloc[3, 1:].isna().all()


def test_a_fold_without_clusters_has_no_assignment(seed_folder: Path) -> None:
    assert read_assignment(seed_folder / "fold-00", ("any",)) is None


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda text: "", "assignment.csv is not a table"),
        (lambda text: text.replace("0.75", "much"), "much"),
        (lambda text: text.replace("0.75", "0.95"), "sum to 1.2"),
        (lambda text: text.replace("ghost_1", "ghost"), "columns utterances, cluster_1, cluster_2, ghost do not"),
        (lambda text: "\n".join(text.splitlines()[:3]), "classes neutral, "),
    ],
)
def test_a_damaged_file_is_named_before_a_report_is_drawn(damage: object, named: str, fold: Path) -> None:
    path = fold / "assignment.csv"
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=r"assignment\.csv") as raised:
        FoldRun.read(fold, whole=True)
    assert named in str(raised.value)


def test_a_class_of_any_name_is_read_back(tmp_path: Path) -> None:
    names = ("NA", "=1+1")
    predictions = Predictions.collect(
        utterances=["a", "b"],
        speakers=["1", "2"],
        fold=0,
        targets=torch.tensor([0, 1]),
        predicted=torch.tensor([0, 1]),
        probabilities=torch.eye(2),
        class_names=names,
    )
    write_assignment(tmp_path, torch.eye(2), 0, predictions)
    found = read_assignment(tmp_path, names)
    assert isinstance(found, pd.DataFrame)
    assert list(found.index) == list(names)
