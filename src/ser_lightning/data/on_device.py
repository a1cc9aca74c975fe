"""Batches whose frames are extracted on the training device: waveforms, and the extractor that runs there."""
# Shapes: N utterances or samples (padded), B of a batch, T frames (padded), F features, C classes.

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.data.batches import FrameDataset
from ser_lightning.features import FeatureExtractor
from ser_lightning.types import Batch


def common_length(samples: int) -> int:
    """Return the next of eight lengths per octave: a GPU plans the Fourier transforms of each length anew."""
    step = max(1, 1 << (samples.bit_length() - 4))
    return -(-samples // step) * step


class DeviceFrames:
    """An extractor in two parts: one whose waveforms are stored or read, and one that runs on the device.

    Attributes:
        stored: The first part, which gives waveforms.
        device: The second part, a copy that moves to the batches' device.

    Args:
        extractor: The whole extractor.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.stored, device = extractor.split_for_device()
        # A copy, because the extractor itself stays on the CPU.
        self.device = copy.deepcopy(device).eval()

    def make(self, batch: Batch) -> Batch:
        """Return ``batch`` with frames [B, T, F] in place of waveforms [B, N, 1], on its device, without a sync."""
        self.device.to(batch.inputs.device)
        waveforms = batch.inputs.squeeze(2)
        longest = waveforms.shape[1]
        frames_of_longest = int(self.device.num_frames(torch.tensor([longest])))
        with torch.no_grad():
            frames, lengths = self.device(F.pad(waveforms, (0, common_length(longest) - longest)), batch.lengths)
        frames = frames[:, :frames_of_longest].contiguous()
        return replace(batch, inputs=frames.to(batch.inputs.dtype), lengths=lengths)

    def make_each(self, waveforms: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the frames [T, F] of each of ``waveforms`` [N, 1], on the CPU."""
        device = copy.deepcopy(self.device).cpu()
        for waveform in waveforms:
            with torch.no_grad():
                frames, lengths = device(waveform.squeeze(1)[None], torch.tensor([len(waveform)]))
            yield frames[0, : int(lengths[0])]


class WaveformDataset(FrameDataset):
    """Waveforms of utterances; the frames of a crop equal a crop of ``FrameDataset``.

    Args:
        waveforms: Waveform [N, 1] of each utterance.
        labels: Class index of each utterance's dominant emotion; -1 if there is none.
        targets: Training targets [N, C].
        device: The extractor that runs on the device.
        crop_frames: Frames of a crop; None leaves every utterance whole.
    """

    def __init__(
        self,
        waveforms: Sequence[Tensor],
        labels: Sequence[int],
        targets: Tensor,
        device: FeatureExtractor,
        crop_frames: int | None = None,
    ) -> None:
        super().__init__(waveforms, labels, targets, crop_frames)
        self.num_frames = device.num_frames(self.lengths).tolist()
        self.hop_length = device.hop_length
        self.crop_samples = 0 if crop_frames is None else device.num_samples(crop_frames)

    def _crop(self, position: int, place: float) -> tuple[int, int, int]:
        samples = len(self.frames[position])
        if self.crop_frames is None or self.crop_samples is None or self.num_frames[position] <= self.crop_frames:
            return position, 0, samples
        start = math.floor(place * (self.num_frames[position] - self.crop_frames + 1)) * self.hop_length
        return position, start, min(self.crop_samples, samples - start)
