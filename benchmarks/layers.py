"""Parts of a network against how they are usually written: forward and backward, one core."""
# Shapes: B utterances, T frames (padded), F features, D channels, K clusters, H cells.

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.row import Row, compare, row_of
from ser_lightning.nn.masking import frame_mask
from ser_lightning.nn.pooling import NetVLAD

NUM_UTTERANCES, NUM_FRAMES, NUM_CHANNELS, NUM_CLUSTERS = 32, 1000, 64, 8
REPETITIONS = 9
MEMORY_REPETITIONS = 3


def rows() -> list[Row]:
    """Return the rows of the LSTM and of NetVLAD, in time and in memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [lstm_row(), vlad_time_row(), vlad_memory_row()]
    finally:
        torch.set_num_threads(threads)


def lstm_row() -> Row:
    """Compare an LSTM on a padded batch of 16 utterances with the same on a packed one."""
    torch.manual_seed(0)
    lstm = nn.LSTM(40, 64, batch_first=True)
    lengths = torch.linspace(140, 280, 16).long()
    frames = torch.randn(16, 280, 40)
    mask = frame_mask(lengths, 280).unsqueeze(2)

    def padded() -> Tensor:
        return train(lstm(frames)[0] * mask)

    def packed() -> Tensor:
        states = lstm(pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False))[0]
        return train(pad_packed_sequence(states, batch_first=True)[0])

    def train(states: Tensor) -> Tensor:
        lstm.zero_grad()
        torch.autograd.backward(states.square().sum())
        return states.detach()

    torch.testing.assert_close(padded(), packed())
    return compare("LSTM, 16 padded utterances", "nn.LSTM on a packed sequence", padded, packed, 0.5, REPETITIONS)


class NaiveNetVLAD(NetVLAD):
    """NetVLAD as eq. 1 reads: every residual of every frame, [B, T, K, D], then their weighted sum."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Aggregate ``frames`` [B, T, D] under ``mask`` [B, T] to [B, K * D]."""
        assignment = self.assignment(frames).softmax(2) * mask.unsqueeze(2)
        residuals = frames.unsqueeze(2) - self.centres
        rows = (assignment.unsqueeze(3) * residuals).sum(1)
        return F.normalize(F.normalize(rows, dim=2).flatten(1), dim=1)


class Step:
    """A forward and a backward pass of a pooling on random frames.

    Args:
        naive: Whether to build the residuals.
        num_frames: T.
    """

    def __init__(self, naive: bool, num_frames: int = NUM_FRAMES) -> None:
        torch.manual_seed(0)
        self.pooling = (NaiveNetVLAD if naive else NetVLAD)(NUM_CHANNELS, NUM_CLUSTERS)
        self.frames = torch.randn(NUM_UTTERANCES, num_frames, NUM_CHANNELS, requires_grad=True)
        lengths = torch.linspace(num_frames // 2, num_frames, NUM_UTTERANCES).long()
        self.mask = frame_mask(lengths, num_frames)
        self.direction = torch.randn(NUM_CLUSTERS * NUM_CHANNELS)

    def __call__(self) -> Tensor:
        """Return the pooled vectors [B, K * D]; gradients are left in ``frames``."""
        self.pooling.zero_grad()
        self.frames.grad = None
        pooled: Tensor = self.pooling(self.frames, self.mask)
        torch.autograd.backward((pooled @ self.direction).sum())
        return pooled.detach()


def vlad_time_row() -> Row:
    """Compare the time of a step."""
    ours, naive = Step(naive=False), Step(naive=True)
    torch.testing.assert_close(ours(), naive(), atol=1e-5, rtol=1e-4)
    return compare(_vlad_name("time"), "NetVLAD with residuals [B, T, K, D]", ours, naive, 0.5, REPETITIONS)


def vlad_memory_row() -> Row:
    """Compare the memory that a step needs at most, beyond its input; each measured in a fresh process."""
    pairs = [(_in_fresh_process(naive=False), _in_fresh_process(naive=True)) for _ in range(MEMORY_REPETITIONS)]
    reference = "NetVLAD with residuals [B, T, K, D]"
    return row_of(_vlad_name("peak memory"), reference, pairs, 0.25, "MiB")


def _vlad_name(measure: str) -> str:
    return f"NetVLAD, {measure} (B {NUM_UTTERANCES}, T {NUM_FRAMES}, K {NUM_CLUSTERS}, D {NUM_CHANNELS})"


def _in_fresh_process(naive: bool) -> float:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_mebibytes, naive).result()


def peak_mebibytes(naive: bool) -> float:
    """Return by how much a step raises this process's resident memory at its height."""
    torch.set_num_threads(1)
    Step(naive, num_frames=10)()  # what is loaded and allocated once is no part of a step
    step = Step(naive)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew from what is resident now
    before = _status_mebibytes("VmRSS")
    step()
    return _status_mebibytes("VmHWM") - before


def _status_mebibytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))
