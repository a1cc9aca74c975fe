"""Interface of poolings."""
# Shapes: B utterances, T frames (padded), D channels, K clusters, G ghost clusters.

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Pooling(nn.Module, ABC):
    """Pool frame-level descriptors over time.

    Attributes:
        output_dim: Size of the utterance-level vector.
        clusters: K, for poolings with clusters.
        ghosts: G, clusters that take part in the assignment and are dropped from the result.
    """

    output_dim: int
    clusters: int | None = None
    ghosts: int = 0

    def fit_to_classes(self, num_classes: int) -> None:
        """Set a size that follows the number of classes; a system calls this before it reads ``output_dim``."""

    def weights(self, frames: Tensor, mask: Tensor) -> Tensor | None:
        """Return the attention [B, T] over ``frames`` [B, T, D]; None if the pooling has none.

        Attention is zero outside ``mask`` [B, T], and a row sums to one.
        """
        return None

    def assign(self, frames: Tensor, mask: Tensor) -> Tensor | None:
        """Return the soft assignment [B, T, K + G] of ``frames`` [B, T, D], ghosts last; None without clusters.

        It is zero outside ``mask`` [B, T], and a real frame's row sums to one.
        """
        return None

    @abstractmethod
    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool ``frames`` [B, T, D] under boolean ``mask`` [B, T] to [B, output_dim].

        Real frames come first in each row, and every utterance has at least one. Padding may hold any finite values.
        """
