"""Decode audio files in pieces, and reject samples that are not sound."""
# Shapes: N samples, K channels.

import io
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_lightning.audio.headers import (
    FORMATS,
    check_header,
    conversion_command,
    fail,
    fail_to_open,
    fail_to_recognise,
    open_regular,
)

MOST_SAMPLES, MOST_SAMPLES_PER_BYTE = 1 << 24, 64
"""A file has at most ``MOST_SAMPLES + MOST_SAMPLES_PER_BYTE * bytes`` samples a channel, so that its bytes bound the
memory to decode it.

PCM has 1 sample a byte or less, MP3 24 (8 kbit/s), Opus at its lowest rate of speech 64 (6 kbit/s); silence can have
hundreds in FLAC and Vorbis, for which any file may have ``MOST_SAMPLES`` (17 minutes at 16 kHz)."""

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4000, 768_000
"""Sampling rates of recordings; a header with another one is damaged."""

LARGEST_SAMPLE = 8.0
"""Full scale is 1, which float samples may exceed; larger ones are in an integer scale."""

LARGEST_OFFSET, SMALLEST_OFFSET = 0.05, 0.01
"""A mean of the samples above the first is an offset; above the second it is one if it outweighs the sound."""

SHORTEST_OFFSET_SECONDS, SHORTEST_OFFSET_SECONDS_OF_PART = 0.1, 1.0
"""The mean of a shorter file, or part of one, says little: it may be of half a period, or of a pop."""

SMALLEST_MIX = 1e-3
"""Power of the channels' mean, relative to the mean of their powers, below which channels cancel: -30 dB."""

_PIECE_VALUES = 1 << 16  # decoded at once, of all channels
_SILENT_POWER = 1e-10  # -100 dB, below 16 bits


