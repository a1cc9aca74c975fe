"""Utterances as padded batches of frames."""
# Shapes: N utterances, B of a batch, T frames (padded), F features, C classes.

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
    """

    def __init__(self, frames: Sequence[Tensor], labels: Sequence[int], targets: Tensor) -> None:
        self.frames = frames
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.targets = targets
        self.lengths = torch.tensor([utterance.shape[0] for utterance in frames], dtype=torch.int64)

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.frames)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the utterances at ``indices`` as one batch; torch's DataLoader calls this for a batch sampler."""
        positions = torch.tensor(indices, dtype=torch.int64)
        return Batch(
            inputs=pad_sequence([self.frames[index] for index in indices], batch_first=True),
            lengths=self.lengths[positions],
            labels=self.labels[positions],
            targets=self.targets[positions],
            indices=positions,
        )

    def __getitem__(self, index: int) -> Batch:
        """Return one utterance as a batch of one."""
        return self.__getitems__([index])


def keep_batch(batch: Any) -> Any:
    """Collate nothing: the dataset already gives whole batches."""
    return batch
