"""Fitting of the support vector machine that follows metric learning (Mocanu et al. 2021, systems S4 and S5)."""
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
CALIBRATION_PARTS = 5  # as many as scikit-learn's default

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
    """Fit a support vector machine with RBF kernel; choose C and gamma by the weighted accuracy on validation.

    The paper says no more than that the kernel is RBF. Chosen here: embeddings are L2-normalised, as metric learning
    compares them; gamma is a multiple of scikit-learn's "scale", 1 / (E * variance); of pairs with equal scores the one
    with the smallest gamma and then the smallest C is taken, the smoother machine. Validation embeddings choose these
    two numbers and nothing else. Probabilities are calibrated on training embeddings by cross-validation in which the
    speakers scored are not among those fitted on; where a class would be missing from a fit because all its
    utterances are of the speakers left out, on the decisions over the training set itself, which is over-confident.
    Equal arguments give equal machines.

    Args:
        train_embeddings: Embeddings [M, E] to fit on.
        train_labels: Class index of each [M].
        train_speakers: Speaker of each, M of them.
        validation_embeddings: Embeddings [N, E] to choose by.
        validation_labels: Class index of each [N].
        num_classes: C; classes without a training embedding are never decided on.
        costs: The C to choose from.
        gammas: The multiples of "scale" to choose from.

    Returns:
        The machine, on the device of ``train_embeddings``, and for the record what was chosen, ready for JSON: ``C``,
        ``gamma_multiple``, ``gamma``, ``validation_WA``, ``support_vectors`` (their number), ``calibration_parts`` (of
        the speakers; 0: calibrated on the training set itself) and ``grid`` (``C``, ``gamma_multiple`` and
        ``validation_WA`` of every pair tried).

    Raises:
        ConfigurationError: If an embedding is not finite or fewer than two classes have a training embedding.
        ValueError: If arguments do not belong together, or there is nothing to choose from or to choose by.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    _check(train_embeddings, train_labels, num_classes, "training")
    _check(validation_embeddings, validation_labels, num_classes, "validation")
    if len(train_speakers) != len(train_labels):
        raise ValueError(f"{len(train_speakers)} speakers of {len(train_labels)} training embeddings")
    if not costs or not gammas or min(*costs, *gammas) <= 0:
        raise ValueError(f"C of {list(costs)} and gamma of {list(gammas)}: give at least one of each, all positive")
    points, labels = _normalised(train_embeddings), train_labels.cpu().numpy()
    if len(set(labels)) < 2:
        raise ConfigurationError(
            f"only class {labels[0]} has training embeddings, and a support vector machine tells classes apart; "
            "check the labels of the training split"
        )
    scale = _scale(points)
    grid = _search(
        points, labels, _normalised(validation_embeddings), validation_labels.cpu().numpy(), costs, gammas, scale
    )
    best = max(grid, key=lambda tried: (tried["validation_WA"], -tried["gamma_multiple"], -tried["C"]))
    classifier = SVC(kernel="rbf", C=best["C"], gamma=scale * best["gamma_multiple"])
    parts = _parts_by_speaker(train_speakers, labels)
    everything = np.arange(len(labels))
    fitted = CalibratedClassifierCV(classifier, ensemble=False, cv=parts or [(everything, everything)])
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
        raise ValueError(f"{stage} labels from {labels.min()} to {labels.max()}, of {num_classes} classes")
    faulty = ~embeddings.isfinite().all(1)
    if faulty.any():
        raise ConfigurationError(
            f"{int(faulty.sum())} of {len(faulty)} {stage} embeddings are not finite: training has diverged; "
            "lower the learning rate, or choose an earlier checkpoint"
        )


def _normalised(embeddings: Tensor) -> Array:
    """Return L2-normalised embeddings, computed as the machine does it later."""
    points: Array = F.normalize(embeddings.detach().double(), dim=1).cpu().numpy()
    return points


def _scale(points: Array) -> float:
    """Return scikit-learn's gamma "scale", also of points that do not vary."""
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
    """Return the weighted accuracy on validation of each pair of gamma and C; distances are computed once."""
    from sklearn.svm import SVC

    distances = _squared_distances(points, points)
    validation_distances = _squared_distances(validation_points, points)
    grid = []
    for multiple in gammas:
        kernel = np.exp(-scale * multiple * distances)
        validation_kernel = np.exp(-scale * multiple * validation_distances)
        for cost in costs:
            decided = SVC(kernel="precomputed", C=cost).fit(kernel, labels).predict(validation_kernel)
            accuracy = float((decided == validation_labels).mean())
            grid.append({"C": float(cost), "gamma_multiple": float(multiple), "validation_WA": accuracy})
    return grid


def _squared_distances(left: Array, right: Array) -> Array:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)
    distances: Array = np.maximum(squares - 2 * left @ right.T, 0.0)
    return distances


def _parts_by_speaker(speakers: Sequence[str], labels: Labels) -> list[tuple[Labels, Labels]]:
    """Divide utterances for calibration: pairs of positions to fit on and positions to score, no speaker in both.

    Speakers are dealt to parts in turn, to as many parts as leave every class in each fit; none, if none do.
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
    """Return the machine and its calibration as a module.

    scikit-learn turns the signs of two classes round and calibrates the second alone; here the lower class is the
    positive one of every pair, and each class has its calibration.
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
