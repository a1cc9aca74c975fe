"""Choice of the SVM's C and gamma, and speaker-independent calibration."""

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.svm import SVC
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.nn.support_vectors import SupportVectorMachine
from ser_lightning.systems.svm_fitting import fit_svm


def noisy(count: int, seed: int, noise: float, classes: int = 3, channels: int = 10) -> tuple[Tensor, Tensor]:
    centres = torch.randn(classes, channels, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] + noise * torch.randn(count, channels, generator=torch.Generator().manual_seed(seed)), labels


def speakers(count: int, number: int = 8) -> list[str]:
    return [f"{index // 4 % number:02d}" for index in range(count)]


def fitted(noise: float, **more: Any) -> tuple[SupportVectorMachine, dict[str, Any]]:
    train, labels = noisy(96, 0, noise)
    settled: dict[str, Any] = {"validation": noisy(60, 1, noise)}
    return fit_svm(train, labels, speakers(96), 3, **settled | more)


def test_the_pair_that_is_best_on_validation_is_taken() -> None:
    machine, record = fitted(2.0)
    points, labels = noisy(60, 1, 2.0)
    assert 1 / 3 < record["selection_WA"] < 1
    assert record["selection_WA"] == max(tried["selection_WA"] for tried in record["grid"])
    assert record["selection_WA"] == pytest.approx((machine(points)[0] == labels).double().mean().item())
    train, train_labels = noisy(96, 0, 2.0)
    unit = [(part.double() / part.double().norm(dim=1, keepdim=True)).numpy() for part in (train, points)]
    scale = SVC().fit(unit[0], train_labels)._gamma  # scikit-learn's "scale"
    assert record["gamma"] == pytest.approx(record["gamma_multiple"] * scale)
    for tried in record["grid"]:
        classifier = SVC(C=tried["C"], gamma=tried["gamma_multiple"] * scale).fit(unit[0], train_labels)
        assert tried["selection_WA"] == pytest.approx(classifier.score(unit[1], labels)), tried


def test_grouped_selection_scores_speakers_it_was_not_fitted_on() -> None:
    """Equal to scikit-learn's own cross-validation over the same groups, whose gamma and C win."""
    train, labels = noisy(96, 0, 2.0)
    names = speakers(96)
    _, record = fitted(2.0, validation=None)
    unit = (train.double() / train.double().norm(dim=1, keepdim=True)).numpy()
    scale = SVC().fit(unit, labels)._gamma
    groups = [int(name) % 5 for name in names]
    splits = list(PredefinedSplit(groups).split())
    assert all({names[i] for i in fit_on}.isdisjoint(names[i] for i in scored) for fit_on, scored in splits)
    for tried in record["grid"]:
        classifier = SVC(C=tried["C"], gamma=tried["gamma_multiple"] * scale)
        predicted = cross_val_predict(classifier, unit, labels, cv=splits)
        assert tried["selection_WA"] == pytest.approx(float((predicted == labels.numpy()).mean())), tried
    assert 1 / 3 < record["selection_WA"] == max(tried["selection_WA"] for tried in record["grid"])


def test_grouped_selection_needs_every_class_of_two_speakers() -> None:
    settled = arguments() | {"train_speakers": ["a", "b", "c"] * 4, "validation": None}
    with pytest.raises(ConfigurationError, match=r"speakers a, b, c .*svm_selection.*validation_set"):
        fit_svm(**settled)


def test_ties_go_to_the_smoothest_svm_in_any_order_of_candidates() -> None:
    _, record = fitted(0.05, costs=[100.0, 1.0, 10.0], gammas=[2.0, 0.5, 1.0])
    assert {tried["selection_WA"] for tried in record["grid"]} == {1.0}
    assert (record["gamma_multiple"], record["C"]) == (0.5, 1.0)


def test_equal_arguments_give_equal_svms_and_the_record_is_json() -> None:
    (first, record), (second, again) = fitted(2.0), fitted(2.0)
    assert json.loads(json.dumps(record)) == again
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())


