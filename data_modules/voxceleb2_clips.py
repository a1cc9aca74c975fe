"""Crops of clips as batches, read by the loader's processes while the device learns."""
# Shapes: B utterances, N samples (padded), C speakers.

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from data_modules.voxceleb2_index import ClipIndex
from ser_lightning.audio import read_crop
from ser_lightning.errors import AudioError
from ser_lightning.features import FeatureExtractor
from ser_lightning.types import Batch

Problems = Mapping[Path, str]


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """A batch, and what was wrong on the way to it.

    Attributes:
        batch: Waveforms [B, N, 1] and their speakers; None if a problem stands in the way.
        problems: Reason by file.
    """

    batch: Batch | None
    problems: Problems

    def pin_memory(self) -> "ClipBatch":
        """Return it in page-locked memory; torch's DataLoader calls this."""
        return ClipBatch(self.batch and self.batch.pin_memory(), self.problems)


class ClipDataset(Dataset[ClipBatch]):
    """Crops of clips, given out as whole batches.

    Args:
        index: Which clips there are.
        clips: Those of the set.
        stored: Makes of a crop what is handed on: a waveform, without silence if the extractor cuts that.
        num_samples: Length of a crop; shorter clips are taken whole.
        replaces_bad: Whether another clip of the same speaker stands in for one that cannot be used.
    """

    def __init__(
        self,
        index: ClipIndex,
        clips: NDArray[np.int64],
        stored: FeatureExtractor,
        num_samples: int,
        replaces_bad: bool,
    ) -> None:
        self.index = index
        self.clips = clips
        self.stored = stored
        self.num_samples = num_samples
        self.replaces_bad = replaces_bad

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitems__(self, items: Sequence[int | tuple[int, float]]) -> ClipBatch:
        """Return one batch; torch's DataLoader calls this for a batch sampler.

        Args:
            items: Positions in the set, each with the place of its crop from 0 to 1; in the middle if left out.
        """
        problems: dict[Path, str] = {}
        waveforms: list[Tensor] = []
        places = [item if isinstance(item, tuple) else (item, 0.5) for item in items]
        for position, place in places:
            waveform = self._crop(position, place, problems)
            if waveform is None:
                return ClipBatch(None, problems)
            waveforms.append(waveform)
        positions = torch.tensor([position for position, _ in places])
        labels = torch.tensor([self.index.speaker(int(self.clips[position])) for position, _ in places])
        batch = Batch(
            inputs=pad_sequence(waveforms, batch_first=True),
            lengths=torch.tensor([len(waveform) for waveform in waveforms]),
            labels=labels,
            targets=one_hot(labels, len(self.index.speakers)).float(),
            indices=positions,
        )
        return ClipBatch(batch, problems)

    def _crop(self, position: int, place: float, problems: dict[Path, str]) -> Tensor | None:
        """Return a crop [N, 1] of the clip at ``position`` or of one that may stand in for it."""
        for clip in self._candidates(position):
            try:
                return self.crop(clip, place)
            except AudioError as error:
                problems |= error.problems
        return None

    def crop(self, clip: int, place: float) -> Tensor:
        """Return a crop [N, 1] of a clip of the index.

        Raises:
            AudioError: If the file cannot be used.
        """
        waveform = read_crop(self.index.path(clip), self.stored.sample_rate_hz, self.num_samples, place)
        with torch.no_grad():
            frames, lengths = self.stored(waveform[None], torch.tensor([len(waveform)]))
        crop: Tensor = frames[0, : int(lengths[0])]
        return crop

    def _candidates(self, position: int) -> Iterator[int]:
        clip = int(self.clips[position])
        yield clip
        if self.replaces_bad:
            everyone = self.index.clips_of(self.index.speaker(clip))
            first, last = np.searchsorted(self.clips, [everyone.start, everyone.stop])
            for step in range(1, last - first):
                yield int(self.clips[first + (position - first + step) % (last - first)])


class ClipLoader(DataLoader[ClipBatch]):
    """A loader that reports what was wrong with files in the process that asked for the batch, not in a worker."""

    report: Callable[[Problems], None]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # what is wrong is reported, not handed on
        """Yield batches.

        Raises:
            AudioError: If a file cannot be used and no other may stand in for it.
        """
        for item in super().__iter__():
            if item.batch is None:
                raise AudioError(item.problems)
            if item.problems:
                self.report(item.problems)
            yield item.batch
