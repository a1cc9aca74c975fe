"""Training and evaluation steps of every system: the host waits for no device, and a GPU computes what a CPU does."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ser_lightning.nn.support_vectors import SupportVectorMachine
from ser_lightning.systems import MetricLearning
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.training.divergence import DivergenceGuard
from ser_lightning.types import Batch
from tools.gpu_memory import build_system, make_batch
from tools.simulated_device import refuse_waits, simulated_device

NUM_FEATURES = 40
ANDO = {"channels": [2, 3, 4], "cells": 4, "attention_dim": 4, "hidden_dim": 4}
ZHOU = {"channels": [4, 4, 3, 3, 3, 3], "cells": 4, "max_frames": 120}
ENCODER = {"class_path": "ser_lightning.nn.encoders.ThinSEResNet34", "init_args": {"channels": 4}}
MOCANU = {"encoder": ENCODER, "embedding_dim": 8}
# One experiment for each kind of layer and loss, with narrow layers.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "huang2020/final": {"cells": 8},
    "huang2020/netvlad_unigram": {"cells": 8},
    "zhou2020/am_softmax": ZHOU,
    "zhou2020/combined_pooling": ZHOU,
    "zhou2020/focal": ZHOU,
    "ando2019/fusion_soft": ANDO,
    "ando2019/mlee": ANDO,
    "mocanu2021/s3_ghostvlad": MOCANU,
    "mocanu2021/s4_triplet": MOCANU,
    "mocanu2021/s5_emotion_constraint": MOCANU,
    "mocanu2021/speaker_id_ghostvlad": MOCANU,
}
# Their layers or losses are those of others too.
REPEATED = ("zhou2020/am_softmax", "zhou2020/focal", "mocanu2021/s3_ghostvlad")
every_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS)


def build(experiment: str, device: torch.device | str) -> EmotionClassifier:
    torch.manual_seed(0)
    return build_system(experiment, torch.device(device), NUM_FEATURES, **EXPERIMENTS[experiment])


@contextmanager
def refuse_waits_for_cuda() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def fitted(svm: SupportVectorMachine, dim: int) -> None:
    """Give the machine two support vectors for each class."""
    classes, per_class = svm.num_classes, 2
    vectors = torch.rand(classes * per_class, dim, dtype=torch.float64)
    svm.fit(
        support_vectors=vectors,
        dual_coefficients=torch.rand(classes - 1, len(vectors), dtype=torch.float64),
        n_support=torch.full((classes,), per_class),
        intercepts=torch.rand(classes * (classes - 1) // 2, dtype=torch.float64),
        gamma=0.5,
        classes=torch.arange(classes),
        slopes=-torch.ones(classes, dtype=torch.float64),
        offsets=torch.zeros(classes, dtype=torch.float64),
    )


def run_steps(
    experiment: str, device: torch.device, refuse: Callable[[], AbstractContextManager[object]], warm_up: bool
) -> None:
    """Train and evaluate on ``device`` as a run does; on a real one, libraries start in a round before."""
    system = build(experiment, device)
    batch = make_batch(system, 16, 64)
    optimizer = system.optimizer(weight for weight in system.parameters() if weight.requires_grad)
    guard, strategy = DivergenceGuard(), SimpleNamespace(root_device=device)
    trainer: Any = SimpleNamespace(
        fit_loop=SimpleNamespace(total_batch_idx=0),
        strategy=strategy,
        world_size=1,
        state=SimpleNamespace(fn="fit"),
    )

    def round_of_steps() -> None:
        system.train()
        loss = system.training_step(batch, 0)
        loss.backward()
        nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        guard.on_train_batch_end(trainer, system, {"loss": loss.detach()}, batch, 0)
        system.eval()
        with torch.no_grad():
            guard.on_validation_batch_end(trainer, system, system.test_step(batch, 0), batch)

    if warm_up:
        round_of_steps()
    with refuse():
        round_of_steps()
    if isinstance(system, MetricLearning):
        fitted(system.svm, system.network.output_dim)
        with refuse(), torch.no_grad():
            system.test_step(batch, 0)


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=[pytest.mark.slow] * (name in REPEATED)) for name in EXPERIMENTS]
)
def test_no_step_uses_values_of_the_device(experiment: str) -> None:
    with simulated_device() as device:
        run_steps(experiment, device, refuse_waits, warm_up=False)


@pytest.mark.gpu
@every_experiment
def test_no_step_waits_for_a_gpu(experiment: str) -> None:
    run_steps(experiment, torch.device("cuda", 0), refuse_waits_for_cuda, warm_up=True)


@pytest.mark.parametrize(
    "wait",
    [
        lambda values: values.sum().item(),
        lambda values: bool(values.any()),
        lambda values: values[values > 0],
        lambda values: values.nonzero(),
        lambda values: values.cpu(),
        lambda values: torch.tensor([1.0], device=values.device),
        lambda values: torch.equal(values, values),
        lambda values: values.long().repeat_interleave(values.long()),
    ],
)
def test_a_wait_is_found_without_a_gpu(wait: Callable[[Tensor], object]) -> None:
    with simulated_device() as device, pytest.raises((RuntimeError, NotImplementedError)), refuse_waits():
        wait(torch.empty(3, device=device))


@pytest.fixture
def without_tf32() -> Iterator[None]:
    """Compute in float32 throughout: TF32 rounds the inputs of convolutions and LSTMs to ten bits."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
    yield
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before


