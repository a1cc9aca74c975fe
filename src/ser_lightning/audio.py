"""Audio files as waveforms: the only place that decodes, mixes down and resamples.

soundfile (libsndfile) decodes wav, flac, ogg, mp3 and their kin; torchaudio resamples. Whatever is wrong with a file is
found here and said in one line, because a decoder alone lets the worst kinds pass: a WAV or Ogg file that was cut in
the middle decodes without complaint, only shorter.
"""
# Shapes: N samples.

import functools
import hashlib
import io
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from ser_lightning.errors import AudioError

_LFS_POINTER = b"version https://git-lfs"
# A program that writes a WAV into a pipe cannot know its length and promises about 2 or 4 GiB: ffmpeg 0xFFFFFFFF,
# sox 0x7FFFF000, arecord 0x80000000.
_SMALLEST_STREAMING_SIZE = 0x7FFFF000
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255
_MPEG4_ENDINGS = frozenset({".m4a", ".mp4", ".m4b", ".aac", ".mov", ".3gp", ".wma", ".amr", ".webm", ".mkv"})


def read_audio(path: Path, sample_rate_hz: int) -> Tensor:
    """Return the waveform of ``path``, float32 [N]: the mean of its channels, resampled to ``sample_rate_hz``.

    Raises:
        AudioError: If the file is missing, a git-lfs pointer, undecodable, truncated, empty, all zero, or holds a NaN
            or an infinite sample; the reason says which and what to do.
    """
    with _opened(path) as file:
        waveform = _decode(path, file, 0, file.frames)
        original_hz = int(file.samplerate)
    if not waveform.any():
        _fail(path, f"all {len(waveform)} samples are zero: the file holds no audio")
    return _resample(waveform, original_hz, sample_rate_hz)


