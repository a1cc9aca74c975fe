import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from ser_lightning.reports.predictions import Predictions

CLASSES = ("neutral", "happy", "sad", "angry")

# Reference classes in rows. Fold 1 has no angry utterance, yet says angry once.
MATRICES = (
    ((2, 0, 0, 0), (0, 1, 1, 0), (0, 0, 2, 0), (1, 0, 0, 1)),  # recalls 1, 1/2, 1, 1/2
    ((1, 1, 0, 0), (0, 2, 0, 0), (0, 0, 1, 1), (0, 0, 0, 0)),  # recalls 1/2, 1, 1/2
    ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 2)),  # all right
)

WriteFold = Callable[..., Path]


def write_fold(
    seed_folder: Path,
    fold: int,
    matrix: Sequence[Sequence[int]],
    *,
    class_names: Sequence[str] = CLASSES,
    prefix: str = "",
    **facts: object,
) -> Path:
    """Write a finished fold with the confusion matrix ``matrix`` and speakers of its own; ``facts`` go to run.json."""
    folder = seed_folder / f"fold-{fold:02d}"
    pairs = [(row, column) for row, counts in enumerate(matrix) for column, n in enumerate(counts) for _ in range(n)]
    targets, predicted = torch.tensor(pairs).T
    rest = 0.3 / (len(class_names) - 1)
    probabilities = torch.full((len(pairs), len(class_names)), rest)
    probabilities[torch.arange(len(pairs)), predicted] = 0.7
    Predictions.collect(
        utterances=[f"{prefix}fold{fold}-{index:03d}" for index in range(len(pairs))],
        speakers=[f"{2 * fold + 1 + index % 2:02d}" for index in range(len(pairs))],
        fold=fold,
        targets=targets,
        predicted=predicted,
        probabilities=probabilities,
        class_names=class_names,
    ).write(folder / "predictions.csv")
    said: dict[str, object] = {
        "paper": "zhou2020",
        "experiment": "transfer",
        "corpus": "ravdess",
        "synthetic": True,
        "row": "default",
        "protocol": "actor folds (even, 3)",
        "speakers_disjoint": True,
        "protocol_hash": "0123456789ab",
        "split_hash": f"{fold:012x}",
        "fold": fold,
        "num_folds": 3,
        "seed": int(seed_folder.name.removeprefix("seed-")),
        "class_names": list(class_names),
        "system": "TransferResNet",
        "parameters": 1234567,
        "best_epoch": 2 + fold,
        "epochs": 5 + fold,
        "seconds": 61.5,
        "code_version": "0.1.0+abc1234",
        "hardware": "2 cores",
        "skipped_audio": {},
        "faulty_left_out": [],
    }
    (folder / "run.json").write_text(json.dumps(said | facts))
    lines = ["epoch,step,train/loss,validation/loss,validation/UA"]
    for epoch in range(5 + fold):
        loss = 1.4 * 0.7**epoch
        lines.append(f"{epoch},{10 * epoch},{loss},{loss + 0.1 * fold + 0.02 * epoch},{0.9 - 0.6 * 0.6**epoch}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def seed_folder(tmp_path: Path) -> Path:
    """A finished cross-validation of three folds and four classes on synthetic speech."""
    folder = tmp_path / "zhou2020" / "transfer" / "ravdess-synthetic" / "default" / "seed-0"
    for fold, matrix in enumerate(MATRICES):
        write_fold(folder, fold, matrix)
    return folder


@pytest.fixture(name="write_fold", scope="session")
def write_fold_fixture() -> WriteFold:
    """Give tests ``write_fold``: under pytest's importlib mode a conftest cannot be imported."""
    return write_fold
