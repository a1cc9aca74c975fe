"""Where half precision would be too coarse."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which ``device`` computes in its inputs' own precision, also in the midst of autocast.

    Inputs that autocast already rounded are to be widened inside, to the dtype of the parameters they meet: autocast
    leaves those in float32, and models of float64 or of half precision throughout stay what they are.
    """
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def at_least_float32(values: Tensor) -> Tensor:
    """Return ``values`` in float32 where they are in half precision, else as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
