"""What every loss on embeddings takes, and how far embeddings are from each other (Mocanu et al. 2021, section 3.3)."""
# Shapes: B utterances, E embedding dimensions.

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Unit vectors closer than a millionth, which is many times what rounding in float64 makes of identical ones.
SMALLEST_SQUARED_DISTANCE = 1e-12


class MetricLoss(nn.Module, ABC):
    """A differentiable scalar from where the utterances of a batch lie relative to each other.

    Args:
        class_names: The emotions, in the order of labels.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)

    @abstractmethod
    def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's loss, and how many terms it has.

        Nothing waits for a GPU, and the order of the batch does not matter. Without a term the loss is zero, with
        gradients of zero.

        Args:
            embeddings: [B, E], of any length; directions alone count.
            labels: Class index of each utterance [B].

        Returns:
            The loss, in the dtype of ``embeddings`` but at least float32, and the number of terms, an integer.
        """


def distances_between(embeddings: Tensor) -> Tensor:
    """Return the Euclidean distances [B, B], in float64, between the directions of ``embeddings`` [B, E].

    They come from a matrix of scalar products, which cancel where embeddings lie close together; half precision or
    TensorFloat-32 would leave no digit there, float64 leaves all that float32 has. Identical directions have the
    distance zero and push nowhere: their gradient is zero, not infinite.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        directions = F.normalize(embeddings.double(), dim=1)
        products = directions @ directions.T
        squared_norms = products.diagonal()
        squared = squared_norms.unsqueeze(1) + squared_norms - 2.0 * products
        # Not "greater than": a NaN is to stay one.
        identical = squared <= SMALLEST_SQUARED_DISTANCE
        return squared.masked_fill(identical, 1.0).sqrt().masked_fill(identical, 0.0)


def in_dtype_of(embeddings: Tensor, loss: Tensor) -> Tensor:
    """Return ``loss`` in the dtype of ``embeddings``, or in float32 if that is coarser."""
    return loss.to(torch.promote_types(embeddings.dtype, torch.float32))
