"""Train and validation clips of VoxCeleb2, and their loading."""

import hashlib

# Shapes: B utterances, N samples (padded), C speakers.
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from data_modules.voxceleb2_index import ClipIndex
from ser_lightning.audio import read_crop
from ser_lightning.data.held_out import HeldOutClips, ListedClips
from ser_lightning.errors import AudioError
from ser_lightning.features import FeatureExtractor
from ser_lightning.files import locked, write_atomically
from ser_lightning.types import Batch, Stage, Utterance

_THREADS = 16  # mostly waiting for the disk


class Clips(Sequence[Utterance]):
    """Clips of an index as lazily created utterances.

    Args:
        source: The index.
        positions: Positions of the clips in the index.
    """

    def __init__(self, source: ClipIndex, positions: NDArray[np.int64]) -> None:
        self.source = source
        self.positions = positions

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.positions)

    @overload
    def __getitem__(self, position: int) -> Utterance: ...
    @overload
    def __getitem__(self, position: slice) -> "Clips": ...
    def __getitem__(self, position: int | slice) -> "Utterance | Clips":
        """Return a clip as an utterance, or a slice of the clips."""
        if isinstance(position, slice):
            return Clips(self.source, self.positions[position])
        return self.source.utterance(int(self.positions[position]))

    def counts(self) -> NDArray[np.int64]:
        """Return the number of clips of each speaker of the index [S]."""
        borders = np.searchsorted(self.positions, self.source.first_clips).astype(np.int64)
        return borders[1:] - borders[:-1]


