"""From a spectrogram of any length to one vector (Mocanu et al. 2021, figure 3)."""
# Shapes: B utterances, T frames (padded), F features a frame, E embedding dimensions.

from collections.abc import Callable

from torch import Tensor, nn

from ser_lightning.nn.encoders import Encoder
from ser_lightning.nn.masking import frame_mask
from ser_lightning.nn.pooling import Pooling


class EmbeddingNetwork(nn.Module):
    """An encoder, the aggregation of its descriptors over time, and one connected layer.

    What a stage of training hands to the next: heads differ between stages, this does not.

    Args:
        num_features: F.
        encoder: Makes the encoder of F features.
        pooling: Makes the aggregation of its descriptors.
        embedding_dim: E, neurons of the connected layer.
    """

    def __init__(
        self,
        num_features: int,
        encoder: Callable[[int], Encoder],
        pooling: Callable[[int], Pooling],
        embedding_dim: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder(num_features)
        self.pooling = pooling(self.encoder.output_dim)
        self.connected = nn.Linear(self.pooling.output_dim, embedding_dim)
        self.output_dim = embedding_dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return embeddings [B, E] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        descriptors, lengths = self.encoder(frames, mask.sum(1))
        embeddings: Tensor = self.connected(self.pooling(descriptors, frame_mask(lengths, descriptors.shape[1])))
        return embeddings
