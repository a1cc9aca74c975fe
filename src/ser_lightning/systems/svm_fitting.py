"""Fitting of the support vector machine after metric learning (Mocanu et al. 2021, systems S4 and S5)."""
# Shapes: M training and N validation utterances, E channels of an embedding, C classes, K of them in training.

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.errors import ConfigurationError
from ser_lightning.nn.support_vectors import SupportVectorMachine

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

COSTS = (0.1, 1.0, 10.0, 100.0)
GAMMAS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
CALIBRATION_PARTS = 5  # scikit-learn's default

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def fit_svm(
    train_embeddings: Tensor,
    train_labels: Tensor,
    train_speakers: Sequence[str],
    validation_embeddings: Tensor,
    validation_labels: Tensor,
    num_classes: int,
    costs: Sequence[float] = COSTS,
    gammas: Sequence[float] = GAMMAS,
) -> tuple[SupportVectorMachine, dict[str, Any]]:
    """Fit a support vector machine with RBF kernel; choose C and gamma by validation WA.

    The paper states only the kernel. Chosen here: embeddings are L2-normalised, as the metric losses compare them;
    gamma is a multiple of scikit-learn's "scale", 1 / (E * variance); ties go to the smallest gamma, then the smallest
    C, which gives the smoothest decision. Validation embeddings choose only these two numbers. Probabilities are
    calibrated on training embeddings by speaker-independent cross-validation; if that would leave a class out of a fit,
    on the decisions over the training set itself, which is over-confident. The result is deterministic.

    Args:
        train_embeddings: Training embeddings [M, E].
        train_labels: Their class indices [M].
        train_speakers: Their M speakers.
        validation_embeddings: Validation embeddings [N, E].
        validation_labels: Their class indices [N].
        num_classes: C; classes without a training embedding are never predicted.
        costs: Candidates for C.
        gammas: Candidates for gamma, as multiples of "scale".

    Returns:
        The SVM, on the device of ``train_embeddings``, and a JSON-serialisable record: ``C``, ``gamma_multiple``,
        ``gamma``, ``validation_WA``, ``support_vectors`` (their number), ``calibration_parts`` (groups of speakers; 0:
        calibrated on the training set itself) and ``grid`` (``C``, ``gamma_multiple`` and ``validation_WA`` of every
        pair tried).

    Raises:
        ConfigurationError: If an embedding is not finite, or fewer than two classes have training embeddings.
        ValueError: If the arguments' lengths differ, labels are out of range, or there are no candidates.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    _check(train_embeddings, train_labels, num_classes, "training")
    _check(validation_embeddings, validation_labels, num_classes, "validation")
    if len(train_speakers) != len(train_labels):
        raise ValueError(f"{len(train_speakers)} speakers for {len(train_labels)} training embeddings")
    if not costs or not gammas or min(*costs, *gammas) <= 0:
        raise ValueError(f"costs are {list(costs)}, gammas {list(gammas)}; give at least one of each, all positive")
    points, labels = _normalised(train_embeddings), train_labels.cpu().numpy()
    if len(set(labels)) < 2:
        raise ConfigurationError(
            f"only class {labels[0]} has training embeddings, but a support vector machine needs two; "
            "check the labels of the training split"
        )
    scale = _scale(points)
    grid = _search(
        points, labels, _normalised(validation_embeddings), validation_labels.cpu().numpy(), costs, gammas, scale
    )
    best = max(grid, key=lambda pair: (pair["validation_WA"], -pair["gamma_multiple"], -pair["C"]))
    classifier = SVC(kernel="rbf", C=best["C"], gamma=scale * best["gamma_multiple"])
    parts = _parts_by_speaker(train_speakers, labels)
    all_indices = np.arange(len(labels))
    fitted = CalibratedClassifierCV(classifier, ensemble=False, cv=parts or [(all_indices, all_indices)])
    fitted.fit(points, labels)
    machine = _as_tensors(fitted, num_classes).to(train_embeddings.device)
    record = {
        "C": best["C"],
        "gamma_multiple": best["gamma_multiple"],
        "gamma": machine.gamma.item(),
        "validation_WA": best["validation_WA"],
        "support_vectors": len(machine.support_vectors),
        "calibration_parts": len(parts),
        "grid": grid,
    }
    return machine, record


def _check(embeddings: Tensor, labels: Tensor, num_classes: int, stage: str) -> None:
    if not len(labels) or len(embeddings) != len(labels):
        raise ValueError(f"{len(embeddings)} embeddings and {len(labels)} labels for {stage}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{stage} labels are {labels.min()} to {labels.max()}; there are {num_classes} classes")
    faulty = ~embeddings.isfinite().all(1)
    if faulty.any():
        raise ConfigurationError(
            f"{int(faulty.sum())} of {len(faulty)} {stage} embeddings are not finite: training has diverged; "
            "lower the learning rate or choose an earlier checkpoint"
        )


def _normalised(embeddings: Tensor) -> Array:
    """Return L2-normalised embeddings, computed as ``SupportVectorMachine`` does."""
    points: Array = F.normalize(embeddings.detach().double(), dim=1).cpu().numpy()
    return points


def _scale(points: Array) -> float:
    """Return scikit-learn's gamma "scale", or 1 for constant points."""
    variance = float(points.var())
    return 1 / (points.shape[1] * variance) if variance > 0 else 1.0


