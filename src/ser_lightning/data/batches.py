"""Padded batches of utterances' frames, which are memory-mapped or held on the training device."""
# Shapes: N utterances, B of a batch, T frames (padded), F features, C classes.

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ser_lightning.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule


class HeldFrames:
    """Frames of all utterances in one tensor on a device, from which batches are gathered without a sync.

    Args:
        frames: Frames [T, F] of each utterance; they keep their dtype.
        device: The device.
    """

    def __init__(self, frames: Sequence[Tensor], device: torch.device) -> None:
        *self.starts, end = itertools.accumulate(map(len, frames), initial=0)
        self.device = device
        # The last row is zero: padding.
        self.rows = torch.zeros(end + 1, frames[0].shape[1], dtype=frames[0].dtype, device=device)
        for start, utterance in zip(self.starts, frames, strict=True):
            self.rows[start : start + len(utterance)].copy_(utterance)

    def move(self, table: Tensor) -> Tensor:
        """Return a ``table`` of the CPU on the device; a copy from page-locked memory does not wait for the GPU."""
        pinned = self.device.type == "cuda"
        return (table.pin_memory() if pinned else table).to(self.device, non_blocking=pinned)

    def gather(self, starts: Tensor, lengths: Tensor, longest: int) -> Tensor:
        """Return the rows [B, T, F] from each of ``starts`` [B], zero after ``lengths`` [B]; T is ``longest``."""
        steps = torch.arange(longest, device=self.device)
        rows = (starts[:, None] + steps).masked_fill_(steps >= lengths[:, None], len(self.rows) - 1)
        return self.rows.index_select(0, rows.flatten()).view(*rows.shape, -1)


class FrameDataset(Dataset[Batch]):
    """Frames of utterances, memory-mapped or held on the training device, returned as whole batches.

    Attributes:
        num_frames: Frames of each utterance, also before they are extracted.
        num_bytes: Size of all frames.
        held: The frames on the training device; None if they are only memory-mapped.

    Args:
        frames: Frames [T, F] of each utterance; batches are float32.
        labels: Class index of each utterance's dominant emotion; -1 if there is none.
        targets: Training targets [N, C].
        crop_frames: Frames of a crop; None leaves every utterance whole.
    """

    def __init__(
        self, frames: Sequence[Tensor], labels: Sequence[int], targets: Tensor, crop_frames: int | None = None
    ) -> None:
        self.frames = frames
        self.crop_frames = crop_frames
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.targets = targets
        self.lengths = torch.tensor([utterance.shape[0] for utterance in frames], dtype=torch.int64)
        self.num_frames: list[int] = self.lengths.tolist()
        self.num_bytes = sum(utterance.nbytes for utterance in frames)
        self.held: HeldFrames | None = None

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.frames)

    def hold(self, device: torch.device) -> None:
        """Copy everything to ``device``: batches are then made there, equal to those of memory-mapped frames."""
        self.held = HeldFrames(self.frames, device)
        self.labels, self.targets = self.labels.to(device), self.targets.to(device)

    def __getitems__(self, items: Sequence[int | tuple[int, float]]) -> Batch:
        """Return the utterances of ``items`` as one batch; torch's DataLoader calls this for a batch sampler.

        Args:
            items: Positions of utterances, returned whole, or positions with the relative start of a crop in [0, 1).
                Utterances no longer than a crop are returned whole.
        """
        spans = [self._crop(*item) if isinstance(item, tuple) else (item, 0, len(self.frames[item])) for item in items]
        if self.held is None:
            inputs = pad_sequence([self._read(*span) for span in spans], batch_first=True)
            positions, _, lengths = _columns(spans)
        else:
            rows = [(position, self.held.starts[position] + start, length) for position, start, length in spans]
            positions, starts, lengths = self.held.move(_columns(rows))
            inputs = self.held.gather(starts, lengths, longest=max(length for _, _, length in spans))
        return Batch(inputs.float(), lengths, self.labels[positions], self.targets[positions], positions)

    def _crop(self, position: int, place: float) -> tuple[int, int, int]:
        """Return position, start and length of the crop that begins at fraction ``place`` of the possible starts."""
        length = len(self.frames[position])
        if self.crop_frames is None or length <= self.crop_frames:
            return position, 0, length
        return position, math.floor(place * (length - self.crop_frames + 1)), self.crop_frames

    def _read(self, position: int, start: int, length: int) -> Tensor:
        whole = self.frames[position]
        return whole if length == len(whole) else whole[start : start + length]  # slicing takes as long as a short clip

    def __getitem__(self, index: int) -> Batch:
        """Return one utterance as a batch of one."""
        return self.__getitems__([index])


def _columns(rows: Sequence[tuple[int, int, int]]) -> Tensor:
    """Return the columns [3, B] of B rows."""
    return torch.tensor(rows).T.contiguous()


def keep_batch(batch: Any) -> Any:
    """Return ``batch`` unchanged: the dataset already returns whole batches."""
    return batch


def rank_and_world_size(module: "LightningDataModule") -> tuple[int, int]:
    """Return the rank of this process and the number of processes that train with ``module``."""
    return (module.trainer.global_rank, module.trainer.world_size) if module.trainer else (0, 1)


def training_device(module: "LightningDataModule") -> torch.device:
    """Return the device that trains with ``module``: the CPU without a trainer."""
    return module.trainer.strategy.root_device if module.trainer else torch.device("cpu")
