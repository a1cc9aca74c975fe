"""Heads from utterance-level vectors [B, D] to class logits [B, C], besides ``torch.nn.Linear``."""
# Shapes: B utterances, T frames (padded), T' steps of the pooling, F features a frame, D channels, E embedding
# dimensions, C classes.

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.nn.encoders import Encoder
from ser_lightning.nn.pooling import Pooling
from ser_lightning.nn.tensors import frame_mask, without_autocast


class CosineHead(nn.Module):
    """Cosines of the angles between features and class weights, both L2-normalised, without bias.

    The logits of additive-margin softmax (Zhou & Liu 2020, section 2.2, eq. 2). Its scale would magnify rounding to
    half precision, so autocast is disabled.

    Args:
        input_dim: D.
        num_classes: C.
    """

    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, input_dim) / input_dim**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return cosines [B, C] of ``features`` [B, D]."""
        with without_autocast(features.device):
            features = features.to(self.weight.dtype)
            return F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))


class EmbeddingNetwork(nn.Module):
    """An encoder, a pooling over time, and one fully connected layer.

    Training stages share this network; only their heads differ.

    Args:
        num_features: F.
        encoder: Builds the encoder for F features.
        pooling: Builds the pooling for its descriptors.
        embedding_dim: E, units of the connected layer.
        num_classes: C of the system; the pooling's size may follow it.
    """

    def __init__(
        self,
        num_features: int,
        encoder: Callable[[int], Encoder],
        pooling: Callable[[int], Pooling],
        embedding_dim: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder(num_features)
        self.pooling = pooling(self.encoder.output_dim)
        self.pooling.fit_to_classes(num_classes)
        self.connected = nn.Linear(self.pooling.output_dim, embedding_dim)
        self.output_dim = embedding_dim

    def descriptors(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the pooling: descriptors [B, T', D] of standardised ``frames``, and mask [B, T']."""
        descriptors, lengths = self.encoder(frames, mask.sum(1))
        return descriptors, frame_mask(lengths, descriptors.shape[1])

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return embeddings [B, E] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        embeddings: Tensor = self.connected(self.pooling(*self.descriptors(frames, mask)))
        return embeddings
