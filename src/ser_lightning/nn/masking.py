"""Which frames of a padded batch are real."""
# Shapes: B utterances, T frames (padded).

import torch
from torch import Tensor


def frame_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """Return a boolean mask [B, T], true for the first ``lengths`` [B] of ``num_frames`` T frames."""
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)
