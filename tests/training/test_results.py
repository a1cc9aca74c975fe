"""Files that a fold writes from the outputs of a system's steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ser_lightning.runs.assignment import read_assignment
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.scores import read_embeddings
from ser_lightning.training.results import ResultFiles
from ser_lightning.types import Utterance

pytestmark = pytest.mark.usefixtures("small_pictures")

CLASSES = ("neutral", "sad", "angry")
COUNT = 12
PREDICTED = torch.arange(COUNT) % 2
ASSIGNMENTS = torch.tensor([[0.25, 0.25, 0.5], [0.0, 0.75, 0.25], [1.0, 0.0, 0.0]]).repeat(COUNT // 3, 1)  # by class
EMBEDDINGS = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(0))


def trainer_in(folder: Path, command: str, world_size: int = 1) -> Any:
    utterances = [Utterance(f"u{i:02d}", Path(f"u{i:02d}.wav"), f"{i % 2:02d}", CLASSES[i % 3]) for i in range(COUNT)]
    return SimpleNamespace(
        state=SimpleNamespace(fn=command),
        world_size=world_size,
        is_global_zero=True,
        datamodule=SimpleNamespace(
            class_names=CLASSES, fold=3, corpus_name="ravdess", set_utterances=lambda name: tuple(utterances)
        ),
        default_root_dir=str(folder),
        lightning_module=SimpleNamespace(time_pooling=lambda: SimpleNamespace(pooling=SimpleNamespace(ghosts=1))),
        loggers=[],
        limit_val_batches=1.0,
        limit_test_batches=1.0,
        limit_predict_batches=1.0,
    )


def outputs(indices: Tensor, *more: str) -> dict[str, Tensor]:
    """A step's outputs: class 2 is always the most probable; the loss is ignored."""
    found = {
        "indices": indices,
        "probabilities": torch.tensor([0.2, 0.3, 0.5]).expand(len(indices), 3),
        "loss": torch.tensor(1.0),
    }
    optional = {"predicted": PREDICTED[indices], "embeddings": EMBEDDINGS[indices]}
    optional["assignments"] = ASSIGNMENTS[indices]
    return found | {name: optional[name] for name in more}


def run(folder: Path, command: str, *more: str) -> None:
    """Give the callback three batches in shuffled order."""
    trainer, callback = trainer_in(folder, command), ResultFiles()
    keep = {"validate": "validation", "test": "test", "predict": "predict"}[command]
    for batch in torch.randperm(COUNT, generator=torch.Generator().manual_seed(1)).split(5):
        getattr(callback, f"on_{keep}_batch_end")(trainer, None, outputs(batch, *more), None, 0)
    getattr(callback, f"on_{keep}_end")(trainer, None)


def decided(path: Path) -> list[int]:
    return [CLASSES.index(name) for name in Predictions.read(path).table["predicted"]]


@pytest.mark.parametrize(
    ("command", "file"),
    [("validate", "validation_predictions.csv"), ("test", "predictions.csv"), ("predict", "corpus_predictions.csv")],
)
def test_a_systems_prediction_overrides_the_most_probable_class(command: str, file: str, tmp_path: Path) -> None:
    run(tmp_path / "a", command)
    assert decided(tmp_path / "a" / file) == [2] * COUNT
    run(tmp_path / "b", command, "predicted", "embeddings", "assignments")
    assert decided(tmp_path / "b" / file) == PREDICTED.tolist()
    written = {path.name for path in (tmp_path / "b").iterdir()}
    assert written - {path.name for path in (tmp_path / "a").iterdir()} == (
        {"embeddings.safetensors", "embeddings.png", "assignment.csv"} if command == "test" else set()
    )


def test_embeddings_of_a_test_have_the_order_of_its_predictions(tmp_path: Path) -> None:
    run(tmp_path, "test", "embeddings")
    assert torch.equal(read_embeddings(tmp_path), EMBEDDINGS)
    assert (tmp_path / "embeddings.png").read_bytes().startswith(b"\x89PNG")


def test_assignments_of_a_test_are_averaged_by_class(tmp_path: Path) -> None:
    run(tmp_path, "test", "assignments")
    found = read_assignment(tmp_path, CLASSES)
    assert found is not None
    assert found.to_numpy().tolist() == [[4.0, *shares] for shares in ASSIGNMENTS[:3].tolist()]
    assert list(found.columns)[-1] == "ghost_1"


def test_predictions_are_written_after_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[str] = []
    monkeypatch.setattr(Predictions, "write", lambda *_: there.extend(path.name for path in tmp_path.iterdir()))
    run(tmp_path, "test", "embeddings", "predicted", "assignments")
    written = {"embeddings.safetensors", "embeddings.png", "assignment.csv", "confusion.png", "scores.json"}
    assert written == set(there)


def test_half_precision_embeddings_are_kept_as_float32(tmp_path: Path) -> None:
    trainer, callback = trainer_in(tmp_path, "test"), ResultFiles()
    found = outputs(torch.arange(COUNT)) | {"embeddings": EMBEDDINGS.bfloat16()}
    callback.on_test_batch_end(trainer, None, found, None, 0)  # type: ignore[arg-type]
    callback.on_test_end(trainer, None)  # type: ignore[arg-type]
    assert torch.equal(read_embeddings(tmp_path), EMBEDDINGS.bfloat16().float())


def test_the_parts_of_two_processes_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = outputs(torch.arange(7, COUNT), "predicted", "embeddings", "assignments")
    del theirs["loss"]

    def gather(part: dict[str, Tensor], gathered: list[Any]) -> None:
        gathered[:] = [theirs, part]

    monkeypatch.setattr("torch.distributed.gather_object", gather)
    trainer, callback = trainer_in(tmp_path, "test", world_size=2), ResultFiles()
    ours = outputs(torch.arange(7), "predicted", "embeddings", "assignments")
    callback.on_test_batch_end(trainer, None, ours, None, 0)  # type: ignore[arg-type]
    callback.on_test_end(trainer, None)  # type: ignore[arg-type]
    assert decided(tmp_path / "predictions.csv") == PREDICTED.tolist()
    assert torch.equal(read_embeddings(tmp_path), EMBEDDINGS)
    found = read_assignment(tmp_path, CLASSES)
    assert found is not None
    assert found.to_numpy().tolist() == [[4.0, *shares] for shares in ASSIGNMENTS[:3].tolist()]
