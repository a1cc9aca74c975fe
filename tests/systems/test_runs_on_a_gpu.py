"""Runs on a GPU: repeated and resumed to the bit, and their checkpoints on a CPU. Slow tests do so on a CPU alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from ser_lightning.systems import MetricLearning
from ser_lightning.systems.checkpoint import load_system, read_checkpoint_file
from ser_lightning.systems.classifier import EmotionClassifier
from tools.gpu_memory import build_system

NUM_BINS, EMOTIONS = 34, ("neutral", "happy", "sad", "angry")
MOCANU = {
    "encoder": {"class_path": "ser_lightning.nn.encoders.ThinSEResNet34", "init_args": {"channels": 2}},
    "embedding_dim": 6,
}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "huang2020/netvlad_unigram": {"cells": 8},
    "zhou2020/combined_pooling": {"channels": [3, 3, 2, 2, 2, 2], "cells": 4, "max_frames": 60},
    "mocanu2021/s5_emotion_constraint": MOCANU,
}
ACCELERATORS = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("gpu", marks=pytest.mark.gpu)]
Train = Callable[..., Trainer]


@pytest.fixture
def _any_order_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Allow sums in any order again: a deterministic trainer forbids them for the whole process."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = benchmark


def build(experiment: str) -> EmotionClassifier:
    torch.manual_seed(0)
    changes = EXPERIMENTS[experiment]
    return build_system(experiment, torch.device("cpu"), NUM_BINS, EMOTIONS, **changes)


def stored(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "checkpoints" / f"{name}.ckpt"
    return read_checkpoint_file(path, str(path), mapped=False)


@pytest.mark.usefixtures("_any_order_again")
@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation.*")
@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_equal_and_resumed_runs_end_with_the_same_bits(
    experiment: str, accelerator: str, noise: Any, train: Train, halt: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"max_epochs": 2, "accelerator": accelerator, "deterministic": "warn"}
    train(build(experiment), noise(), tmp_path / "once", **options)
    train(build(experiment), noise(), tmp_path / "twice", **options)
    with pytest.raises(halt):
        train(build(experiment), noise(), tmp_path / "cut", halt=(1, 1), **options)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    trainer = train(build(experiment), noise(), tmp_path / "cut", resume=last, **options)
    assert trainer.strategy.root_device.type == {"cpu": "cpu", "gpu": "cuda"}[accelerator]
    expected = stored(tmp_path / "once", "last")["state_dict"]
    for name in ("twice", "cut"):
        found = stored(tmp_path / name, "last")["state_dict"]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), (name, key)


@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_checkpoint_predicts_on_the_cpu_as_where_it_trained(
    experiment: str, accelerator: str, noise: Any, train: Train, tmp_path: Path
) -> None:
    system, data = build(experiment), noise()
    trainer = train(system, data, tmp_path, accelerator=accelerator)
    state = stored(tmp_path, "best")["state_dict"]
    assert {value.device.type for value in state.values()} == {"cpu"}
    loaded = load_system(tmp_path / "checkpoints" / "best.ckpt")
    system.load_state_dict(state)
    system.to(trainer.strategy.root_device).eval()
    if isinstance(system, MetricLearning):
        assert system.svm.is_fitted
        assert system.svm.support_vectors.device == trainer.strategy.root_device
    for batch in data.test_dataloader():
        with torch.no_grad():
            expected = loaded.test_step(batch, 0)
            found = system.test_step(batch.to(trainer.strategy.root_device), 0)
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found["probabilities"].cpu(), expected["probabilities"], atol=1e-3, rtol=0)
