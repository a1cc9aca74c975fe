"""A device without values: tensors of any size have shapes, take no time, and cannot be read.

Code takes the branches that no CPU takes. Any use of a value that only the device knows fails, and so does a copy that
waits for it. The device stands for a GPU in tests and sizes; kernels of CUDA alone need the real one.
"""
# Shapes: B utterances, C channels, F bins, T frames, H cells.

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.library import _scoped_library
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class _RefuseCopies(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _COPIES and not kwargs.get("non_blocking") and not (len(args) > 2 and args[2]):
            devices = {value.device.type for value in (*args, result) if isinstance(value, Tensor)}
            if len(devices) > 1:
                raise RuntimeError(f"{func} copies between {' and '.join(sorted(devices))}, and waits")
        return result


class _RefuseConstants(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and result.is_meta and not isinstance(args[0], Tensor):
            raise RuntimeError(f"{func.__name__} copies Python's numbers to the device, and waits")
        return result


@contextmanager
def refuse_waits() -> Iterator[None]:
    """Fail where a copy between host and device waits, as ``torch.cuda.set_sync_debug_mode("error")`` does on a GPU."""
    with _RefuseCopies(), _RefuseConstants():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        yield


def _statistics(maps: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """Return two statistics [C] of ``maps`` [B, C, F, T], where torch's operator knows no shapes."""
    statistic = maps.new_empty(maps.shape[1])
    return statistic, torch.empty_like(statistic)


def _lstm(
    frames: Tensor, initial: tuple[Tensor, Tensor], weights: tuple[Tensor, ...], *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shapes of an LSTM layer's states [B, T, H], and keep for backward what cuDNN keeps of each step.

    Step by step, as torch does where there is no cuDNN, a long batch takes a minute.
    """
    into_gates, recurrent, *biases = weights
    opened = F.linear(frames, into_gates, biases[0]) + F.linear(initial[0][0], recurrent, biases[1]).unsqueeze(1)
    enter, forget, candidate, leave = opened.chunk(4, 2)
    cells = enter.sigmoid() * candidate.tanh() + forget.sigmoid()
    return leave.sigmoid() * cells.tanh(), *initial


@contextmanager
def simulated_device() -> Iterator[torch.device]:
    """Yield torch's meta device, with what systems need and it lacks."""
    with (
        _scoped_library("aten", "IMPL") as library,
        patch("torch._VF.lstm", _lstm),
        patch("torch.is_autocast_enabled", return_value=False),  # the device has no autocast
        patch("torch.autocast", lambda *_, **__: nullcontext()),
    ):
        library.impl("batch_norm_update_stats", _statistics, "Meta")
        yield torch.device("meta")
