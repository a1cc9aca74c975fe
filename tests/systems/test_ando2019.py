"""Ando et al. 2019: invariance to padding, batch mates and order, and the paper's sizes."""

import pytest
import torch
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import ExistenceLoss, WeightedCrossEntropy
from ser_lightning.systems import DominantEmotionRecognition, MultiLabelEmotionExistence
from ser_lightning.systems.ando2019 import UtteranceEncoder, dense_classifier
from ser_lightning.types import Batch

LENGTHS = torch.tensor([50, 21, 1, 33])
EMOTIONS = ["neutral", "happy", "sad", "angry"]
Either = DominantEmotionRecognition | MultiLabelEmotionExistence


@pytest.fixture(params=["dominant", "existence"])
def model(request: pytest.FixtureRequest) -> Either:
    torch.manual_seed(0)
    model: Either
    if request.param == "dominant":
        criterion = WeightedCrossEntropy("inverse_frequency")
        model = DominantEmotionRecognition(34, EMOTIONS, criterion, channels=(3, 4, 2), cells=5, attention_dim=6)
    else:
        model = MultiLabelEmotionExistence(34, EMOTIONS, ExistenceLoss(), channels=(3, 4, 2), cells=5, attention_dim=6)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if ".norm." in name:  # batch norms that shift, so that zeros do not stay zero
                tensor.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(4, 50, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_padding_batch_mates_and_order_never_change_a_prediction(
    model: Either, dtype: torch.dtype, tolerance: float, frames: Tensor
) -> None:
    model, frames = model.to(dtype).eval(), frames.to(dtype)
    together = model(frames, LENGTHS)
    reordered = model(frames.flip(0), LENGTHS.flip(0)).flip(0)
    longer = model(torch.cat([frames, torch.full((4, 30, 34), 1e4, dtype=dtype)], 1), LENGTHS)
    torch.testing.assert_close(reordered, together, atol=tolerance, rtol=0)
    torch.testing.assert_close(longer, together, atol=tolerance, rtol=0)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(frames[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=tolerance, rtol=0)


def test_padding_never_changes_a_training_step_either(model: Either, frames: Tensor) -> None:
    model.double().train()
    targets = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    gradients = []
    for inputs in (frames, torch.cat([frames, torch.full((4, 30, 34), 1e4, dtype=torch.float64)], 1)):
        model.zero_grad()
        model.criterion(model(inputs, LENGTHS), targets, model.class_prior).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, plain, atol=1e-8, rtol=0)


def test_gradients_reach_every_parameter(model: Either, frames: Tensor) -> None:
    model.double()
    targets = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3]]
    model.criterion(model(frames, LENGTHS), targets, model.class_prior).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("convolution.bias"), name


def test_the_layers_are_those_of_table_2() -> None:
    model = DominantEmotionRecognition(400, EMOTIONS, WeightedCrossEntropy())
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.stride) for c in convolutions] == [
        (16, (12, 16), (2, 2)),
        (24, (8, 12), (1, 1)),
        (32, (5, 7), (1, 1)),
    ]
    assert sum(isinstance(module, nn.MaxPool2d) for module in model.modules()) == 3
    encoder = model.encoder
    assert encoder.convolutions.output_dim == 32 * 25  # 400 bins, halved four times
    assert encoder.convolutions.reduction_in_time == 16  # 160 ms
    assert encoder.blstm.forwards.hidden_size == 128
    assert encoder.output_dim == 256
    assert [layer.out_features for layer in model.classifier if isinstance(layer, nn.Linear)] == [64, 4]
    expected = {
        "convolutions": sum(o * (i * a * b + 3) for i, o, a, b in ((1, 16, 12, 16), (16, 24, 8, 12), (24, 32, 5, 7))),
        "blstm": 2 * 4 * 128 * (800 + 128 + 1),
        "pooling": 256 * 128 + 128,
    }
    for name, count in expected.items():
        part = encoder.get_submodule(name)
        assert sum(p.numel() for p in part.parameters() if p.requires_grad) == count, name
    assert sum(p.numel() for p in model.classifier.parameters()) == 256 * 64 + 64 + 64 * 4 + 4


def test_an_encoder_moves_from_existence_to_dominance(frames: Tensor) -> None:
    sizes = {"channels": (3, 4, 2), "cells": 5}
    existence = MultiLabelEmotionExistence(34, EMOTIONS, ExistenceLoss(), **sizes)  # type: ignore[arg-type]
    dominant = DominantEmotionRecognition(34, EMOTIONS, WeightedCrossEntropy(), **sizes)  # type: ignore[arg-type]
    dominant.encoder.load_state_dict(existence.encoder.state_dict())
    mask = torch.ones(4, 50, dtype=torch.bool)
    vectors = existence.encoder.eval()(frames.float(), mask)
    assert vectors.shape == (4, existence.encoder.output_dim)
    assert torch.equal(dominant.encoder.eval()(frames.float(), mask), vectors)


def test_existence_probabilities_sum_to_one_and_keep_the_order() -> None:
    model = MultiLabelEmotionExistence(34, EMOTIONS, ExistenceLoss(), channels=(2, 2, 2), cells=2)
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.0], [-90.0, -100.0, -120.0, -300.0], [0.0, 0.0, 0.0, 0.0]])
    probabilities = model.criterion.probabilities(logits)
    torch.testing.assert_close(probabilities[0], logits[0].sigmoid() / logits[0].sigmoid().sum())
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    assert torch.equal(probabilities.argmax(1), logits.argmax(1))


def test_a_tie_of_rounded_probabilities_is_decided_by_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = MultiLabelEmotionExistence(34, EMOTIONS, ExistenceLoss(), channels=(2, 2, 2), cells=2)
    logits = torch.tensor([[18.0, 22.0, 0.0, 0.0]])
    monkeypatch.setattr(model, "classify", lambda frames, mask: logits)
    empty = torch.zeros(1)
    decision = model.decide(Batch(torch.zeros(1, 50, 34), torch.tensor([50]), empty, empty, empty))
    assert decision.predicted.tolist() == [1]
    torch.testing.assert_close(decision.probabilities, torch.tensor([[2.0, 2.0, 1.0, 1.0]]) / 6)


def test_the_classifier_is_two_layers_with_a_relu_between() -> None:
    layers = dense_classifier(3, 2, 1, WeightedCrossEntropy())
    with torch.no_grad():
        for layer, weight in ((layers[0], [[1.0, 0, 0], [0, 1.0, 0]]), (layers[2], [[1.0, 10.0]])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
    inputs = torch.tensor([[2.0, 3.0, 9.0], [-2.0, 3.0, 9.0], [-2.0, -3.0, 9.0]])
    assert layers(inputs).tolist() == [[32.0], [30.0], [0.0]]


def test_attention_can_be_seen_over_time(frames: Tensor) -> None:
    encoder = UtteranceEncoder(34, (3, 4, 2), cells=5, attention_dim=6).double().eval()
    mask = torch.arange(50) < LENGTHS.unsqueeze(1)
    states, real = encoder.descriptors(frames, mask)
    weights = encoder.pooling.weights(states, real)
    assert weights.shape == (4, 3)
    torch.testing.assert_close(torch.einsum("bt,btd->bd", weights, states), encoder(frames, mask))


def test_a_wrong_number_of_convolutions_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"channels is \[16, 24\]"):
        DominantEmotionRecognition(400, EMOTIONS, WeightedCrossEntropy(), channels=(16, 24))
