"""Interface of losses on embeddings, and distances between embeddings (Mocanu et al. 2021, section 3.3)."""
# Shapes: B utterances, E embedding dimensions.

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Unit vectors closer than a millionth count as identical; rounding in float64 is far below that.
SMALLEST_SQUARED_DISTANCE = 1e-12


class MetricLoss(nn.Module, ABC):
    """A differentiable scalar from the distances between the utterances of a batch.

    Args:
        class_names: The emotions, in the order of labels.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)

    @abstractmethod
    def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's loss and its number of terms, without a device synchronisation.

        The order of the batch does not matter. Without terms, loss and gradients are zero.

        Args:
            embeddings: [B, E]; only their directions matter.
            labels: Class index of each utterance [B].

        Returns:
            The loss, in the dtype of ``embeddings`` but at least float32, and the number of terms, an integer.
        """

    @abstractmethod
    def violations(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Count the batch's constraints on negatives [3], without gradient or device synchronisation.

        Args:
            embeddings: [B, E].
            labels: Class index of each utterance [B].

        Returns:
            The number of all constraints, of violated ones, and of violated ones that contribute to the loss, as int64.
        """


def distances_between(embeddings: Tensor) -> Tensor:
    """Return the Euclidean distances [B, B], in float64, between the directions of ``embeddings`` [B, E].

    They are computed from scalar products, whose cancellation for close embeddings needs float64. Identical directions
    have distance zero and gradient zero, not infinity.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        directions = F.normalize(embeddings.double(), dim=1)
        products = directions @ directions.T
        squared_norms = products.diagonal()
        squared = squared_norms.unsqueeze(1) + squared_norms - 2.0 * products
        # Not "greater than", so that NaN stays NaN.
        identical = squared <= SMALLEST_SQUARED_DISTANCE
        return squared.masked_fill(identical, 1.0).sqrt().masked_fill(identical, 0.0)


def in_dtype_of(embeddings: Tensor, loss: Tensor) -> Tensor:
    """Return ``loss`` in the dtype of ``embeddings``, but at least float32."""
    return loss.to(torch.promote_types(embeddings.dtype, torch.float32))
