"""A learned mean of a network's layers."""
# Shapes: B utterances, T frames, L layers, D numbers of a layer.

import torch
from torch import Tensor, nn


class LayerMix(nn.Module):
    """Weighted mean of L layers that are side by side in each frame; the weights are a softmax, equal at first.

    The sum over layers of Peters et al. 2018 (ELMo, eq. 1) without its overall factor, as SUPERB (Yang et al. 2021)
    uses it for speech.

    Args:
        num_layers: L.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))

    @property
    def weights(self) -> Tensor:
        """The layers' weights [L], which sum to one."""
        return self.logits.softmax(0)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the mean [B, T, D] of ``frames`` [B, T, L x D]."""
        layers = frames.view(*frames.shape[:2], len(self.logits), -1)
        return torch.einsum("btld,l->btd", layers, self.weights.to(frames.dtype))
