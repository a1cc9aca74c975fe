"""What every encoder offers its neighbours."""
# Shapes: B utterances, T frames (padded), F features a frame, T' frames of the result (padded), D channels.

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Turns frames into descriptors, of which there may be fewer than frames.

    Attributes:
        output_dim: D.
    """

    output_dim: int

    @abstractmethod
    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors [B, T', D] of ``frames`` [B, T, F] with ``lengths`` [B], and their lengths [B].

        Every utterance has at least one frame and gets at least one descriptor. The values of frames past its end, as
        long as they are finite, do not matter; descriptors past the end are zero.
        """
