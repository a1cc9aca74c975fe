"""Decode, mix down and resample audio files.

soundfile (libsndfile) decodes WAV, FLAC, Ogg, MP3 and related formats; torchaudio resamples. libsndfile decodes a
truncated WAV or Ogg file without an error, so headers are checked against file sizes first.
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
# A program that writes into a pipe does not know the length and declares about 2 or 4 GiB: ffmpeg 0xFFFFFFFF, arecord
# 0x80000000, sox 0x7FFFF000 in a WAV and 0x7F000000 in an AIFF.
_SMALLEST_STREAMING_SIZE = 0x7F000000
_AIFF_CHUNK, _CAF_CHUNK = ">4sI", ">4sQ"
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255


def check_header(path: Path, file: io.BufferedReader, size: int) -> dict[int, bytes]:
    """Reject a file that is not audio or is shorter than its header declares, which libsndfile would read as is.

    Args:
        path: The file, for messages.
        file: The file, opened at its beginning.
        size: Its length in bytes.

    Returns:
        Corrected header bytes of a streamed WAV, by position.

    Raises:
        AudioError: With the reason.
    """
    head = file.read(len(_LFS_POINTER))
    if not head:
        fail(path, "empty: the file holds no bytes")
    if head.startswith(_LFS_POINTER):
        fail(path, "a git-lfs pointer, not the audio itself; run `git lfs pull` in the corpus folder")
    if head[4:8] == b"ftyp":
        fail(path, f"libsndfile does not read MPEG-4 audio; convert it: {conversion_command(path)}")
    if head.startswith((b"RIFF", b"RF64", b"BW64")) and head[8:12] == b"WAVE":
        return _check_wav(path, file, size)
    if head.startswith(b"OggS"):
        _check_ogg(path, file, size)
    elif head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        _check_chunks(path, file, size, 12, _AIFF_CHUNK, b"SSND")
    elif head.startswith(b"caff"):
        _check_chunks(path, file, size, 8, _CAF_CHUNK, b"data")
    elif head.startswith(b".snd") and len(head) >= 12:
        position, promised = struct.unpack(">II", head[4:12])
        _check_length(path, promised, size - position)
    elif head.startswith(b"riff") and len(head) >= 23:  # Sony Wave64: a GUID, then the length of the whole file
        file.seek(16)
        _check_length(path, struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0], size)
    return {}


def conversion_command(path: Path) -> str:
    """Return the command that converts ``path`` to a plain WAV, in place if it already ends in .wav."""
    wav = path.with_suffix(".wav")
    if path.suffix.lower() != ".wav":
        return f'ffmpeg -i "{path}" -ac 1 -ar 16000 "{wav}"'
    return f'ffmpeg -i "{path}" -ac 1 -ar 16000 -f wav "{path}.new" && mv "{path}.new" "{path}"'


def fail(path: Path, reason: str) -> NoReturn:
    """Raise an AudioError for ``path``."""
    raise AudioError({path: reason})


def _check_wav(path: Path, file: io.BufferedReader, size: int) -> dict[int, bytes]:
    file.seek(4)
    riff_size = struct.unpack("<I", file.read(4))[0]
    block_bytes, position, long_size = 1, 12, 0
    while True:
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            reason = "the file ends before its audio begins" if riff_size + 8 > size else "it has no data chunk"
            fail(path, f"truncated: {reason}; fetch the file again")
        name, chunk_size = struct.unpack("<4sI", header)
        position += 8
        if name == b"data":
            break
        if name == b"fmt ":
            block_bytes = max(1, int.from_bytes(file.read(14)[12:14], "little"))
        if name == b"ds64":  # RF64 has the size here; its data chunk's size is a placeholder (EBU Tech 3306)
            long_size = int.from_bytes(file.read(16)[8:16], "little")
        position += chunk_size + chunk_size % 2
    found = size - position
    if chunk_size == 0 and found > 0 and riff_size + 8 < size:
        # The writer was killed or wrote into a pipe before it knew the sizes; libsndfile would read no samples.
        return {4: struct.pack("<I", size - 8), position - 4: struct.pack("<I", found)}
    if long_size and chunk_size == 0xFFFFFFFF:
        chunk_size = long_size
    elif chunk_size >= _SMALLEST_STREAMING_SIZE:
        return {}
    if chunk_size - found >= block_bytes:
        fail(path, f"truncated: its header declares {chunk_size} bytes of audio, the file has {found}; fetch it again")
    return {}


def _check_chunks(path: Path, file: io.BufferedReader, size: int, position: int, form: str, audio: bytes) -> None:
    """Check the length of the chunk named ``audio``; each chunk begins with name and length in ``form``."""
    length = struct.calcsize(form)
    while True:
        file.seek(position)
        header = file.read(length)
        if len(header) < length:
            break  # no audio chunk; libsndfile reports that itself
        name, chunk_size = struct.unpack(form, header)
        position += length
        if name == audio:
            _check_length(path, chunk_size, size - position)
            break
        position += chunk_size + chunk_size % 2 * (form == _AIFF_CHUNK)


def _check_length(path: Path, promised: int, found: int) -> None:
    is_streamed = _SMALLEST_STREAMING_SIZE <= promised < 1 << 32 or promised >= 1 << 62
    if promised > found and not is_streamed:
        fail(path, f"truncated: its header declares {promised} bytes, the file has {max(found, 0)}; fetch it again")


def _check_ogg(path: Path, file: io.BufferedReader, size: int) -> None:
    """Reject an Ogg file whose last page is cut or not marked as the last (RFC 3533, section 6)."""
    file.seek(max(0, size - _LARGEST_OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    complete = len(page) > 26 and len(page) >= 27 + page[26] + sum(segments)
    if not complete or not page[5] & 0x04:
        fail(path, "truncated: the Ogg stream stops before its last page; fetch the file again")


# torchaudio's filter has about before x after values, the two rates divided by their greatest common divisor: to 16000
# Hz 70 thousand from 44100 Hz, 3 million from 48048 Hz (0.2 s and 0.1 GB), 89 million from 22254 Hz (7 s and 3 GB).
# Common rates stay far below the limit.
_LARGEST_FILTER = 4_000_000
_MPEG4_ENDINGS = frozenset({".m4a", ".mp4", ".m4b", ".aac", ".mov", ".3gp", ".wma", ".amr", ".webm", ".mkv"})


def read_audio(path: Path, sample_rate_hz: int) -> Tensor:
    """Return the waveform of ``path``, float32 [N]: the mean of its channels, resampled to ``sample_rate_hz``.

    Raises:
        AudioError: If the file is missing, a git-lfs pointer, undecodable, truncated, empty, all zero, has a NaN or
            infinite sample, or has a rate that needs too much memory to resample.
    """
    with _opened(path, sample_rate_hz) as file:
        waveform = _decode(path, file, 0, file.frames)
        original_hz = int(file.samplerate)
    if not waveform.any():
        fail(path, f"all {len(waveform)} samples are zero: the file holds no audio")
    return _resample(waveform, original_hz, sample_rate_hz)


def read_crop(path: Path, sample_rate_hz: int, num_samples: int, place: float) -> Tensor:
    """Return a crop of what ``read_audio`` returns, without decoding the rest of the file.

    Args:
        path: The audio file.
        sample_rate_hz: Sampling rate of the crop.
        num_samples: Length of the crop, 1 or more; a shorter file is returned whole.
        place: Position of the crop: 0 at the file's start, 0.5 in its middle, just below 1 at its end.

    Raises:
        AudioError: As ``read_audio``, for faults in the header and in the crop. A silent crop is an error only if it is
            the whole file.
    """
    with _opened(path, sample_rate_hz) as file:
        original_hz = int(file.samplerate)
        # The ratio of the rates in lowest terms: `before` samples become `after`.
        divisor = math.gcd(original_hz, sample_rate_hz)
        before, after = original_hz // divisor, sample_rate_hz // divisor
        total = -(-file.frames * after // before)
        num_samples = min(num_samples, total)
        start = min(int(place * (total - num_samples + 1)), total - num_samples)
        # The samples within the filter's reach are decoded too, so that the crop has no edge effects.
        reach = 0 if before == after else _resampler(original_hz, sample_rate_hz).width // before + 2
        first = max(0, start // after - reach)
        last = min(file.frames, (-(-(start + num_samples) // after) + reach) * before)
        _skip_to(path, file, first * before)
        waveform = _decode(path, file, first * before, last - first * before)
    crop = _resample(waveform, original_hz, sample_rate_hz)[start - first * after :][:num_samples]
    if num_samples == total and not crop.any():
        fail(path, f"all {total} samples are zero: the file holds no audio")
    return crop


def read_blocks(path: Path, sample_rate_hz: int, num_samples: int) -> Iterator[Tensor]:
    """Yield what ``read_audio`` returns in blocks, so that memory does not grow with the file.

    Args:
        path: The audio file.
        sample_rate_hz: Sampling rate of the blocks.
        num_samples: Length of a block, 1 or more; the last one may be shorter.

    Raises:
        AudioError: As ``read_audio``; faults found by decoding are raised after the blocks before them.
    """
    with _opened(path, sample_rate_hz) as file:
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
        fail(path, f"all {total} samples are zero: the file holds no audio")


def duration_seconds(path: Path) -> float:
    """Return the length of ``path`` in seconds, from its header alone.

    Raises:
        AudioError: As ``read_audio``, for faults found without decoding.
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
    """Return the channels' mean of the next ``num_samples``, from ``start`` on; all finite."""
    try:
        samples = file.read(num_samples, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        _fail_to_decode(path, error)
    if len(samples) < num_samples:
        fail(path, f"truncated: {file.frames} samples declared, {start + len(samples)} found; fetch the file again")
    waveform = torch.from_numpy(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))
    lowest, highest = waveform.aminmax()  # NaN if any sample is
    if not (lowest.isfinite() and highest.isfinite()):
        fail(path, f"{int((~waveform.isfinite()).sum())} of {len(waveform)} samples are NaN or infinite")
    return waveform


