"""Every system takes every criterion, and every criterion rejects targets it cannot read."""

import inspect
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F

from ser_lightning import losses, systems
from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import Criterion
from ser_lightning.systems import EmotionClassifier
from ser_lightning.systems.checkpoint import load_system
from ser_lightning.types import Batch, TargetKind
from tests.encoders import write_encoder

NUM_FEATURES, CLASSES = 34, ["neutral", "happy", "sad", "angry"]
POOLING = "ser_lightning.nn.pooling"
ANDO = {"channels": [2, 3, 4], "cells": 4, "attention_dim": 5, "hidden_dim": 6}
VLAD = {"class_path": f"{POOLING}.NetVLAD", "init_args": {"clusters": 3}}
MOCANU = {
    "encoder": {"class_path": "ser_lightning.nn.encoders.ThinSEResNet34", "init_args": {"channels": 4}},
    "normalisation": "per_frame",
    "pooling": VLAD,
    "embedding_dim": 8,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "ConvBLSTMAttention": {"pooling": f"{POOLING}.WeightedPooling", "channels": [4] * 6, "cells": 4},
    "DominantEmotionRecognition": ANDO,
    "ExistencePretraining": ANDO,
    "FineTunedEncoder": {"pooling": VLAD, "projection": 8, "num_features": 1},  # on waveforms
    "MultiLabelEmotionExistence": ANDO,
    "PooledFrames": {"pooling": VLAD, "projection": 8},
    "PooledLSTM": {"pooling": VLAD, "cells": 8},
    "SEResNetVLAD": MOCANU,
    "SpeakerIdentification": MOCANU,
}
CRITERIA: dict[str, dict[str, Any]] = {
    "AMSoftmax": {"scale": 10.0, "margin": 0.2},
    "ExistenceLoss": {},
    "FocalLoss": {"gamma": 2.0},
    "LabelSmoothing": {"alpha": 0.1},
    "WeightedCrossEntropy": {"weighting": "inverse_frequency"},
}
READS: dict[str, tuple[TargetKind, ...]] = {
    "AMSoftmax": ("hard",),
    "ExistenceLoss": ("hard", "existence"),
    "FocalLoss": ("hard",),
    "LabelSmoothing": ("hard",),
    "WeightedCrossEntropy": ("hard", "soft"),
}
KINDS: tuple[TargetKind, ...] = ("hard", "soft", "existence")
LABELS = torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture(scope="module", autouse=True)
def _encoder(tmp_path_factory: pytest.TempPathFactory) -> None:
    SYSTEMS["FineTunedEncoder"]["weights"] = str(write_encoder(tmp_path_factory.mktemp("encoder")))


def build(system: str, criterion: str) -> EmotionClassifier:
    torch.manual_seed(0)
    arguments = {
        "num_features": NUM_FEATURES,
        "class_names": CLASSES,
        "criterion": {"class_path": f"ser_lightning.losses.{criterion}", "init_args": CRITERIA[criterion]},
    }
    configuration = {"class_path": f"ser_lightning.systems.{system}", "init_args": arguments | SYSTEMS[system]}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(EmotionClassifier, "system")
    built: EmotionClassifier = parser.instantiate_classes(parser.parse_object({"system": configuration})).system
    built.configuration = configuration
    return built


def batch(num_features: int) -> Batch:
    scale = 1 if num_features > 1 else 40  # samples of a waveform
    frames = torch.randn(5, 80 * scale, num_features, generator=torch.Generator().manual_seed(0))
    lengths = scale * torch.tensor([80, 70, 60, 80, 50])
    return Batch(frames, lengths, LABELS, torch.eye(4)[LABELS], torch.arange(5))


def expected_probabilities(criterion: str, logits: Tensor) -> Tensor:
    logits = logits.float()
    match criterion:
        case "AMSoftmax":
            assert logits.abs().max() <= 1 + 1e-6, "not cosines"
            return F.softmax(10.0 * logits, 1)
        case "ExistenceLoss":
            return logits.sigmoid() / logits.sigmoid().sum(1, keepdim=True)
        case _:
            return F.softmax(logits, 1)


def test_all_systems_and_criteria_are_paired() -> None:
    takes = {name for name in systems.__all__ if "criterion" in inspect.signature(getattr(systems, name)).parameters}
    assert set(SYSTEMS) == takes - {"EmotionClassifier"}
    found = [getattr(losses, name) for name in losses.__all__]
    criteria = {kind.__name__ for kind in found if issubclass(kind, Criterion)} - {"Criterion"}
    assert set(CRITERIA) == set(READS) == criteria


@pytest.mark.parametrize(("system", "criterion"), list(product(SYSTEMS, CRITERIA)))
def test_every_system_takes_every_criterion(system: str, criterion: str, tmp_path: Path) -> None:
    model = build(system, criterion)
    model.class_prior.copy_(torch.tensor([0.4, 0.2, 0.2, 0.2]))
    model.training_step(batch(model.num_features), 0).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
    assert any(parameter.grad.abs().sum() > 0 for parameter in trained if parameter.grad is not None)

    model.eval()
    with torch.no_grad():
        decision = model.decide(batch(model.num_features))
    assert decision.probabilities.dtype == torch.float32
    torch.testing.assert_close(decision.probabilities.sum(1), torch.ones(5))
    torch.testing.assert_close(decision.probabilities, expected_probabilities(criterion, decision.logits))
    torch.testing.assert_close(decision.probabilities.argmax(1), decision.predicted)

    checkpoint: dict[str, Any] = {"state_dict": model.state_dict(), "epoch": 0}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "pair.ckpt")
    loaded = load_system(tmp_path / "pair.ckpt")
    with torch.no_grad():
        again = loaded.decide(batch(model.num_features))
    assert torch.equal(again.probabilities, decision.probabilities)


@pytest.mark.parametrize(("criterion", "kind"), list(product(CRITERIA, KINDS)))
def test_a_criterion_refuses_targets_that_it_cannot_read(criterion: str, kind: TargetKind) -> None:
    model = build("PooledLSTM", criterion)
    if kind in READS[criterion]:
        model.check_targets(kind)
    else:
        with pytest.raises(ConfigurationError, match=f"{criterion} .*data.init_args.targets .*{kind}"):
            model.check_targets(kind)


def test_targets_are_refused_before_training(
    noise: Callable[..., Any], train: Callable[..., Trainer], tmp_path: Path
) -> None:
    data, model = noise(), build("PooledLSTM", "AMSoftmax")
    data.target_kind = "existence"
    with pytest.raises(ConfigurationError, match=r"AMSoftmax .* existence"):
        train(model, data, tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))
