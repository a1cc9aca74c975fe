"""Attention and cluster assignment over time of the systems that have them; the others refuse."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import ExistenceLoss, LabelSmoothing, TripletLoss, WeightedCrossEntropy
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.pooling import AttentiveStatisticsPooling, GhostVLAD, MeanPooling, Pooling, WeightedPooling
from ser_lightning.nn.standardisation import Standardisation
from ser_lightning.systems import (
    ConvBLSTMAttention,
    DominantEmotionRecognition,
    EmotionClassifier,
    ExistencePretraining,
    MetricLearning,
    MultiLabelEmotionExistence,
    PooledLSTM,
    SEResNetVLAD,
    SpeakerIdentification,
)
from ser_lightning.types import Batch

EMOTIONS = ("neutral", "happy", "sad")
F = 34
ANDO: dict[str, Any] = {"channels": (3, 4, 2), "cells": 5, "attention_dim": 6}
ZHOU: dict[str, Any] = {"channels": (2, 3, 2, 2, 2, 3), "cells": 4}
LENGTHS = torch.tensor([80, 33, 64])


def narrow(num_features: int) -> ThinSEResNet34:
    return ThinSEResNet34(num_features, channels=2)


def standardise(system: EmotionClassifier, mean: float, deviation: float) -> None:
    """Fit every standardisation of ``system``, also of its frozen encoders."""
    for module in system.modules():
        if isinstance(module, Standardisation):
            module.fit(SimpleNamespace(mean=torch.full((F,), mean), deviation=torch.full((F,), deviation)))


def enliven(system: EmotionClassifier) -> None:
    """Shift batch norms, so that some of the few units are active and attention depends on frames."""
    for name, parameter in system.named_parameters():
        if name.endswith(".norm.bias"):
            torch.nn.init.ones_(parameter)


def attending() -> dict[str, tuple[EmotionClassifier, int]]:
    """Systems with attention, and their frames per step."""
    torch.manual_seed(0)
    plain = WeightedCrossEntropy()
    return {
        "huang": (PooledLSTM(F, EMOTIONS, WeightedPooling, LabelSmoothing(), cells=4, dropout=0.5), 1),
        "zhou": (ConvBLSTMAttention(F, EMOTIONS, WeightedPooling, plain, **ZHOU), 32),
        "zhou combined": (ConvBLSTMAttention(F, EMOTIONS, AttentiveStatisticsPooling, plain, **ZHOU), 32),
        "dominant": (DominantEmotionRecognition(F, EMOTIONS, plain, **ANDO), 16),
        "existence": (MultiLabelEmotionExistence(F, EMOTIONS, ExistenceLoss(), **ANDO), 16),
        "pre-training": (ExistencePretraining(F, EMOTIONS, plain, **ANDO), 16),
    }


@pytest.fixture
def frames() -> Tensor:
    return 3 + torch.randn(3, 80, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", attending())
def test_attention_sums_to_one_over_an_utterance_despite_padding(name: str, frames: Tensor) -> None:
    system, frames_of_step = attending()[name]
    enliven(system.double().eval())
    standardise(system, 3.0, 2.0)
    found = system.attention(frames, LENGTHS)
    weights, step = found.weights, found.frames_per_step
    assert step == frames_of_step
    assert weights.shape[0] == 3
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert weights.std() > 0
    for row, length in enumerate(LENGTHS.tolist()):
        steps = length // step
        assert (weights[row, :steps] > 0).all()
        assert not weights[row, steps + 1 :].any()
        alone = system.attention(frames[row : row + 1, :length], LENGTHS[row : row + 1]).weights
        torch.testing.assert_close(alone[0], weights[row, : alone.shape[1]])
    standardise(system, 0.0, 1.0)
    torch.testing.assert_close(system.attention((frames - 3) / 2, LENGTHS).weights, weights)
    assert (system.attention(frames, LENGTHS).weights - weights).abs().max() > 1e-6


def test_zhous_attention_covers_padding_but_no_trimmed_frames(frames: Tensor) -> None:
    def zhou(**more: Any) -> ConvBLSTMAttention:
        torch.manual_seed(0)
        system = ConvBLSTMAttention(F, EMOTIONS, WeightedPooling, WeightedCrossEntropy(), **ZHOU, **more)
        enliven(system.double().eval())
        standardise(system, 3.0, 2.0)
        return system

    whole, trimmed = zhou(), zhou(max_frames=70)
    torch.testing.assert_close(
        trimmed.attention(frames, LENGTHS).weights, whole.attention(frames[:, :70], LENGTHS.clamp(max=70)).weights
    )
    found = zhou(max_frames=100, pad_to_max=True).attention(frames, LENGTHS)
    weights = found.weights
    assert (weights.shape, found.frames_per_step) == ((3, 3), 32)
    for row, length in enumerate(LENGTHS.tolist()):
        by_hand = torch.full((1, 100, F), 3.0, dtype=torch.float64)  # the mean
        by_hand[0, :length] = frames[row, :length]
        torch.testing.assert_close(whole.attention(by_hand, torch.tensor([100])).weights[0], weights[row])
    assert (weights > 0.05).all()  # the second utterance ends in the second step


def test_huangs_attention_is_what_its_states_are_summed_with(frames: Tensor) -> None:
    system = attending()["huang"][0].double().eval()
    assert isinstance(system, PooledLSTM)
    weights = system.attention(frames, LENGTHS).weights
    standardise(system, 0.0, 1.0)
    states, _ = system.lstm(frames)
    expected = system.output(torch.einsum("bt,btd->bd", weights, states))
    torch.testing.assert_close(system(frames, LENGTHS), expected)


def test_a_later_stages_attention_is_its_frozen_encoders(frames: Tensor) -> None:
    source, stage = (attending()[name][0].double().eval() for name in ("existence", "pre-training"))
    assert isinstance(source, MultiLabelEmotionExistence)
    assert isinstance(stage, ExistencePretraining)
    standardise(source, 3.0, 2.0)
    stage.encoders[0].encoder.load_state_dict(source.encoder.state_dict())
    stage.encoders[0].standardisation.load_state_dict(source.standardisation.state_dict())
    torch.testing.assert_close(stage.attention(frames, LENGTHS).weights, source.attention(frames, LENGTHS).weights)


def pooled(pooling: Callable[[int], Pooling]) -> list[EmotionClassifier]:
    """Each system whose pooling is chosen, with ``pooling``."""
    torch.manual_seed(0)
    plain, mocanu = WeightedCrossEntropy(), {"normalisation": "per_frame", "embedding_dim": 4}
    systems: list[EmotionClassifier] = [
        PooledLSTM(F, EMOTIONS, pooling, LabelSmoothing(), cells=4, dropout=0.5),
        ConvBLSTMAttention(F, EMOTIONS, pooling, plain, **ZHOU),
        SEResNetVLAD(F, EMOTIONS, narrow, pooling, plain, **mocanu),  # type: ignore[arg-type]
        MetricLearning(F, EMOTIONS, narrow, pooling, lambda names: TripletLoss(names, 0.1), **mocanu),  # type: ignore[arg-type]
        SpeakerIdentification(F, EMOTIONS, narrow, pooling, plain, **mocanu),  # type: ignore[arg-type]
    ]
    for system in systems:
        enliven(system.double().eval())
        standardise(system, 3.0, 2.0)
    return systems


def ghostly(size: int) -> GhostVLAD:
    return GhostVLAD(size, clusters=3, ghosts=2)


def test_a_system_without_attention_or_clusters_says_so(frames: Tensor) -> None:
    for system in pooled(MeanPooling):
        with pytest.raises(ConfigurationError, match=f"{type(system).__name__} .*attention.*clusters"):
            system.attention(frames, LENGTHS)


def test_clusters_share_each_step_despite_padding(frames: Tensor) -> None:
    steps_of = {"PooledLSTM": 1, "ConvBLSTMAttention": 32}
    for system in pooled(ghostly):
        found = system.attention(frames, LENGTHS)
        assert found.ghosts == 2
        assert found.frames_per_step == steps_of.get(type(system).__name__, 16)
        assert found.weights.shape[2] == 5
        for row, length in enumerate(LENGTHS.tolist()):
            alone = system.attention(frames[row : row + 1, :length], LENGTHS[row : row + 1]).weights[0]
            assert abs(len(alone) - length / found.frames_per_step) <= 1
            torch.testing.assert_close(alone.sum(1), torch.ones(len(alone), dtype=torch.float64))
            torch.testing.assert_close(found.weights[row, : len(alone)], alone)
            assert not found.weights[row, len(alone) :].any()


def test_a_test_step_gives_each_utterances_mean_assignment(frames: Tensor) -> None:
    batch = Batch(frames, LENGTHS, torch.tensor([0, 1, 2]), torch.eye(3, dtype=torch.float64), torch.tensor([2, 0, 1]))
    for system in pooled(ghostly):
        if system.is_pretraining:  # is never tested
            continue
        found = system.test_step(batch, 0)["assignments"]
        weights = system.attention(frames, LENGTHS).weights
        for row in range(3):
            real = [step for step in weights[row].tolist() if sum(step) > 0]
            by_hand = [sum(column) / len(real) for column in zip(*real, strict=True)]
            assert found[row].tolist() == pytest.approx(by_hand)
        assert "assignments" not in system.validation_step(batch, 0)
    assert "assignments" not in pooled(WeightedPooling)[0].test_step(batch, 0)


def test_attention_of_a_fusion_is_refused_with_the_way_out(frames: Tensor) -> None:
    fusion = ExistencePretraining(
        F, EMOTIONS, WeightedCrossEntropy(), fusion=True, dominant_checkpoint=Path("x"), **ANDO
    )
    with pytest.raises(ConfigurationError, match=r"ExistencePretraining with fusion .*checkpoints"):
        fusion.attention(frames.float(), LENGTHS)
