"""Read audio files whole, in blocks or in part: the mean of their channels at a rate of choice.

soundfile (libsndfile) decodes; torchaudio resamples.
"""
# Shapes: N samples.

import functools
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torchaudio.transforms import Resample

from ser_lightning.audio.decoding import opened
from ser_lightning.audio.headers import conversion_command, fail, fail_to_open, open_regular

READING_VERSION = 2
"""Raised when ``read_audio`` gives other samples, or rejects other files, so that stored features are made again."""

# torchaudio's filter has about before x after values, the two rates divided by their greatest common divisor: to 16000
# Hz 70 thousand from 44100 Hz, 3 million from 48048 Hz (0.2 s and 0.1 GB), 89 million from 22254 Hz (7 s and 3 GB).
# Common rates stay far below the limit.
_LARGEST_FILTER = 4_000_000
_BLOCK_SAMPLES = 1 << 20  # of the blocks that a whole file is read in: a minute at 16 kHz


def read_audio(path: Path, sample_rate_hz: int) -> Tensor:
    """Return the waveform of ``path``, float32 [N]: the mean of its channels, resampled to ``sample_rate_hz``.

    Raises:
        AudioError: If the file is missing, not a regular file, a git-lfs pointer, undecodable, truncated, damaged,
            empty or constant; if its header declares a length or rate that cannot be, or a rate that needs too much
            memory to resample; if a sample is NaN, infinite or in an integer scale; if its channels cancel; or if its
            samples have an offset.
    """
    blocks = list(read_blocks(path, sample_rate_hz, _BLOCK_SAMPLES))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def read_blocks(path: Path, sample_rate_hz: int, num_samples: int) -> Iterator[Tensor]:
    """Yield what ``read_audio`` returns in blocks, so that memory does not grow with the file.

    Args:
        path: The audio file.
        sample_rate_hz: Sampling rate of the blocks.
        num_samples: Length of a block, 1 or more; the last one may be shorter.

    Raises:
        AudioError: As ``read_audio``; faults found by decoding are raised after the blocks before them.
    """
    with opened(path) as file:
        ratio = _Ratio(path, file.rate_hz, sample_rate_hz)
        total = ratio.resampled(file.num_samples)
        held, first = torch.zeros(0), 0  # decoded samples from ``first * ratio.before``
        for start in range(0, total, num_samples):
            end = min(start + num_samples, total)
            needed, last = ratio.source(start, end, file.num_samples)
            held = torch.cat([held[(needed - first) * ratio.before :], file.read(max(0, last - file.position))])
            first = needed
            yield ratio.resample(held)[start - first * ratio.after :][: end - start]
        file.check(is_whole=True)


def read_crop(path: Path, sample_rate_hz: int, num_samples: int, place: float) -> Tensor:
    """Return a crop of what ``read_audio`` returns, without decoding the rest of the file.

    Args:
        path: The audio file.
        sample_rate_hz: Sampling rate of the crop.
        num_samples: Length of the crop, 1 or more; a shorter file is returned whole.
        place: Position of the crop: 0 at the file's start, 0.5 in its middle, just below 1 at its end.

    Raises:
        AudioError: As ``read_audio``, for faults in the header and in the crop. A constant crop is an error only if it
            is the whole file.
    """
    with opened(path) as file:
        ratio = _Ratio(path, file.rate_hz, sample_rate_hz)
        total = ratio.resampled(file.num_samples)
        num_samples = min(num_samples, total)
        start = min(int(place * (total - num_samples + 1)), total - num_samples)
        first, last = ratio.source(start, start + num_samples, file.num_samples)
        file.narrow(first * ratio.before, last)
        waveform = file.read(last - first * ratio.before)
        file.check(is_whole=num_samples == total)
    return ratio.resample(waveform)[start - first * ratio.after :][:num_samples]


def duration_seconds(path: Path) -> float:
    """Return the length of ``path`` in seconds, from its header alone.

    Raises:
        AudioError: As ``read_audio``, for faults found without decoding.
    """
    with opened(path) as file:
        return file.num_samples / file.rate_hz


def audio_digest(path: Path) -> str:
    """Return the SHA-256 of the bytes of ``path``, as 64 hexadecimal digits.

    Raises:
        AudioError: If the file cannot be read.
    """
    with open_regular(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            fail_to_open(path, error)


class _Ratio:
    """Resampling of a file's ``before`` samples to ``after``, the ratio of the rates in lowest terms.

    Args:
        path: The file, for messages.
        original_hz: Its rate.
        target_hz: Rate to resample to.

    Raises:
        AudioError: If the filter would be too large.
    """

    def __init__(self, path: Path, original_hz: int, target_hz: int) -> None:
        divisor = math.gcd(original_hz, target_hz)
        self.before, self.after = original_hz // divisor, target_hz // divisor
        if self.before * self.after > _LARGEST_FILTER:
            fail(
                path,
                f"its sampling rate of {original_hz} Hz has no simple ratio to {target_hz} Hz: resampling could take "
                f"gigabytes of memory; convert it: {conversion_command(path)}",
            )
        self._resampler = None if original_hz == target_hz else _resampler(original_hz, target_hz)
        # The samples within the filter's reach are decoded too, so that blocks and crops have no edge effects.
        self._reach = 0 if self._resampler is None else self._resampler.width // self.before + 2

    def resampled(self, num_samples: int) -> int:
        """Return the length after resampling ``num_samples``."""
        return -(-num_samples * self.after // self.before)

    def source(self, start: int, end: int, num_samples: int) -> tuple[int, int]:
        """Return what the resampled samples from ``start`` to ``end`` are made of, in a file of ``num_samples``.

        Returns:
            The first sample, in units of ``before``, and the end.
        """
        first = max(0, start // self.after - self._reach)
        return first, min(num_samples, (-(-end // self.after) + self._reach) * self.before)

    def resample(self, waveform: Tensor) -> Tensor:
        """Return ``waveform`` [N] resampled."""
        return waveform if self._resampler is None else self._resampler(waveform)


@functools.lru_cache(maxsize=8)  # of at most 16 MB
def _resampler(original_hz: int, sample_rate_hz: int) -> Resample:
    return Resample(original_hz, sample_rate_hz)