def without_chance(system: EmotionClassifier) -> EmotionClassifier:
    """Drop nothing and add no noise: random numbers differ between devices."""
    for module in system.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if hasattr(system, "input_noise"):
        system.input_noise = 0.0
    return system


def loss_and_gradients(system: EmotionClassifier, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    system.train().zero_grad()
    loss = system.training_step(batch, 0)
    loss.backward()
    # The gradient of a bias before a batch norm is rounding error.
    names = [name for name, _ in system.named_parameters() if not name.endswith("convolution.bias")]
    weights = dict(system.named_parameters())
    gradients = {name: weights[name].grad for name in names}
    found = {name: gradient.double().cpu() for name, gradient in gradients.items() if gradient is not None}
    return loss.detach().double().cpu(), found


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the norm of the gradients' difference, as a share of the norm of the expected ones."""
    assert found.keys() == expected.keys()
    squares = sum((found[name] - value).square().sum() for name, value in expected.items())
    return float((squares / sum(value.square().sum() for value in expected.values())) ** 0.5)


# Largest relative differences of loss and gradients, in float32 and bfloat16. On a CPU they are 3 to 100 times smaller
# for the loss; the residual network's gradients differ by 0.3% to 0.8% in float32, all others by less than 0.003%.
TOLERANCES = {"mocanu2021": ((1e-3, 0.03), (0.1, 0.6))}
OTHERS = ((1e-4, 1e-3), (0.01, 0.6))


@pytest.mark.usefixtures("without_tf32")
@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
@every_experiment
def test_float32_and_bfloat16_agree_with_float64(experiment: str, device: str) -> None:
    exact = without_chance(build(experiment, "cpu"))
    batch = make_batch(exact, 16, 96)
    system, moved = copy.deepcopy(exact).to(device), batch.to(device)
    exact, wide = exact.double(), copy.copy(batch)
    wide.inputs, wide.targets = wide.inputs.double(), wide.targets.double()
    expected, expected_gradients = loss_and_gradients(exact, wide)
    assert expected.abs() > 1e-3
    for bfloat16, tolerances in enumerate(TOLERANCES.get(experiment.partition("/")[0], OTHERS)):
        with torch.autocast(device, torch.bfloat16, enabled=bool(bfloat16)):
            loss, gradients = loss_and_gradients(system, moved)
        torch.testing.assert_close(loss, expected, rtol=tolerances[0], atol=0)
        assert difference(gradients, expected_gradients) < tolerances[1]
