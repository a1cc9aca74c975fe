"""A fitted support vector machine as tensors, to classify embeddings after metric learning (Mocanu et al. 2021)."""
# Shapes: N utterances, E embedding dimensions, C classes, K classes that the machine was fitted on, S support
# vectors, P = K (K - 1) / 2 pairs of classes.

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SupportVectorMachine(nn.Module):
    """Classify embeddings by a one-against-one support vector machine with RBF kernel.

    Decisions equal scikit-learn's ``SVC.predict``: each pair of classes votes, and ties go to the first class.
    Probabilities are calibrated by Platt's method, one class against the rest, as in scikit-learn's
    ``CalibratedClassifierCV(SVC(), ensemble=False)``. They are fitted separately from the decision, so the predicted
    class need not be the most probable one. Embeddings are L2-normalised first.

    All computation is in float64. The number of support vectors is known only after fitting: buffers are empty before,
    and take the size of the loaded ones.

    Args:
        num_classes: C.
    """

    support_vectors: Tensor
    dual_coefficients: Tensor
    n_support: Tensor
    intercepts: Tensor
    gamma: Tensor
    classes: Tensor
    slopes: Tensor
    offsets: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("support_vectors", "dual_coefficients"):
            self.register_buffer(name, torch.zeros(0, 0, dtype=torch.float64))
        for name in ("intercepts", "slopes", "offsets"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))
        for name in ("n_support", "classes"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))
        self.register_buffer("gamma", torch.tensor(0.0, dtype=torch.float64))

    @property
    def is_fitted(self) -> bool:
        """Whether there are support vectors; needs no device synchronisation."""
        return len(self.support_vectors) > 0

    def fit(
        self,
        *,
        support_vectors: Tensor,
        dual_coefficients: Tensor,
        n_support: Tensor,
        intercepts: Tensor,
        gamma: float,
        classes: Tensor,
        slopes: Tensor,
        offsets: Tensor,
    ) -> None:
        """Copy the parameters of a machine that was fitted elsewhere.

        Args:
            support_vectors: Support vectors [S, E], ordered by class.
            dual_coefficients: Coefficients [K - 1, S]: for a vector of class k, row r is its coefficient against class
                r, or r + 1 from k on. Positive coefficients favour the lower class.
            n_support: Number of support vectors of each class [K].
            intercepts: Intercepts of the pairs (0, 1), (0, 2), ..., (1, 2), ... [P]; positive ones favour the lower
                class.
            gamma: Kernel coefficient, exp(-gamma |x - y|^2).
            classes: The classes that the machine was fitted on [K], ascending, at least two; the others are never
                predicted and have probability zero.
            slopes: Slopes of the classes' calibration 1 / (1 + exp(slope * score + offset)) [K].
            offsets: Offsets of the calibration [K].
        """
        fitted = {
            "support_vectors": support_vectors,
            "dual_coefficients": dual_coefficients,
            "n_support": n_support,
            "intercepts": intercepts,
            "gamma": torch.tensor(gamma, dtype=torch.float64),
            "classes": classes,
            "slopes": slopes,
            "offsets": offsets,
        }
        for name, value in fitted.items():
            held = self.get_buffer(name)
            setattr(self, name, value.detach().to(held.device, held.dtype, copy=True))

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted classes [N] of ``embeddings`` [N, E] and class probabilities [N, C].

        Raises:
            RuntimeError: If the machine is not fitted.
        """
        if not self.is_fitted:
            raise RuntimeError("this support vector machine has no support vectors yet: fit it, or load a fitted one")
        votes, scores = self._compare(F.normalize(embeddings.double(), dim=1))
        calibrated = torch.sigmoid(-(self.slopes * scores + self.offsets))
        total = calibrated.sum(1, keepdim=True)
        even = torch.full_like(calibrated, 1 / len(self.classes))  # if all calibrated scores are zero
        calibrated = torch.where(total > 0, calibrated / total, even)
        # Zero for unknown classes; a product, because ONNX cannot copy by index into batches of dynamic size.
        probabilities = calibrated @ F.one_hot(self.classes, self.num_classes).to(calibrated.dtype)
        return self.classes[votes.argmax(1)], probabilities  # argmax returns the first of ties

    def _compare(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return votes [N, K] of each class against all others, and scores [N, K] that break ties."""
        num_classes = len(self.classes)
        every_class = torch.arange(num_classes, device=embeddings.device)
        first, second = torch.triu_indices(num_classes, num_classes, offset=1, device=embeddings.device)
        # Coefficient of each support vector in each pair [P, S]; zero unless it belongs to one of the two classes.
        owner = every_class.repeat_interleave(self.n_support, output_size=len(self.support_vectors))
        coefficients = self.dual_coefficients[second - 1] * (owner == first[:, None])
        coefficients = coefficients + self.dual_coefficients[first] * (owner == second[:, None])
        margins = self._kernel(embeddings) @ coefficients.T + self.intercepts  # [N, P], positive for the lower class
        for_first = (first[:, None] == every_class).to(margins.dtype)  # [P, K]
        for_second = (second[:, None] == every_class).to(margins.dtype)
        won = (margins > 0).to(margins.dtype)
        votes = won @ for_first + (1 - won) @ for_second
        confidence = margins @ (for_first - for_second)
        if num_classes == 2:
            return votes, confidence
        return votes, votes + confidence / (3 * (confidence.abs() + 1))  # less than a vote

    def _kernel(self, embeddings: Tensor) -> Tensor:
        """Return the kernel [N, S] of ``embeddings`` [N, E] and the support vectors."""
        squares = embeddings.square().sum(1)[:, None] + self.support_vectors.square().sum(1)
        distances = squares - 2 * embeddings @ self.support_vectors.T
        return torch.exp(-self.gamma * distances.clamp(min=0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Resize the buffers to those in ``state_dict`` before they are copied."""
        for name, buffer in self.named_buffers(recurse=False):
            stored = state_dict.get(f"{prefix}{name}")
            if isinstance(stored, Tensor) and stored.dim() == buffer.dim():
                setattr(self, name, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to another device, but keep the precision: rounding would change decisions."""
        for name, buffer in self.named_buffers(recurse=False):
            moved = fn(buffer)
            setattr(self, name, moved if moved.dtype == buffer.dtype else buffer.to(moved.device))
        return self
