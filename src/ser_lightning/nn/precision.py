"""Where half precision would be too coarse."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which ``device`` computes in its inputs' own precision, also in the midst of autocast.

    Inputs that autocast already rounded are to be widened inside, to the dtype of the parameters they meet: autocast
    leaves those in float32, and models of float64 or of half precision throughout stay what they are.
    """
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def recurrent_states(lstm: nn.LSTM, frames: Tensor) -> Tensor:
    """Return the states [B, T, H] of ``lstm`` on ``frames`` [B, T, F], in the precision of its weights.

    Under autocast cuDNN's LSTM takes float16 even where bfloat16 is asked for, and nothing then scales the loss: the
    gradient of a mean over a thousand frames is lost in it.
    """
    with without_autocast(frames.device):
        states: Tensor = lstm(frames.to(lstm.get_parameter("weight_ih_l0").dtype))[0]
    return states


def at_least_float32(values: Tensor) -> Tensor:
    """Return ``values`` in float32 where they are in half precision, else as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
