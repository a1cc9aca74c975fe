"""Padded batches of frames: datasets, and feature extraction on the device."""
# Shapes: N utterances, B of a batch, S samples (padded), T frames (padded), F features, C classes.

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ser_lightning.data.protocols import Protocol
from ser_lightning.data.samplers import BucketBatchSampler, ClassBatchSampler, EvaluationBatchSampler, RandomCrops
from ser_lightning.errors import ProtocolError
from ser_lightning.features import FeatureExtractor
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
        with torch.no_grad():
            frames, lengths = self.device(batch.inputs.squeeze(2), batch.lengths)
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

    def _crop(self, position: int, place: float) -> Tensor:
        whole = self.frames[position]
        if self.crop_frames is None or self.crop_samples is None or self.num_frames[position] <= self.crop_frames:
            return whole
        start = math.floor(place * (self.num_frames[position] - self.crop_frames + 1)) * self.hop_length
        return whole[start : start + self.crop_samples]


BatchSampler = BucketBatchSampler | ClassBatchSampler | RandomCrops | EvaluationBatchSampler


def rank_and_world_size(module: "LightningDataModule") -> tuple[int, int]:
    """Return the rank of this process and the number of processes that train with ``module``."""
    return (module.trainer.global_rank, module.trainer.world_size) if module.trainer else (0, 1)


def pins_memory(module: "LightningDataModule") -> bool:
    """Return whether batches of ``module`` are copied to a GPU."""
    return module.trainer is not None and module.trainer.strategy.root_device.type == "cuda"


def check_has_test_set(protocol: Protocol) -> None:
    """Reject testing under a protocol without test sets.

    Raises:
        ProtocolError: Naming the protocol.
    """
    if not protocol.has_test_set:
        raise ProtocolError(
            f"{protocol.name}: nothing is tested (the protocol is for pre-training); use ser validate, or another "
            "protocol"
        )
