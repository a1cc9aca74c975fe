"""Padded batches of frames of utterances in memory."""
# Shapes: N utterances, T frames (padded), F features, C classes.

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


class FrameDataset(Dataset[Batch]):
    """Frames of utterances, in memory or memory-mapped, returned as whole batches.

    Attributes:
        num_frames: Frames of each utterance, also before they are extracted.

    Args:
        frames: Frames [T, F] of each utterance.
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

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.frames)

    def __getitems__(self, items: Sequence[int | tuple[int, float]]) -> Batch:
        """Return the utterances of ``items`` as one batch; torch's DataLoader calls this for a batch sampler.

        Args:
            items: Positions of utterances, returned whole, or positions with the relative start of a crop in [0, 1).
                Utterances no longer than a crop are returned whole.
        """
        frames = [self._crop(*item) if isinstance(item, tuple) else self.frames[item] for item in items]
        positions = torch.tensor([item[0] if isinstance(item, tuple) else item for item in items], dtype=torch.int64)
        return Batch(
            inputs=pad_sequence(frames, batch_first=True),
            lengths=torch.tensor([len(utterance) for utterance in frames], dtype=torch.int64),
            labels=self.labels[positions],
            targets=self.targets[positions],
            indices=positions,
        )

    def _crop(self, position: int, place: float) -> Tensor:
        """Return the crop of an utterance that begins at fraction ``place`` of the possible starts."""
        whole = self.frames[position]
        if self.crop_frames is None or len(whole) <= self.crop_frames:
            return whole
        start = math.floor(place * (len(whole) - self.crop_frames + 1))
        return whole[start : start + self.crop_frames]

    def __getitem__(self, index: int) -> Batch:
        """Return one utterance as a batch of one."""
        return self.__getitems__([index])


def keep_batch(batch: Any) -> Any:
    """Return ``batch`` unchanged: the dataset already returns whole batches."""
    return batch


def rank_and_world_size(module: "LightningDataModule") -> tuple[int, int]:
    """Return the rank of this process and the number of processes that train with ``module``."""
    return (module.trainer.global_rank, module.trainer.world_size) if module.trainer else (0, 1)


def pins_memory(module: "LightningDataModule") -> bool:
    """Return whether batches of ``module`` are copied to a GPU."""
    return module.trainer is not None and module.trainer.strategy.root_device.type == "cuda"