@dataclass(frozen=True, slots=True)
class ClipSplit:
    """The one fold: a ``Split`` with lazily created utterances.

    Attributes:
        fold: 0.
        train: Clips to train on.
        validation: Clips to select the checkpoint by.
        test: Empty.
    """

    fold: int
    train: Clips
    validation: Clips
    test: Clips

    def of(self, stage: Stage) -> Clips:
        """Return the clips of ``stage``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[stage]

    def speakers(self, stage: Stage) -> tuple[str, ...]:
        """Return the sorted speakers of ``stage``."""
        clips = self.of(stage)
        return tuple(name for name, count in zip(clips.source.speakers, clips.counts(), strict=True) if count)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the names of all clips and of the validation clips."""
        index = self.validation.source
        lines = [index.digest, *(index.name(int(clip)) for clip in self.validation.positions)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def held_out(
    index: ClipIndex,
    protocol: HeldOutClips | ListedClips,
    folder: Path,
    sample_rate_hz: int,
    num_samples: int,
    on_bad_audio: Literal["stop", "skip"],
) -> tuple[NDArray[np.int64], dict[Path, str]]:
    """Return the sorted validation clips.

    Drawn clips are decoded once and listed in ``validation_list-*.txt`` in ``folder``, so that unusable ones are found
    before training, and all checkpoints are compared on the same clips.

    Args:
        index: All clips.
        protocol: The protocol.
        folder: Folder of the list.
        sample_rate_hz: Sampling rate of the evaluation crop.
        num_samples: Length of the evaluation crop.
        on_bad_audio: Whether an unusable clip is an error, or the speaker's next one is drawn.

    Returns:
        Positions in ``index``, and the reason by skipped file.

    Raises:
        AudioError: If a drawn clip is unusable and ``on_bad_audio`` is ``stop``, or a speaker has too few usable ones.
        ProtocolError: If a speaker has too few clips, or a list names an unknown one.
    """
    if isinstance(protocol, ListedClips):
        return _listed(index, protocol), {}
    key = hashlib.sha256(f"{index.digest} {num_samples} {on_bad_audio}".encode()).hexdigest()[:6]
    path = folder / f"validation_list-{protocol.clips_per_speaker}-of-each-seed-{protocol.seed}-{key}.txt"
    skipped: dict[Path, str] = {}
    if not path.exists():
        with locked(folder / "lock"):
            if not path.exists():
                clips, skipped = _draw(index, protocol, sample_rate_hz, num_samples, on_bad_audio)
                write_atomically(path, "".join(f"{index.relative_path(clip)}\n" for clip in clips).encode())
    return _listed(index, ListedClips(path)), skipped


def _listed(index: ClipIndex, protocol: ListedClips) -> NDArray[np.int64]:
    lines = protocol.listed()
    clips = index.find(lines)
    for line, clip in zip(lines, clips, strict=True):
        if clip is None:
            raise protocol.unknown(line)
    return np.unique(np.array(clips, np.int64))


def _draw(
    index: ClipIndex,
    protocol: HeldOutClips,
    sample_rate_hz: int,
    num_samples: int,
    on_bad_audio: Literal["stop", "skip"],
) -> tuple[Sequence[int], dict[Path, str]]:
    def draw(speaker: int) -> tuple[list[int], dict[Path, str]]:
        clips = index.clips_of(speaker)
        order = protocol.draw(index.speakers[speaker], [index.name(clip) for clip in clips])
        drawn: list[int] = []
        problems: dict[Path, str] = {}
        for position in order:
            try:
                read_crop(index.path(clips[position]), sample_rate_hz, num_samples, 0.5)
                drawn.append(clips[position])
            except AudioError as error:
                problems |= error.problems
            if len(drawn) == protocol.clips_per_speaker or (problems and on_bad_audio == "stop"):
                break
        else:
            raise AudioError(problems)
        return drawn, problems

    with ThreadPoolExecutor(_THREADS) as threads:
        results = list(threads.map(draw, range(len(index.speakers))))
    problems = {path: reason for _, found in results for path, reason in found.items()}
    if problems and on_bad_audio == "stop":
        raise AudioError(problems)
    return [clip for drawn, _ in results for clip in drawn], problems


Problems = Mapping[Path, str]


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """A batch, and the unusable files met while reading it.

    Attributes:
        batch: Waveforms [B, N, 1] and their speakers; None if a clip is unusable and has no replacement.
        problems: Reason by file.
    """

    batch: Batch | None
    problems: Problems

    def pin_memory(self) -> "ClipBatch":
        """Return it in page-locked memory; torch's DataLoader calls this."""
        return ClipBatch(self.batch and self.batch.pin_memory(), self.problems)


class ClipDataset(Dataset[ClipBatch]):
    """Crops of clips, returned as whole batches.

    Args:
        index: All clips.
        clips: Clips of the set.
        stored: The extractor's stored part: crop to waveform, without silence if the extractor removes it.
        num_samples: Length of a crop; shorter clips stay whole.
        replaces_bad: Whether another clip of the same speaker replaces an unusable one.
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
            items: Positions in the set, each with the relative start of its crop, 0 to 1; by default the middle.
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
        """Return a crop [N, 1] of the clip at ``position`` or of a replacement."""
        for clip in self._candidates(position):
            try:
                return self.crop(clip, place)
            except AudioError as error:
                problems |= error.problems
        return None

    def crop(self, clip: int, place: float) -> Tensor:
        """Return a crop [N, 1] of a clip of the index.

        Raises:
            AudioError: If the file is unusable.
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
            same_speaker = self.index.clips_of(self.index.speaker(clip))
            first, last = np.searchsorted(self.clips, [same_speaker.start, same_speaker.stop])
            for step in range(1, last - first):
                yield int(self.clips[first + (position - first + step) % (last - first)])


class ClipLoader(DataLoader[ClipBatch]):
    """A dataloader that reports unusable files in the main process, not in a worker."""

    report: Callable[[Problems], None]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # problems are reported, not yielded
        """Yield batches.

        Raises:
            AudioError: If a file is unusable and has no replacement.
        """
        for item in super().__iter__():
            if item.batch is None:
                raise AudioError(item.problems)
            if item.problems:
                self.report(item.problems)
            yield item.batch