def _skip_to(path: Path, file: soundfile.SoundFile, start: int) -> None:
    """Skip to sample ``start`` of a file just opened."""
    try:
        if file.seekable():
            file.seek(start)
        else:  # such as GSM 6.10
            while start > 0 and len(skipped := file.read(min(start, 1 << 16))):
                start -= len(skipped)
    except soundfile.LibsndfileError as error:
        _fail_to_decode(path, error)


def _resample(waveform: Tensor, original_hz: int, sample_rate_hz: int) -> Tensor:
    if original_hz == sample_rate_hz:
        return waveform
    resampled: Tensor = _resampler(original_hz, sample_rate_hz)(waveform)
    return resampled


@functools.lru_cache(maxsize=8)  # of at most 16 MB
def _resampler(original_hz: int, sample_rate_hz: int) -> Resample:
    return Resample(original_hz, sample_rate_hz)


class _PatchedFile:
    """A file with corrected header bytes, read without a copy.

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
def _opened(path: Path, sample_rate_hz: int | None = None) -> Iterator[soundfile.SoundFile]:
    """Open ``path`` for decoding after the checks that libsndfile lacks; check the rate if one is given."""
    try:
        file = path.open("rb")
    except OSError as error:
        _fail_to_open(path, error)
    with file:
        try:
            patches = check_header(path, file, os.fstat(file.fileno()).st_size)
            file.seek(0)
        except OSError as error:
            _fail_to_open(path, error)
        with _sound(path, _PatchedFile(file, patches) if patches else os.fsencode(path)) as sound:
            if sample_rate_hz is not None:
                _check_rate(path, int(sound.samplerate), sample_rate_hz)
            yield sound


def _check_rate(path: Path, original_hz: int, sample_rate_hz: int) -> None:
    if original_hz * sample_rate_hz // math.gcd(original_hz, sample_rate_hz) ** 2 > _LARGEST_FILTER:
        fail(
            path,
            f"its sampling rate of {original_hz} Hz has no simple ratio to {sample_rate_hz} Hz: resampling could take "
            f"gigabytes of memory; convert it: {conversion_command(path)}",
        )


def _sound(path: Path, source: bytes | _PatchedFile) -> soundfile.SoundFile:
    try:
        sound = soundfile.SoundFile(source)
    except soundfile.LibsndfileError as error:
        if path.suffix.lower() in _MPEG4_ENDINGS:
            fail(path, f"libsndfile does not read this kind of file; convert it: {conversion_command(path)}")
        fail(path, f"cannot be decoded: {_message(error)}")
    if sound.frames == 0:
        fail(path, "empty: the file holds no samples")
    if sound.frames > 1 << 62:
        fail(path, f"its header does not say how long it is (a streamed file); rewrite it: {conversion_command(path)}")
    return sound


def _message(error: soundfile.LibsndfileError) -> str:
    return (error.error_string or f"libsndfile error {error.code}").strip().rstrip(".")


def _fail_to_decode(path: Path, error: soundfile.LibsndfileError) -> NoReturn:
    fail(path, f"truncated or damaged: the decoder stops with '{_message(error)}'; fetch the file again")


def why_unreadable(path: Path, error: OSError) -> str:
    """Return the reason in ``error`` why ``path`` cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return "a broken symbolic link" if path.is_symlink() else "missing: there is no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a file"
    return f"cannot be read: {error.strerror}"


def _fail_to_open(path: Path, error: OSError) -> NoReturn:
    raise AudioError({path: why_unreadable(path, error)}) from error