def read_crop(path: Path, sample_rate_hz: int, num_samples: int, place: float) -> Tensor:
    """Return a stretch of what ``read_audio`` returns, without decoding what lies around it.

    Args:
        path: The audio file.
        sample_rate_hz: The rate of the waveform that is returned.
        num_samples: Length of the stretch, 1 or more; a shorter file is returned whole.
        place: Where the stretch lies: 0 at the file's start, 0.5 in its middle, just below 1 at its end.

    Raises:
        AudioError: As ``read_audio``, for all that shows in the file's header and in the stretch. A silent stretch is
            no error unless it is the whole file.
    """
    with _opened(path) as file:
        original_hz = int(file.samplerate)
        # Both rates in the smallest whole numbers: so many samples last equally long before and after.
        divisor = math.gcd(original_hz, sample_rate_hz)
        before, after = original_hz // divisor, sample_rate_hz // divisor
        total = -(-file.frames * after // before)
        num_samples = min(num_samples, total)
        start = min(int(place * (total - num_samples + 1)), total - num_samples)
        # What the resampler's filter sees of the neighbours is decoded too, so that a crop's edges are no edges.
        reach = 0 if before == after else _resampler(original_hz, sample_rate_hz).width // before + 2
        first = max(0, start // after - reach)
        last = min(file.frames, (-(-(start + num_samples) // after) + reach) * before)
        waveform = _decode(path, file, first * before, last - first * before)
    crop = _resample(waveform, original_hz, sample_rate_hz)[start - first * after :][:num_samples]
    if num_samples == total and not crop.any():
        _fail(path, f"all {total} samples are zero: the file holds no audio")
    return crop


def read_blocks(path: Path, sample_rate_hz: int, num_samples: int) -> Iterator[Tensor]:
    """Yield what ``read_audio`` returns piece by piece, so that a file of any length takes the memory of a piece.

    Args:
        path: The audio file.
        sample_rate_hz: The rate of the waveforms.
        num_samples: Length of a piece, 1 or more; the last one may be shorter.

    Raises:
        AudioError: As ``read_audio``; what only decoding shows, behind the pieces before it.
    """
    with _opened(path) as file:
        original_hz = int(file.samplerate)
        divisor = math.gcd(original_hz, sample_rate_hz)
        before, after = original_hz // divisor, sample_rate_hz // divisor
        total = -(-file.frames * after // before)
        reach = 0 if before == after else _resampler(original_hz, sample_rate_hz).width // before + 2
        held, first, is_silent = torch.zeros(0), 0, True  # decoded samples from ``first * before``
        for start in range(0, total, num_samples):
            end = min(start + num_samples, total)
            needed = max(0, start // after - reach)
            held, first = held[(needed - first) * before :], needed
            known = first * before + len(held)
            last = min(file.frames, (-(-end // after) + reach) * before)
            if last > known:
                decoded = _decode(path, file, known, last - known)
                is_silent = is_silent and not decoded.any()
                held = torch.cat([held, decoded])
            yield _resample(held, original_hz, sample_rate_hz)[start - first * after :][: end - start]
    if is_silent:
        _fail(path, f"all {total} samples are zero: the file holds no audio")


def duration_seconds(path: Path) -> float:
    """Return the length of ``path`` in seconds, from its header alone.

    Raises:
        AudioError: As ``read_audio``, for all that shows without decoding.
    """
    with _opened(path) as file:
        return float(file.frames / file.samplerate)


def audio_digest(path: Path) -> str:
    """Return the SHA-256 of the bytes of ``path``, as 64 hexadecimal digits.

    Raises:
        AudioError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        _fail_to_open(path, error)


def _decode(path: Path, file: soundfile.SoundFile, start: int, num_samples: int) -> Tensor:
    """Return so many samples from ``start``, the mean of the channels; all of them finite."""
    try:
        if start != file.tell():
            file.seek(start)
        samples = file.read(num_samples, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        _fail(path, f"truncated or damaged: the decoder stops with '{_message(error)}'; fetch the file again")
    if len(samples) < num_samples:
        _fail(path, f"truncated: {file.frames} samples announced, {start + len(samples)} found; fetch the file again")
    waveform = torch.from_numpy(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))
    lowest, highest = waveform.aminmax()  # NaN if any sample is
    if not (lowest.isfinite() and highest.isfinite()):
        _fail(path, f"{int((~waveform.isfinite()).sum())} of {len(waveform)} samples are NaN or infinite")
    return waveform


def _resample(waveform: Tensor, original_hz: int, sample_rate_hz: int) -> Tensor:
    if original_hz == sample_rate_hz:
        return waveform
    resampled: Tensor = _resampler(original_hz, sample_rate_hz)(waveform)
    return resampled


@functools.cache
def _resampler(original_hz: int, sample_rate_hz: int) -> Resample:
    return Resample(original_hz, sample_rate_hz)


class _MendedFile:
    """A file whose header is read as it should be: libsndfile asks for bytes, and nothing is copied.

    Args:
        file: The file, which stays open.
        patches: Bytes to read instead of those at a position.
    """

    def __init__(self, file: io.BufferedReader, patches: Mapping[int, bytes]) -> None:
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


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open ``path`` for decoding, after the checks that libsndfile does not make."""
    try:
        file = path.open("rb")
    except OSError as error:
        _fail_to_open(path, error)
    with file:
        try:
            patches = _checked(path, file, os.fstat(file.fileno()).st_size)
            file.seek(0)
        except OSError as error:
            _fail_to_open(path, error)
        with _sound(path, _MendedFile(file, patches) if patches else os.fspath(path)) as sound:
            yield sound


def _sound(path: Path, source: str | _MendedFile) -> soundfile.SoundFile:
    try:
        sound = soundfile.SoundFile(source)
    except soundfile.LibsndfileError as error:
        if path.suffix.lower() in _MPEG4_ENDINGS:
            _fail(path, f"libsndfile does not read this kind of file; convert it: {_conversion(path)}")
        _fail(path, f"cannot be decoded: {_message(error)}")
    if sound.frames == 0:
        _fail(path, "empty: the file holds no samples")
    if sound.frames > 1 << 62:
        _fail(path, f"its header does not say how long it is (a streamed file); rewrite it: {_conversion(path)}")
    return sound


def _checked(path: Path, file: io.BufferedReader, size: int) -> dict[int, bytes]:
    """Return what has to be mended of a WAV that was streamed: what to read instead, by position."""
    head = file.read(len(_LFS_POINTER))
    if not head:
        _fail(path, "empty: the file holds no bytes")
    if head.startswith(_LFS_POINTER):
        _fail(path, "a git-lfs pointer, not the audio itself; run `git lfs pull` in the corpus folder")
    if head[4:8] == b"ftyp":
        _fail(path, f"libsndfile does not read MPEG-4 audio; convert it: {_conversion(path)}")
    if head.startswith(b"OggS"):
        _check_ogg(path, file, size)
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return _check_wav(path, file, size)
    return {}


def _check_wav(path: Path, file: io.BufferedReader, size: int) -> dict[int, bytes]:
    file.seek(4)
    riff_size = struct.unpack("<I", file.read(4))[0]
    block_bytes, position = 1, 12
    while True:
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            reason = "the file ends before its audio begins" if riff_size + 8 > size else "it has no data chunk"
            _fail(path, f"truncated: {reason}; fetch the file again")
        name, chunk_size = struct.unpack("<4sI", header)
        position += 8
        if name == b"data":
            break
        if name == b"fmt ":
            block_bytes = max(1, int.from_bytes(file.read(14)[12:14], "little"))
        position += chunk_size + chunk_size % 2
    found = size - position
    if chunk_size == 0 and found > 0 and riff_size + 8 < size:
        # The writer died, or wrote into a pipe, before it knew the sizes; libsndfile would read no samples.
        return {4: struct.pack("<I", size - 8), position - 4: struct.pack("<I", found)}
    if chunk_size < _SMALLEST_STREAMING_SIZE and chunk_size - found >= block_bytes:
        _fail(path, f"truncated: its header promises {chunk_size} bytes of audio, {found} are there; fetch it again")
    return {}


def _check_ogg(path: Path, file: io.BufferedReader, size: int) -> None:
    """Refuse an Ogg file whose last page is cut, or is not marked as the last (RFC 3533, section 6)."""
    file.seek(max(0, size - _LARGEST_OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    complete = len(page) > 26 and len(page) >= 27 + page[26] + sum(segments)
    if not complete or not page[5] & 0x04:
        _fail(path, "truncated: the Ogg stream stops before its last page; fetch the file again")


def _message(error: soundfile.LibsndfileError) -> str:
    return (error.error_string or f"libsndfile error {error.code}").strip().rstrip(".")


def _conversion(path: Path) -> str:
    return f'ffmpeg -i "{path}" -ac 1 -ar 16000 "{path.with_suffix(".wav")}"'


def _fail(path: Path, reason: str) -> NoReturn:
    raise AudioError({path: reason})


def _fail_to_open(path: Path, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        reason = "a broken symbolic link" if path.is_symlink() else "missing: there is no such file"
    elif isinstance(error, IsADirectoryError):
        reason = "a folder, not a file"
    else:
        reason = f"cannot be read: {error.strerror}"
    raise AudioError({path: reason}) from error
