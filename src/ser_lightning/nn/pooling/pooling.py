"""Interface of poolings."""
# Shapes: B utterances, T frames (padded), D channels.

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Pooling(nn.Module, ABC):
    """Pool frame-level descriptors over time.

    Attributes:
        output_dim: Size of the utterance-level vector.
    """

    output_dim: int

    def fit_to_classes(self, num_classes: int) -> None:
        """Set a size that follows the number of classes; a system calls this before it reads ``output_dim``."""

    def weights(self, frames: Tensor, mask: Tensor) -> Tensor | None:
        """Return the attention [B, T] over ``frames`` [B, T, D]; None if the pooling has none.

        Attention is zero outside ``mask`` [B, T], and a row sums to one.
        """
        return None

    @abstractmethod
    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool ``frames`` [B, T, D] under boolean ``mask`` [B, T] to [B, output_dim].

        Real frames come first in each row, and every utterance has at least one. Padding may hold any finite values.
        """
