"""Utterances as padded batches of frames."""
# Shapes: N utterances, B of a batch, T frames (padded), F features, C classes.

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ser_lightning.types import Batch


class FrameDataset(Dataset[Batch]):
    """Frames of utterances in memory or memory-mapped, given out as whole batches.

    Args:
        frames: Frames [T, F] of each utterance.
        labels: Class index of each utterance's dominant emotion, -1 where there is none.
        targets: What is learned from, of each utterance [N, C].
        crop_frames: Frames of a crop of what is asked for with a place; None leaves every utterance whole.
    """

    def __init__(
        self, frames: Sequence[Tensor], labels: Sequence[int], targets: Tensor, crop_frames: int | None = None
    ) -> None:
        self.frames = frames
        self.crop_frames = crop_frames
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.targets = targets
        self.lengths = torch.tensor([utterance.shape[0] for utterance in frames], dtype=torch.int64)

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.frames)

    def __getitems__(self, items: Sequence[int | tuple[int, float]]) -> Batch:
        """Return the utterances of ``items`` as one batch; torch's DataLoader calls this for a batch sampler.

        Args:
            items: Positions of utterances that are given out whole, or positions with the place of a crop, from 0 to
                below 1. Utterances that are no longer than a crop are whole all the same.
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
        """Return the stretch of an utterance that begins at ``place`` of where it can begin."""
        whole = self.frames[position]
        if self.crop_frames is None or len(whole) <= self.crop_frames:
            return whole
        start = math.floor(place * (len(whole) - self.crop_frames + 1))
        return whole[start : start + self.crop_frames]

    def __getitem__(self, index: int) -> Batch:
        """Return one utterance as a batch of one."""
        return self.__getitems__([index])


def keep_batch(batch: Any) -> Any:
    """Collate nothing: the dataset already gives whole batches."""
    return batch
