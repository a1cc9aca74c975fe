"""Batch normalisation that learns from real frames alone."""
# Shapes: B utterances, C channels, F bins, T frames (padded).

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F


def _in_company() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _over_processes(part: Tensor) -> Tensor:
    """Sum ``part`` over processes; its gradient is summed over them too, which DDP's mean of gradients makes right."""
    if not _in_company():
        return part
    total: Tensor = all_reduce(part)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return total


class MaskedBatchNorm(nn.Module):
    """Batch norm whose training statistics leave padding out, so that the lengths of batch mates never change them.

    Between a short and a long utterance most of a batch is padding; counted in, it would make the statistics of
    training differ from what evaluation meets. Processes that train together share statistics, as each sees a part of
    the batch alone; all of them must then call this equally often.

    Args:
        channels: C.
        momentum: Weight of a batch in the running statistics.
        epsilon: Added to variances.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))

    def forward(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Normalise ``maps`` [B, C, F, T], in training with the statistics of frames under ``mask`` [B, T]."""
        # torch's own is faster, and right where there is no padding; a CPU can ask for that without waiting. It knows
        # nothing of other processes, though, all of which must go the same way whatever their utterances' lengths.
        all_real = mask.device.type == "cpu" and mask.numel() > 1 and bool(mask.all())
        if self.training and (_in_company() or not all_real):
            return self._normalise_real_frames(maps, mask)
        return F.batch_norm(
            maps,
            self.running_mean,
            self.running_variance,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.epsilon,
        )

    def _normalise_real_frames(self, maps: Tensor, mask: Tensor) -> Tensor:
        maps = maps.to(self.weight.dtype)  # sums in half precision would be too coarse
        past_the_end = ~mask[:, None, None]
        count = _over_processes(mask.sum() * maps.shape[2])
        mean = _over_processes(maps.masked_fill(past_the_end, 0.0).sum((0, 2, 3))) / count
        deviations = (maps - mean[:, None, None]).masked_fill(past_the_end, 0.0)
        variance = _over_processes(deviations.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        scale = self.weight * (variance + self.epsilon).rsqrt()
        return deviations * scale[:, None, None] + self.bias[:, None, None]
