"""Exact resume: seeds of an epoch, the two checkpoints, and exhausted patience."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from ser_lightning.training.callbacks import (
    AtomicCheckpointIO,
    BackgroundCheckpointIO,
    BestCheckpoint,
    EarlyStopping,
    EpochSeed,
    LastCheckpoint,
)


def draws(seed: int, epoch: int, rank: int = 0) -> list[float]:
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    EpochSeed(seed).on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    return torch.rand(3).tolist()


def test_random_numbers_depend_only_on_seed_epoch_and_rank() -> None:
    first = draws(0, 3)
    assert draws(0, 3) == first
    others = [draws(0, 4), draws(1, 3), draws(0, 3, rank=1)]
    assert first not in others
    assert len({tuple(other) for other in others}) == 3


def test_checkpoints_are_saved_last_and_the_best_one_first() -> None:
    callbacks = [BestCheckpoint(), LastCheckpoint(), EpochSeed(0)]
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=callbacks, enable_progress_bar=False)
    kinds = [type(callback) for callback in trainer.callbacks]
    assert kinds.index(EpochSeed) < kinds.index(BestCheckpoint) < kinds.index(LastCheckpoint)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that writes a checkpoint only once the event is set."""
    released = threading.Event()
    write = AtomicCheckpointIO.save_checkpoint

    def wait_and_write(self: AtomicCheckpointIO, *args: Any, **kwargs: Any) -> None:
        assert released.wait(60)
        write(self, *args, **kwargs)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", wait_and_write)
    return released


def test_a_checkpoint_holds_the_values_at_the_time_of_saving(slow_disk: threading.Event, tmp_path: Path) -> None:
    weight, inner = torch.zeros(3), {"epoch": 1}
    writer = BackgroundCheckpointIO()
    writer.save_checkpoint({"state_dict": {"weight": weight}, "inner": inner}, tmp_path / "last.ckpt")
    weight += 1
    inner["epoch"] = 2
    assert not (tmp_path / "last.ckpt").exists()
    slow_disk.set()
    writer.teardown()
    written = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert written["state_dict"]["weight"].tolist() == [0, 0, 0]
    assert written["inner"] == {"epoch": 1}


def test_checkpoints_are_written_one_after_another(slow_disk: threading.Event, tmp_path: Path) -> None:
    writer = BackgroundCheckpointIO()
    writer.save_checkpoint({"number": 0}, tmp_path / "0.ckpt")
    threading.Timer(0.1, slow_disk.set).start()
    writer.save_checkpoint({"number": 1}, tmp_path / "1.ckpt")  # waits
    assert (tmp_path / "0.ckpt").exists()
    writer.teardown()
    assert (tmp_path / "1.ckpt").exists()


def test_an_error_of_a_write_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = BackgroundCheckpointIO()

    def save_and_wait() -> None:  # a fast write fails before the first call returns
        writer.save_checkpoint({}, tmp_path / "file" / "last.ckpt")
        writer.teardown()

    with pytest.raises(OSError, match="file"):
        save_and_wait()


def validate(stopping: EarlyStopping, trainer: Any, score: float) -> None:
    trainer.callback_metrics = {"validation/UA": torch.tensor(score)}
    stopping.on_validation_end(trainer, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("patience", [0, 1, 2])
@pytest.mark.parametrize("killed_after", range(5))
def test_exhausted_patience_outlasts_a_kill_and_a_better_score(patience: int, killed_after: int) -> None:
    def start() -> tuple[EarlyStopping, Any]:
        decide = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
        state = SimpleNamespace(fn="fit")
        trainer = SimpleNamespace(
            should_stop=False, strategy=decide, state=state, sanity_checking=False, fast_dev_run=False, current_epoch=0
        )
        return EarlyStopping(monitor="validation/UA", mode="max", patience=patience), trainer

    scores = [0.5, 0.4, 0.4, 0.6, 0.5]  # with min_epochs, training continues after the patience is exhausted
    stopping, trainer = start()
    stops = []
    for epoch, score in enumerate(scores):
        validate(stopping, trainer, score)
        if epoch == killed_after:
            state = stopping.state_dict()
            stopping, trainer = start()
            stopping.load_state_dict(state)
            stopping.on_train_start(trainer, None)
        stops.append(trainer.should_stop)
    assert stops == [epoch >= max(1, patience) for epoch in range(5)]
