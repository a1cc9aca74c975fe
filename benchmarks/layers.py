"""Layers against their usual implementations: forward and backward, one core."""
# Shapes: B utterances, T frames (padded), F features, D channels, K clusters, G ghost clusters, H cells.

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.row import Row, compare, peak_mebibytes_of, row_of
from ser_lightning.nn.pooling import GhostVLAD
from ser_lightning.nn.tensors import frame_mask

REPETITIONS = 9


def rows() -> list[Row]:
    """Return the rows of the LSTM, and of NetVLAD and GhostVLAD in time and memory."""
    return [
        lstm_row(),
        vlad_time_row(NETVLAD, 0.5, REPETITIONS),
        vlad_memory_row(NETVLAD, 0.25),
        vlad_time_row(GHOST_VLAD, 0.5, 3),
        vlad_memory_row(GHOST_VLAD, 0.2),
    ]


def lstm_row() -> Row:
    """Compare an LSTM on a padded batch of 16 utterances with one on a packed sequence."""
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


@dataclass(frozen=True)
class VLADSize:
    """Numbers of utterances B, frames T, channels D, clusters K and ghost clusters G."""

    utterances: int
    frames: int
    channels: int
    clusters: int
    ghosts: int = 0

    def __str__(self) -> str:
        ghosts = f", G {self.ghosts}" if self.ghosts else ""
        return f"B {self.utterances}, T {self.frames}, K {self.clusters}{ghosts}, D {self.channels}"

    @property
    def name(self) -> str:
        """Name of the layer."""
        return "GhostVLAD" if self.ghosts else "NetVLAD"

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return f"{self.name} with residuals [B, T, K, D]"


NETVLAD = VLADSize(utterances=32, frames=1000, channels=64, clusters=8)
GHOST_VLAD = VLADSize(utterances=32, frames=1000, channels=512, clusters=8, ghosts=2)


class NaiveVLAD(GhostVLAD):
    """VLAD written as eq. 1: all residuals [B, T, K, D], then their weighted sum."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Aggregate ``frames`` [B, T, D] under ``mask`` [B, T] to [B, K * D]."""
        assignment = self.assign(frames, mask)[:, :, : self.clusters]
        residuals = frames.unsqueeze(2) - self.centres
        rows = (assignment.unsqueeze(3) * residuals).sum(1)
        return F.normalize(F.normalize(rows, dim=2).flatten(1), dim=1)


class Step:
    """A forward and a backward pass of a pooling on random frames.

    Args:
        size: Sizes of batch and layer.
        naive: Whether to use ``NaiveVLAD``.
    """

    def __init__(self, size: VLADSize, naive: bool) -> None:
        torch.manual_seed(0)
        self.pooling = (NaiveVLAD if naive else GhostVLAD)(size.channels, size.clusters, size.ghosts)
        self.frames = torch.randn(size.utterances, size.frames, size.channels, requires_grad=True)
        lengths = torch.linspace(size.frames // 2, size.frames, size.utterances).long()
        self.mask = frame_mask(lengths, size.frames)
        self.direction = torch.randn(size.clusters * size.channels)

    def __call__(self) -> Tensor:
        """Return the pooled vectors [B, K * D]; gradients are left in ``frames``."""
        self.pooling.zero_grad()
        self.frames.grad = None
        pooled: Tensor = self.pooling(self.frames, self.mask)
        torch.autograd.backward((pooled @ self.direction).sum())
        return pooled.detach()


def vlad_time_row(size: VLADSize, bound: float, repetitions: int) -> Row:
    """Compare the time of a step."""
    ours, naive = Step(size, naive=False), Step(size, naive=True)
    torch.testing.assert_close(ours(), naive(), atol=1e-5, rtol=1e-4)
    return compare(f"{size.name}, time ({size})", size.reference, ours, naive, bound, repetitions)


def vlad_memory_row(size: VLADSize, bound: float) -> Row:
    """Compare the peak memory of a step beyond its input, measured in fresh processes."""
    pairs = [(_in_fresh_process(size, naive=False), _in_fresh_process(size, naive=True)) for _ in range(3)]
    return row_of(f"{size.name}, peak memory ({size})", size.reference, pairs, bound, "MiB")


def _in_fresh_process(size: VLADSize, naive: bool) -> float:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_mebibytes, size, naive).result()


def peak_mebibytes(size: VLADSize, naive: bool) -> float:
    """Return the increase of this process's peak resident memory during a step, in MiB."""
    torch.set_num_threads(1)
    Step(replace(size, frames=10), naive)()  # load and allocate what does not belong to a step
    return peak_mebibytes_of(Step(size, naive))
