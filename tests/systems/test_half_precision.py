"""Training in bfloat16: layers round, losses do not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ser_lightning.losses import AMSoftmax, ExistenceLoss, FocalLoss, LabelSmoothing, TripletLoss, WeightedCrossEntropy
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.pooling import AttentiveStatisticsPooling, NetVLAD, WeightedPooling
from ser_lightning.systems import (
    ConvBLSTMAttention,
    DominantEmotionRecognition,
    MetricLearning,
    MultiLabelEmotionExistence,
    PooledLSTM,
    SEResNetVLAD,
    SpeakerIdentification,
)
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.types import Batch

EMOTIONS = list("ahsn")
CHANNELS = (4, 4, 3, 3, 3, 3)


def narrow(num_features: int) -> ThinSEResNet34:
    return ThinSEResNet34(num_features, channels=2)


def netvlad(dim: int) -> NetVLAD:
    return NetVLAD(dim, clusters=3)


SYSTEMS: dict[str, Callable[[], EmotionClassifier]] = {
    "Huang, NetVLAD": lambda: PooledLSTM(
        40, EMOTIONS, lambda dim: NetVLAD(dim, clusters=3), LabelSmoothing(0.1, "unigram"), cells=8
    ),
    "Zhou, AM-softmax": lambda: ConvBLSTMAttention(
        40, EMOTIONS, AttentiveStatisticsPooling, AMSoftmax(10.0, 0.4), channels=CHANNELS, cells=5
    ),
    "Zhou, focal loss": lambda: ConvBLSTMAttention(
        40, EMOTIONS, WeightedPooling, FocalLoss(2.0), channels=CHANNELS, cells=5
    ),
    "Ando, dominant emotion": lambda: DominantEmotionRecognition(
        40, EMOTIONS, WeightedCrossEntropy("inverse_frequency"), channels=(3, 4, 2), cells=5, attention_dim=6
    ),
    "Ando, existence": lambda: MultiLabelEmotionExistence(
        40, EMOTIONS, ExistenceLoss(), channels=(3, 4, 2), cells=5, attention_dim=6
    ),
    "Mocanu, S1": lambda: SEResNetVLAD(
        40, EMOTIONS, narrow, netvlad, WeightedCrossEntropy(), "per_frame", embedding_dim=6
    ),
    "Mocanu, AM-softmax": lambda: SEResNetVLAD(
        40, EMOTIONS, narrow, netvlad, AMSoftmax(10.0, 0.4), "per_frame", embedding_dim=6
    ),
    "Mocanu, speakers": lambda: SpeakerIdentification(
        40, EMOTIONS, narrow, netvlad, AMSoftmax(10.0, 0.4), "per_frame", embedding_dim=6
    ),
}


on_cpu_and_gpu = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@pytest.fixture(params=SYSTEMS)
def model(request: pytest.FixtureRequest) -> EmotionClassifier:
    torch.manual_seed(0)
    return SYSTEMS[request.param]()


def batch(dtype: torch.dtype = torch.float32) -> Batch:
    frames = torch.randn(4, 95, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    labels = torch.arange(4)
    return Batch(frames, torch.tensor([95, 40, 64, 70]), labels, torch.eye(4, dtype=dtype), labels)


def logits_of_criterion(model: EmotionClassifier) -> list[Tensor]:
    """A list of the logits of each call of the model's criterion."""
    seen: list[Tensor] = []
    model.criterion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    return seen


@on_cpu_and_gpu
def test_under_autocast_losses_and_scores_use_float32_logits(model: EmotionClassifier, device: str) -> None:
    seen, moved = logits_of_criterion(model), batch().to(device)
    model.train().to(device)
    expected = model.training_step(moved, 0)
    with torch.autocast(device, torch.bfloat16):
        loss = model.training_step(moved, 0)
        rounded = model.eval()(moved.inputs, moved.lengths)
        probabilities = model.validation_step(moved, 0)["probabilities"]
        predicted = model.predict_step(moved, 0)["probabilities"]
    loss.backward()
    assert [logits.dtype for logits in seen] == [torch.float32] * 3
    assert loss.dtype == probabilities.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(seen[2], rounded.float())
    torch.testing.assert_close(probabilities, predicted)
    torch.testing.assert_close(
        model.criterion(seen[1], moved.targets, model.class_prior), loss.detach(), rtol=1e-6, atol=0
    )
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_a_model_of_float64_has_losses_of_float64(model: EmotionClassifier) -> None:
    seen = logits_of_criterion(model)
    loss = model.double().training_step(batch(torch.float64), 0)
    assert seen[0].dtype == loss.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_metric_learning_compares_embeddings_rounded_once(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MetricLearning(
        40, EMOTIONS, narrow, netvlad, lambda c: TripletLoss(c, 0.5), "per_frame", embedding_dim=6
    ).to(dtype)
    seen: list[Tensor] = []
    model.metric_loss.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    pairs = batch(dtype)
    pairs.labels = torch.tensor([0, 0, 1, 1])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        loss = model.training_step(pairs, 0)
    loss.backward()
    assert seen[0].dtype == loss.dtype == dtype
    torch.testing.assert_close(loss.detach(), model.metric_loss(seen[0], pairs.labels)[0], rtol=1e-6, atol=0)
    assert model.class_sums.dtype == dtype
    torch.testing.assert_close(
        model.class_sums[:2],
        torch.nn.functional.normalize(seen[0], dim=1).reshape(2, 2, 6).sum(1),
        rtol=1e-5,
        atol=1e-6,
    )
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
