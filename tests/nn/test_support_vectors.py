"""The support vector machine of tensors against scikit-learn's, and through checkpoints."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import PredefinedSplit
from sklearn.svm import SVC
from torch import Tensor, nn

from ser_lightning.nn.support_vectors import SupportVectorMachine
from ser_lightning.systems.svm_fitting import fit_svm

SPEAKERS = 6


def embeddings(count: int, classes: int, seed: int, spread: float = 1.2) -> tuple[Tensor, Tensor]:
    """Embeddings [count, 12] around a centre for each class, in float32 and of any length, and their classes."""
    centres = torch.randn(classes, 12, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return 3 * (centres[labels] + spread * torch.randn(count, 12, generator=generator)), labels


def fit(classes: int, train: Tensor, labels: Tensor) -> tuple[SupportVectorMachine, dict[str, Any]]:
    speakers = [f"{index // 7 % SPEAKERS:02d}" for index in range(len(labels))]
    return fit_svm(train, labels, speakers, classes, (train[:40], labels[:40]), costs=[2.0], gammas=[0.7])


def unit(points: Tensor) -> np.ndarray[Any, Any]:
    points = points.double()
    return (points / points.norm(dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_decisions_and_probabilities_equal_scikit_learn(classes: int) -> None:
    train, labels = embeddings(240, classes, seed=0)
    machine, record = fit(classes, train, labels)
    points, _ = embeddings(1000, classes, seed=1, spread=2.0)
    classifier = SVC(C=record["C"], gamma=record["gamma"])
    parts = np.array([index // 7 % SPEAKERS % 5 for index in range(240)])
    calibrated = CalibratedClassifierCV(classifier, ensemble=False, cv=PredefinedSplit(parts))
    predicted, probabilities = machine(points)
    assert predicted.tolist() == classifier.fit(unit(train), labels).predict(unit(points)).tolist()
    expected = calibrated.fit(unit(train), labels).predict_proba(unit(points))
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-9)
    assert len(predicted.unique()) == classes
    if classes == 8:
        assert (predicted != probabilities.argmax(1)).any()  # the two are fitted separately


def test_of_classes_with_equally_many_votes_the_first_one_wins() -> None:
    train, labels = embeddings(240, 8, seed=0)
    machine, record = fit(8, train, labels)
    points, _ = embeddings(1000, 8, seed=1, spread=2.0)
    classifier = SVC(C=record["C"], gamma=record["gamma"], decision_function_shape="ovo").fit(unit(train), labels)
    first, second = np.triu_indices(8, 1)
    winners = np.where(classifier.decision_function(unit(points)) > 0, first, second)
    votes = np.stack([(winners == index).sum(1) for index in range(8)], axis=1)
    tied = (votes == votes.max(1, keepdims=True)).sum(1) > 1
    assert tied.sum() > 20
    assert machine(points[tied])[0].tolist() == votes[tied].argmax(1).tolist()


def test_a_class_without_training_data_is_never_predicted() -> None:
    train, labels = embeddings(120, 3, seed=0)
    machine, _ = fit(5, train, torch.tensor([0, 2, 4])[labels])
    dense, _ = fit(3, train, labels)
    points, _ = embeddings(200, 3, seed=1)
    predicted, probabilities = machine(points)
    assert set(predicted.tolist()) == {0, 2, 4}
    assert probabilities[:, [1, 3]].eq(0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(probabilities[:, [0, 2, 4]], dense(points)[1])


def test_embedding_length_and_batch_mates_do_not_matter() -> None:
    machine, _ = fit(4, *embeddings(120, 4, seed=0))
    points, _ = embeddings(50, 4, seed=1)
    predicted, probabilities = machine(points)
    torch.testing.assert_close(machine(points.double() * 7)[1], probabilities)
    one_by_one = torch.cat([machine(point[None])[1] for point in points])
    torch.testing.assert_close(one_by_one, probabilities, rtol=0, atol=1e-12)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert machine(points[order])[0].tolist() == predicted[order].tolist()


def test_where_no_class_has_any_probability_all_have_the_same() -> None:
    machine, _ = fit(3, *embeddings(60, 3, seed=0))
    machine.offsets.fill_(1e6)
    torch.testing.assert_close(machine(torch.randn(4, 12))[1], torch.full((4, 3), 1 / 3, dtype=torch.float64))


class System(nn.Module):
    """A module with a machine and other layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.svm = SupportVectorMachine(4)


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_loads_into_an_unfitted_module(assign: bool) -> None:
    system = System()
    system.svm, _ = fit(4, *embeddings(120, 4, seed=0))
    file = io.BytesIO()
    torch.save(system.state_dict(), file)
    file.seek(0)
    fresh = System()
    assert not fresh.svm.is_fitted
    fresh.load_state_dict(torch.load(file, weights_only=True), assign=assign)
    assert fresh.svm.is_fitted
    points, _ = embeddings(100, 4, seed=1)
    for ours, theirs in zip(fresh.svm(points), system.svm(points), strict=True):
        assert torch.equal(ours, theirs)


def test_buffers_take_the_size_of_loaded_ones() -> None:
    small, large = System(), System()
    small.svm, _ = fit(4, *embeddings(40, 4, seed=0))
    large.svm, _ = fit(4, *embeddings(120, 4, seed=0))
    points, _ = embeddings(50, 4, seed=1)
    expected = large.svm(points)[1]
    small.load_state_dict(large.state_dict())
    assert torch.equal(small.svm(points)[1], expected)
    assert small.svm.support_vectors.data_ptr() != large.svm.support_vectors.data_ptr()
    small.load_state_dict(System().state_dict())
    assert not small.svm.is_fitted


def test_a_wrong_or_missing_buffer_is_rejected_by_name() -> None:
    state = System().state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for svm\.support_vectors"):
        System().load_state_dict(state | {"svm.support_vectors": torch.zeros(3)})
    del state["svm.slopes"]
    with pytest.raises(RuntimeError, match=r"Missing key.*svm\.slopes"):
        System().load_state_dict(state)


def test_a_machine_is_not_rounded_with_the_system_around_it() -> None:
    system = System()
    system.svm, _ = fit(4, *embeddings(120, 4, seed=0))
    points, _ = embeddings(100, 4, seed=1)
    predicted, probabilities = system.svm(points)
    system.to(torch.bfloat16)
    assert system.layer.weight.dtype == torch.bfloat16
    assert system.svm.support_vectors.dtype == torch.float64
    assert system.svm.classes.dtype == torch.int64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = system.svm(points)
    assert torch.equal(again[0], predicted)
    assert torch.equal(again[1], probabilities)


def test_a_machine_that_is_not_fitted_says_so() -> None:
    machine = SupportVectorMachine(4)
    assert not machine.is_fitted
    with pytest.raises(RuntimeError, match="no support vectors"):
        machine(torch.zeros(1, 12))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_decisions_equal_the_cpus_without_a_sync() -> None:
    machine, _ = fit(8, *embeddings(240, 8, seed=0))
    points, _ = embeddings(1000, 8, seed=1)
    expected = machine(points)
    machine, on_device = machine.to("cuda"), points.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        predicted, probabilities = machine(on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(predicted.cpu(), expected[0])
    torch.testing.assert_close(probabilities.cpu(), expected[1], rtol=0, atol=1e-10)
