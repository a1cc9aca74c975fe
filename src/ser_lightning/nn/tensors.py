"""Helpers for padded, distributed and half-precision batches: masks, sums over processes, precision."""
# Shapes: B utterances, T frames (padded).

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce


def is_distributed() -> bool:
    """Return whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(part: Tensor) -> Tensor:
    """Return ``part`` summed over processes.

    The gradient is summed over processes too, so that DDP's mean of gradients is that of the joint sum.
    """
    if not is_distributed():
        return part
    total: Tensor = all_reduce(part)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return total


def weigh_share(mean: Tensor, size: int) -> Tensor:
    """Return the mean loss of this process's share, weighted so that DDP's mean is that of the joint batch.

    DDP gives each process the same weight, whatever its number of utterances. No device synchronisation.

    Args:
        mean: Mean over the share, a scalar.
        size: Number of utterances in the share.
    """
    if not is_distributed():
        return mean
    total = torch.full((), float(size), dtype=torch.float64, device=mean.device)
    dist.all_reduce(total)
    return mean * (size * dist.get_world_size() / total).to(mean.dtype)


def gather_batch(share: Tensor) -> Tensor:
    """Concatenate every process's ``share`` [B, ...]; all shares must have the same size.

    Gradients flow back to the process that a row came from, and are right under DDP's mean of gradients if every
    process computes the same loss of the whole batch.
    """
    if not is_distributed():
        return share
    if share.requires_grad:
        return torch.cat(all_gather(share))  # type: ignore[no-untyped-call]  # torch leaves it untyped
    shares = [torch.empty_like(share) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, share.contiguous())
    return torch.cat(shares)


def gather_to_first(*columns: Tensor) -> list[Tensor] | None:
    """Concatenate every process's rows of each of ``columns`` [N, ...] in the first process; None in the others.

    The processes may have unequal numbers of rows.
    """
    if not is_distributed():
        return list(columns)
    first = dist.get_rank() == 0
    parts: list[tuple[Tensor, ...] | None] | None = [None] * dist.get_world_size() if first else None
    dist.gather_object(columns, parts)
    return None if parts is None else [torch.cat(rows) for rows in zip(*(p for p in parts if p), strict=True)]


def frame_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """Return a boolean mask [B, T], true for the first ``lengths`` [B] of ``num_frames`` T frames."""
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that disables autocast on ``device``.

    Callers cast inputs that autocast already rounded to the dtype of the parameters: autocast leaves those in float32,
    and models that are float64 or half precision throughout keep their dtype.
    """
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def recurrent_states(lstm: nn.LSTM, frames: Tensor) -> Tensor:
    """Return the states [B, T, H] of ``lstm`` on ``frames`` [B, T, F], in the precision of its weights.

    Under autocast cuDNN's LSTM uses float16 even if bfloat16 is requested; without loss scaling, the gradient of a mean
    over a thousand frames underflows.
    """
    with without_autocast(frames.device):
        states: Tensor = lstm(frames.to(lstm.get_parameter("weight_ih_l0").dtype))[0]
    return states


def at_least_float32(values: Tensor) -> Tensor:
    """Return ``values`` in float32 if they are in half precision, else unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