class Decoder:
    """The samples of an open file in order, mixed down.

    Args:
        path: The file, for messages.
        file: The file, opened by ``opened``.

    Attributes:
        num_samples: Samples a channel that the header declares.
        rate_hz: Sampling rate.
        position: Samples read or skipped so far.
    """

    def __init__(self, path: Path, file: soundfile.SoundFile) -> None:
        self._path, self._file = path, file
        self.num_samples, self.rate_hz = int(file.frames), int(file.samplerate)
        self.position = 0
        # Pieces do not depend on what is read: libmpg123 gives other samples of a damaged file for other pieces.
        self._piece = max(1, _PIECE_VALUES // file.channels)
        self._decoded, self._end = 0, self.num_samples
        self._ahead = np.zeros(0, np.float32)  # decoded, but not read
        self._count = 0  # of the samples below
        self._lowest, self._highest = math.inf, -math.inf
        self._sums, self._squares, self._mix_squares = np.zeros(file.channels), np.zeros(file.channels), 0.0

    def read(self, num_samples: int) -> Tensor:
        """Return the next ``num_samples`` [N] of the mean of the channels, float32.

        Raises:
            AudioError: If the file ends before, or a sample is NaN, infinite or in an integer scale.
        """
        pieces, held = [self._ahead], len(self._ahead)
        while held < num_samples:
            pieces.append(self._mix(self._decode(min(self._piece, self._end - self._decoded))))
            held += len(pieces[-1])
        joined = np.concatenate(pieces) if len(pieces) > 1 else self._ahead
        self._ahead = joined[num_samples:]
        self.position += num_samples
        return torch.from_numpy(joined[:num_samples])

    def narrow(self, start: int, end: int) -> None:
        """Skip to sample ``start`` of a file just opened, and decode no further than ``end``.

        Raises:
            AudioError: If the file is damaged.
        """
        if not self._file.seekable():  # such as GSM 6.10
            while self._decoded < start:
                self._decode(min(self._piece, start - self._decoded))
        elif start:
            try:
                with _hidden_chatter(self._file.format == "MP3"):
                    self._file.seek(start)
            except soundfile.LibsndfileError as error:
                _fail_to_decode(self._path, error)
        self.position = self._decoded = start
        self._end = end

    def check(self, *, is_whole: bool) -> None:
        """Reject what has been read if it is not sound.

        Args:
            is_whole: Whether it is the whole file: a part may be silent.

        Raises:
            AudioError: If the channels cancel, the samples have an offset, or all samples of the whole are equal.
        """
        means = self._sums / self._count
        mean = float(means.mean())
        power = max(0.0, self._mix_squares / self._count - mean**2)
        of_channels = float(np.maximum(0.0, self._squares / self._count - means**2).mean())
        if len(self._sums) > 1 and of_channels > _SILENT_POWER and power < SMALLEST_MIX * of_channels:
            below = f"{10 * math.log10(of_channels / power):.0f} dB below them" if power else "silent"
            command = conversion_command(self._path, "-af 'pan=mono|c0=c0' -ar 16000")
            fail(self._path, f"its {len(self._sums)} channels cancel: their mean is {below}; use one: {command}")
        if is_whole and self._lowest == self._highest and (self._count > 1 or not self._highest):
            value = "zero" if not self._highest else f"{self._highest:g}"
            fail(self._path, f"all {self._count} samples are {value}: the file holds no audio")
        shortest = SHORTEST_OFFSET_SECONDS if is_whole else SHORTEST_OFFSET_SECONDS_OF_PART
        is_offset = abs(mean) > LARGEST_OFFSET or abs(mean) > max(SMALLEST_OFFSET, math.sqrt(power))
        if is_offset and self._count >= shortest * self.rate_hz:
            command = conversion_command(self._path, "-af highpass=f=20 -ac 1 -ar 16000")
            fail(self._path, f"its samples have a constant offset of {mean:.3f} of full scale; remove it: {command}")

    def _decode(self, num_samples: int) -> NDArray[np.float32]:
        """Return the next samples [N, K]."""
        try:
            with _hidden_chatter(self._file.format == "MP3"):
                samples: NDArray[np.float32] = self._file.read(num_samples, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            _fail_to_decode(self._path, error)
        if len(samples) < num_samples:
            found = self._decoded + len(samples)
            fail(self._path, f"truncated: {self.num_samples} samples declared, {found} found; fetch the file again")
        self._decoded += num_samples
        return samples

    def _mix(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean [N] of the channels of ``samples`` [N, K], after checking and counting them."""
        channels = np.ascontiguousarray(samples.T)
        if not (channels.min() >= -LARGEST_SAMPLE and channels.max() <= LARGEST_SAMPLE):  # nor if any sample is NaN
            self._fail_at(samples)
        mix: NDArray[np.float32] = channels[0] if len(channels) == 1 else channels.mean(axis=0)
        self._lowest, self._highest = min(self._lowest, float(mix.min())), max(self._highest, float(mix.max()))
        self._count += len(mix)
        self._mix_squares += float(np.square(mix, dtype=np.float64).sum())
        self._sums += channels.sum(axis=1, dtype=np.float64)
        self._squares += np.square(channels, dtype=np.float64).sum(axis=1)
        return mix

    def _fail_at(self, samples: NDArray[np.float32]) -> NoReturn:
        first = int(np.flatnonzero(~(np.abs(samples) <= LARGEST_SAMPLE).all(axis=1))[0])
        values = samples[first]
        place = self._decoded - len(samples) + first
        at = f"sample {place} (at {place / self.rate_hz:.3f} s)"
        if not np.isfinite(values).all():
            fail(self._path, f"{at} is NaN or infinite")
        fail(
            self._path,
            f"{at} is {values[np.abs(values).argmax()]:g}, but full scale is 1: float samples in an integer scale; "
            "divide them by 32768 if they were 16-bit integers",
        )


@contextmanager
def opened(path: Path) -> Iterator[Decoder]:
    """Open ``path`` for decoding after the checks that libsndfile lacks.

    Raises:
        AudioError: If it is missing, not a regular file, a git-lfs pointer, empty, truncated, damaged or not in one of
            ``FORMATS``, or if its header declares an impossible length or rate.
    """
    with open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            patches = check_header(path, file, size)
            head = os.pread(file.fileno(), 2, 0)
            file.seek(0)
        except OSError as error:
            fail_to_open(path, error)
        # By descriptor: given a name, soundfile and libsndfile would judge by its ending.
        source = _PatchedFile(file, patches) if patches else file.fileno()
        is_mp3 = head == b"ID" or (head[0] == 0xFF and head[1:] >= b"\xe0")  # a tag, or a frame
        with _sound(path, source, is_mp3) as sound:
            _check_declared(path, sound, size)
            yield Decoder(path, sound)


def _sound(path: Path, source: "int | _PatchedFile", is_mp3: bool) -> soundfile.SoundFile:
    try:
        with _hidden_chatter(is_mp3):
            sound = soundfile.SoundFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        fail_to_recognise(path, _message(error))
    if sound.format not in FORMATS:
        sound.close()
        fail_to_recognise(path, f"{sound.format_info} is not read; convert it: {conversion_command(path)}")
    return sound


def _check_declared(path: Path, sound: soundfile.SoundFile, size: int) -> None:
    """Reject a header that declares what a file of ``size`` bytes cannot have."""
    if sound.frames <= 0:
        fail(path, "empty: the file holds no samples")
    if sound.frames > 1 << 62:
        fail(path, f"its header does not say how long it is (a streamed file); rewrite it: {conversion_command(path)}")
    if sound.frames > MOST_SAMPLES + MOST_SAMPLES_PER_BYTE * size:
        fail(
            path,
            f"damaged: its header declares {sound.frames} samples, more than {size} bytes can hold; fetch it again",
        )
    if not LOWEST_RATE_HZ <= sound.samplerate <= HIGHEST_RATE_HZ:
        fail(
            path,
            f"its header declares a sampling rate of {sound.samplerate} Hz; recordings have {LOWEST_RATE_HZ} to "
            f"{HIGHEST_RATE_HZ} Hz; correct the header, or convert it from its true rate",
        )


class _PatchedFile:
    """A file with corrected header bytes, read without a copy.

    Args:
        file: The file, which stays open.
        patches: Bytes to read instead of those at a position.
    """

    def __init__(self, file: io.FileIO, patches: Mapping[int, bytes]) -> None:
        self._patches = patches
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        start = self.tell()
        content = bytearray(self._file.read(size))
        for position, patch in self._patches.items():
            for place, byte in enumerate(patch, start=position - start):
                if 0 <= place < len(content):
                    content[place] = byte
        return bytes(content)


_STANDARD_ERROR = threading.Lock()


@contextmanager
def _hidden_chatter(is_mp3: bool) -> Iterator[None]:
    """Hide what libmpg123 writes to standard error, even about whole files; libsndfile cannot switch it off."""
    if not is_mp3 or sys.stderr is None:
        yield
        return
    with _STANDARD_ERROR, open(os.devnull, "wb") as nowhere:
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _message(error: soundfile.LibsndfileError) -> str:
    return (error.error_string or f"libsndfile error {error.code}").strip().rstrip(".")


def _fail_to_decode(path: Path, error: soundfile.LibsndfileError) -> NoReturn:
    fail(path, f"truncated or damaged: the decoder stops with '{_message(error)}'; fetch the file again")
