"""Fitting of support vector machines: after metric learning (Mocanu et al. 2021, S4 and S5), and on functionals."""
# Shapes: M training utterances, N in all, E channels of an embedding, C classes, K of them in training.

from collections.abc import Hashable, Sequence
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
PARTS = 5  # scikit-learn's default

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def fit_svm(
    train_embeddings: Tensor,
    train_labels: Tensor,
    train_speakers: Sequence[str],
    num_classes: int,
    validation: tuple[Tensor, Tensor] | None = None,
    costs: Sequence[float] = COSTS,
    gammas: Sequence[float] = GAMMAS,
) -> tuple[SupportVectorMachine, dict[str, Any]]:
    """Fit a support vector machine with RBF kernel; choose C and gamma by WA on other speakers.

    The paper states only the kernel. Chosen here: embeddings are L2-normalised, as the metric losses compare them;
    gamma is a multiple of scikit-learn's "scale", 1 / (E * variance); ties go to the smallest gamma, then the smallest
    C, which gives the smoothest decision. C and gamma are chosen by cross-validation over the training speakers, or on
    a validation set, which then chooses only these two numbers. Probabilities are calibrated by the same
    cross-validation; if that would leave a class out of a fit, on the decisions over the training set itself, which is
    over-confident. The result is deterministic.

    Args:
        train_embeddings: Training embeddings [M, E].
        train_labels: Their class indices [M].
        train_speakers: Their M speakers.
        num_classes: C; classes without a training embedding are never predicted.
        validation: Embeddings and class indices of the validation set that chooses C and gamma; None chooses them by
            cross-validation over the training speakers.
        costs: Candidates for C.
        gammas: Candidates for gamma, as multiples of "scale". With one of each, nothing is chosen.

    Returns:
        The SVM, on the device of ``train_embeddings``, and a JSON-serialisable record: ``C``, ``gamma_multiple``,
        ``gamma``, ``selection_WA`` (over all scored utterances), ``support_vectors`` (their number),
        ``calibration_parts`` (groups of speakers; 0: calibrated on the training set itself) and ``grid`` (``C``,
        ``gamma_multiple`` and ``selection_WA`` of every pair tried).

    Raises:
        ConfigurationError: If an embedding is not finite, fewer than two classes have training embeddings, or there are
            too few speakers for the cross-validation.
        ValueError: If the arguments' lengths differ, labels are out of range, or there are no candidates.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    _check(train_embeddings, train_labels, num_classes, "training")
    if validation is not None:
        _check(*validation, num_classes, "validation")
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
    scale, all_indices = _scale(points), np.arange(len(labels))
    parts = parts_by_speaker(train_speakers, labels.tolist())
    if len(costs) * len(gammas) == 1:
        grid = [{"C": float(costs[0]), "gamma_multiple": float(gammas[0]), "selection_WA": float("nan")}]
    elif validation is None:
        check_parts(train_speakers, labels.tolist())
        grid = _search(points, labels, parts, costs, gammas, scale)
    else:
        every_point = np.concatenate([points, _normalised(validation[0])])
        every_label = np.concatenate([labels, validation[1].cpu().numpy()])
        split = all_indices, np.arange(len(labels), len(every_label))
        grid = _search(every_point, every_label, [split], costs, gammas, scale)
    best = max(grid, key=lambda pair: (pair["selection_WA"], -pair["gamma_multiple"], -pair["C"]))
    classifier = SVC(kernel="rbf", C=best["C"], gamma=scale * best["gamma_multiple"])
    fitted = CalibratedClassifierCV(classifier, ensemble=False, cv=parts or [(all_indices, all_indices)])
    fitted.fit(points, labels)
    machine = _as_tensors(fitted, num_classes).to(train_embeddings.device)
    record = {
        "C": best["C"],
        "gamma_multiple": best["gamma_multiple"],
        "gamma": machine.gamma.item(),
        "selection_WA": best["selection_WA"],
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
    splits: Sequence[tuple[Labels, Labels]],
    costs: Sequence[float],
    gammas: Sequence[float],
    scale: float,
) -> list[dict[str, float]]:
    """Return the WA of each pair of gamma and C, over the utterances that ``splits`` score.

    Args:
        points: Normalised embeddings [N, E].
        labels: Their class indices [N].
        splits: Indices to fit on and to score.
        costs: Candidates for C.
        gammas: Candidates for gamma, as multiples of ``scale``.
        scale: The unit of gamma.
    """
    from sklearn.svm import SVC

    distances = _squared_distances(points, points)
    scored_in_all = sum(len(scored) for _, scored in splits)
    grid = []
    for multiple in gammas:
        kernel = np.exp(-scale * multiple * distances)
        right = dict.fromkeys(costs, 0)
        for fit_on, scored in splits:
            fit_kernel, score_kernel = kernel[np.ix_(fit_on, fit_on)], kernel[np.ix_(scored, fit_on)]
            for cost in costs:
                predicted = SVC(kernel="precomputed", C=cost).fit(fit_kernel, labels[fit_on]).predict(score_kernel)
                right[cost] += int((predicted == labels[scored]).sum())
        grid += [
            {"C": float(cost), "gamma_multiple": float(multiple), "selection_WA": right[cost] / scored_in_all}
            for cost in costs
        ]
    return grid


def _squared_distances(left: Array, right: Array) -> Array:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)
    distances: Array = np.maximum(squares - 2 * left @ right.T, 0.0)
    return distances


def parts_by_speaker(speakers: Sequence[str], labels: Sequence[Hashable]) -> list[tuple[Labels, Labels]]:
    """Divide utterances for cross-validation into pairs of indices to fit and to score, with no speaker in both.

    Speakers are assigned to parts round-robin. The result has the most parts that leave every class in each fit, or is
    empty if there is no such number.

    Args:
        speakers: Speaker of each utterance.
        labels: Class of each utterance.
    """
    names = sorted(set(speakers))
    rank = {name: position for position, name in enumerate(names)}
    ranks = np.array([rank[speaker] for speaker in speakers])
    for parts in range(min(PARTS, len(names)), 1, -1):
        assigned = ranks % parts
        fits = [{label for label, own in zip(labels, assigned, strict=True) if own != part} for part in range(parts)]
        if all(classes == set(labels) for classes in fits):
            return [(np.flatnonzero(assigned != part), np.flatnonzero(assigned == part)) for part in range(parts)]
    return []


def check_parts(
    speakers: Sequence[str],
    labels: Sequence[Hashable],
    way_out: str = "set model.init_args.svm_selection to validation_set",
) -> None:
    """Check that cross-validation over speakers leaves every class in each fit.

    Args:
        speakers: Speaker of each training utterance.
        labels: Class of each training utterance.
        way_out: What to do if it does not.

    Raises:
        ConfigurationError: Naming the speakers and the way out.
    """
    if not parts_by_speaker(speakers, labels):
        raise ConfigurationError(
            f"the training speakers {', '.join(sorted(set(speakers)))} cannot be divided so that every class remains "
            f"in each part of a cross-validation; {way_out}"
        )


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