def seen_splits(monkeypatch: pytest.MonkeyPatch, labels: Sequence[int], names: Sequence[str]) -> Any:
    """Fit an SVM; return its calibration's splits and its record."""
    splits: list[Any] = []

    class Watched(CalibratedClassifierCV):  # type: ignore[misc]
        def fit(self, *arguments: Any) -> Any:
            splits.extend(self.cv)
            return super().fit(*arguments)

    monkeypatch.setattr("sklearn.calibration.CalibratedClassifierCV", Watched)
    points, _ = noisy(len(labels), 0, 1.0)
    both = points, torch.tensor(labels)
    machine, record = fit_svm(*both, names, 3, both)
    assert machine(points)[1].isfinite().all()
    return splits, record


@pytest.mark.parametrize(("number", "parts"), [(2, 2), (3, 3), (12, 5)])
def test_calibration_never_scores_a_speaker_it_was_fitted_on(
    number: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = speakers(96, number)
    splits, record = seen_splits(monkeypatch, [index % 3 for index in range(96)], names)
    assert record["calibration_parts"] == len(splits) == parts
    assert sorted(np.concatenate([scored for _, scored in splits])) == list(range(96))
    for fit_on, scored in splits:
        assert {names[index] for index in fit_on}.isdisjoint({names[index] for index in scored})
        assert len(fit_on) + len(scored) == 96


def test_fewer_parts_are_made_to_keep_every_class_in_each_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only speakers 0 and 5 have class 2; they share a part if there are five, but not if there are four.
    names = [str(index % 6) for index in range(120)]
    labels = [2 if name in "05" and index % 4 < 2 else index // 6 % 2 for index, name in enumerate(names)]
    splits, record = seen_splits(monkeypatch, labels, names)
    assert record["calibration_parts"] == 4
    assert all({labels[index] for index in fit_on} == {0, 1, 2} for fit_on, _ in splits)


@pytest.mark.parametrize("names", [["a"] * 60, ["a", "b", "c"] * 20])
def test_a_class_of_one_speaker_calibrates_on_the_training_set(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, record = seen_splits(monkeypatch, [index % 3 for index in range(60)], names)
    assert record["calibration_parts"] == 0
    ((fit_on, scored),) = splits
    assert fit_on.tolist() == scored.tolist() == list(range(60))


def test_collapsed_embeddings_still_give_an_svm() -> None:
    points, labels = torch.ones(24, 5), torch.arange(24) % 3
    machine, record = fit_svm(points, labels, speakers(24), 3, (points, labels))
    assert record["selection_WA"] == pytest.approx(1 / 3)
    assert machine(points)[1].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train_labels": torch.zeros(12, dtype=torch.int64)}, "class 0"),
        ({"train_embeddings": torch.full((12, 4), torch.nan)}, "12 of 12 training .*not finite"),
        ({"validation": (torch.full((6, 4), torch.inf), torch.arange(6) % 3)}, "6 of 6 validation .*not finite"),
    ],
)
def test_input_that_gives_no_svm_is_rejected_with_the_reason(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        fit_svm(**(arguments() | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train_speakers": ["a"] * 5}, "5 speakers .*12"),
        ({"train_labels": torch.zeros(5)}, "12 embeddings .*5 labels"),
        ({"validation": (torch.randn(6, 4), torch.full((6,), 3))}, "validation labels .*3 to 3.* 3 classes"),
        ({"validation": (torch.randn(6, 4), torch.full((6,), -1))}, "validation labels .*-1 to -1"),
        ({"validation": (torch.zeros(0, 4), torch.zeros(0))}, "0 embeddings"),
        ({"costs": []}, r"costs .*\[\]"),
        ({"gammas": [0.0]}, r"gammas \[0\.0\]"),
    ],
)
def test_inconsistent_arguments_are_rejected(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        fit_svm(**(arguments() | changes))


def arguments() -> dict[str, Any]:
    return {
        "train_embeddings": torch.randn(12, 4),
        "train_labels": torch.arange(12) % 3,
        "train_speakers": speakers(12),
        "validation": (torch.randn(6, 4), torch.arange(6) % 3),
        "num_classes": 3,
    }


@pytest.mark.slow
def test_a_fold_of_ravdess_takes_seconds() -> None:
    train, labels = noisy(1152, 0, 3.0, classes=8, channels=512)
    began = time.monotonic()
    fit_svm(train, labels, speakers(1152, 19), 8)
    assert time.monotonic() - began < 60  # 7 seconds on an idle core