def _search(
    points: Array,
    labels: Labels,
    validation_points: Array,
    validation_labels: Labels,
    costs: Sequence[float],
    gammas: Sequence[float],
    scale: float,
) -> list[dict[str, float]]:
    """Return the validation WA of each pair of gamma and C; distances are computed once."""
    from sklearn.svm import SVC

    distances = _squared_distances(points, points)
    validation_distances = _squared_distances(validation_points, points)
    grid = []
    for multiple in gammas:
        kernel = np.exp(-scale * multiple * distances)
        validation_kernel = np.exp(-scale * multiple * validation_distances)
        for cost in costs:
            predicted = SVC(kernel="precomputed", C=cost).fit(kernel, labels).predict(validation_kernel)
            accuracy = float((predicted == validation_labels).mean())
            grid.append({"C": float(cost), "gamma_multiple": float(multiple), "validation_WA": accuracy})
    return grid


def _squared_distances(left: Array, right: Array) -> Array:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)
    distances: Array = np.maximum(squares - 2 * left @ right.T, 0.0)
    return distances


def _parts_by_speaker(speakers: Sequence[str], labels: Labels) -> list[tuple[Labels, Labels]]:
    """Divide utterances for calibration into pairs of indices to fit and to score, with no speaker in both.

    Speakers are assigned to parts round-robin. The result has the most parts that leave every class in each fit, or is
    empty if there is no such number.
    """
    names = sorted(set(speakers))
    rank = {name: position for position, name in enumerate(names)}
    ranks = np.array([rank[speaker] for speaker in speakers])
    for parts in range(min(CALIBRATION_PARTS, len(names)), 1, -1):
        scored = [ranks % parts == part for part in range(parts)]
        if all(len(set(labels[~chosen])) == len(set(labels)) for chosen in scored):
            return [(np.flatnonzero(~chosen), np.flatnonzero(chosen)) for chosen in scored]
    return []


def _as_tensors(fitted: "CalibratedClassifierCV", num_classes: int) -> SupportVectorMachine:
    """Return the SVM and its calibration as a module.

    For two classes scikit-learn flips the signs and calibrates only the second. Here the lower class is always the
    positive one of a pair, and each class is calibrated.
    """
    (calibrated,) = fitted.calibrated_classifiers_
    classifier = calibrated.estimator
    slopes = [calibrator.a_ for calibrator in calibrated.calibrators]
    offsets = [calibrator.b_ for calibrator in calibrated.calibrators]
    sign = 1.0
    if len(classifier.classes_) == 2:
        sign, slopes, offsets = -1.0, slopes * 2, [-offsets[0], offsets[0]]
    machine = SupportVectorMachine(num_classes)
    machine.fit(
        support_vectors=torch.from_numpy(classifier.support_vectors_),
        dual_coefficients=torch.from_numpy(sign * classifier.dual_coef_),
        n_support=torch.from_numpy(classifier.n_support_),
        intercepts=torch.from_numpy(sign * classifier.intercept_),
        gamma=float(classifier.gamma),
        classes=torch.from_numpy(classifier.classes_),
        slopes=torch.tensor(slopes, dtype=torch.float64),
        offsets=torch.tensor(offsets, dtype=torch.float64),
    )
    return machine
