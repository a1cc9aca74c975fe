"""Heads: an utterance-level vector [B, D] to one number for each class [B, C]. The plain one is ``torch.nn.Linear``."""
# Shapes: B utterances, D channels, C classes.

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.nn.precision import without_autocast


class CosineHead(nn.Module):
    """Cosines of the angles between features and class weights, both L2-normalised, without bias.

    What additive-margin softmax works on (Zhou & Liu 2020, section 2.2, eq. 2). Its scale would magnify the rounding of
    a cosine to half precision, so autocast has no part here.

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
