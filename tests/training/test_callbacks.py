"""Exact resume: seeds of an epoch, the two checkpoints, and exhausted patience."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from ser_lightning.training.callbacks import BestCheckpoint, EarlyStopping, EpochSeed, LastCheckpoint


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


@pytest.mark.parametrize(
    ("patience", "waited", "stops"), [(2, 0, False), (2, 1, False), (2, 2, True), (0, 0, False), (0, 1, True)]
)
def test_a_run_resumed_with_exhausted_patience_stops_at_once(patience: int, waited: int, stops: bool) -> None:
    stopping = EarlyStopping(monitor="validation/loss", mode="min", patience=patience)
    state = {"wait_count": waited, "stopped_epoch": 0, "best_score": torch.tensor(1.0), "patience": patience}
    stopping.load_state_dict(state)
    trainer: Any = SimpleNamespace(should_stop=False)
    stopping.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert trainer.should_stop is stops
