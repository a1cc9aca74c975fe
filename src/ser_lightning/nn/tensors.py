"""Tensors of padded, distributed and half-precision batches: masks, sums over processes, float32 where it is needed."""
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

    Its gradient is summed over them too, which DDP's mean of gradients makes that of the joint sum.
    """
    if not is_distributed():
        return part
    total: Tensor = all_reduce(part)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return total


def weigh_share(mean: Tensor, size: int) -> Tensor:
    """Return the mean loss of this process's share, weighed so that DDP's mean is that of the joint batch.

    DDP counts each process alike, however many utterances it has. Nothing waits for a GPU.

    Args:
        mean: Mean over the share, a scalar.
        size: Utterances of the share.
    """
    if not is_distributed():
        return mean
    total = torch.full((), float(size), dtype=torch.float64, device=mean.device)
    dist.all_reduce(total)
    return mean * (size * dist.get_world_size() / total).to(mean.dtype)


def gather_batch(share: Tensor) -> Tensor:
    """Return every process's ``share`` [B, ...] one behind the other; all shares must have the same size.

    Gradients flow back to the process that a row came from, and are right under DDP's mean of gradients where every
    process computes the same loss of the whole.
    """
    if not is_distributed():
        return share
    if share.requires_grad:
        return torch.cat(all_gather(share))  # type: ignore[no-untyped-call]  # torch leaves it untyped
    shares = [torch.empty_like(share) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, share.contiguous())
    return torch.cat(shares)


def gather_to_first(*columns: Tensor) -> list[Tensor] | None:
    """Return each of ``columns`` [N, ...] with every process's rows one behind the other, in the first process.

    The processes may have unequal numbers of rows. In all but the first the result is None.
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
