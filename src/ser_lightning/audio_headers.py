"""What the headers of audio files promise, held against the files: checks that a decoder does not make."""

import io
import struct
from pathlib import Path
from typing import NoReturn

from ser_lightning.errors import AudioError

_LFS_POINTER = b"version https://git-lfs"
# A program that writes into a pipe cannot know the length and promises about 2 or 4 GiB: ffmpeg 0xFFFFFFFF, arecord
# 0x80000000, sox 0x7FFFF000 in a WAV and 0x7F000000 in an AIFF.
_SMALLEST_STREAMING_SIZE = 0x7F000000
_AIFF_CHUNK, _CAF_CHUNK = ">4sI", ">4sQ"
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255


def check_header(path: Path, file: io.BufferedReader, size: int) -> dict[int, bytes]:
    """Refuse a file that is no audio, or holds less than its header promises; libsndfile would read it, only shorter.

    Args:
        path: The file, for messages.
        file: The file, opened at its beginning.
        size: Its length in bytes.

    Returns:
        What has to be mended of a WAV that was streamed: what to read instead, by position.

    Raises:
        AudioError: With the reason.
    """
    head = file.read(len(_LFS_POINTER))
    if not head:
        fail(path, "empty: the file holds no bytes")
    if head.startswith(_LFS_POINTER):
        fail(path, "a git-lfs pointer, not the audio itself; run `git lfs pull` in the corpus folder")
    if head[4:8] == b"ftyp":
        fail(path, f"libsndfile does not read MPEG-4 audio; convert it: {conversion(path)}")
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
        _refuse_shorter(path, promised, size - position)
    elif head.startswith(b"riff") and len(head) >= 23:  # Sony Wave64: a GUID, then the length of the whole file
        file.seek(16)
        _refuse_shorter(path, struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0], size)
    return {}


def conversion(path: Path) -> str:
    """Return the command that makes a WAV of ``path`` that is read everywhere, in its place if it is called so."""
    wav = path.with_suffix(".wav")
    if path.suffix.lower() != ".wav":
        return f'ffmpeg -i "{path}" -ac 1 -ar 16000 "{wav}"'
    return f'ffmpeg -i "{path}" -ac 1 -ar 16000 -f wav "{path}.new" && mv "{path}.new" "{path}"'


def fail(path: Path, reason: str) -> NoReturn:
    """Say that ``path`` cannot be used.

    Raises:
        AudioError: Always.
    """
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
        if name == b"ds64":  # of RF64, whose data chunk's own size is a mark (EBU Tech 3306)
            long_size = int.from_bytes(file.read(16)[8:16], "little")
        position += chunk_size + chunk_size % 2
    found = size - position
    if chunk_size == 0 and found > 0 and riff_size + 8 < size:
        # The writer died, or wrote into a pipe, before it knew the sizes; libsndfile would read no samples.
        return {4: struct.pack("<I", size - 8), position - 4: struct.pack("<I", found)}
    if long_size and chunk_size == 0xFFFFFFFF:
        chunk_size = long_size
    elif chunk_size >= _SMALLEST_STREAMING_SIZE:
        return {}
    if chunk_size - found >= block_bytes:
        fail(path, f"truncated: its header promises {chunk_size} bytes of audio, {found} are there; fetch it again")
    return {}


def _check_chunks(path: Path, file: io.BufferedReader, size: int, position: int, form: str, audio: bytes) -> None:
    """Check the chunk called ``audio``, where each begins with its name and length in ``form``."""
    length = struct.calcsize(form)
    while True:
        file.seek(position)
        header = file.read(length)
        if len(header) < length:
            break  # without audio, as libsndfile says itself
        name, chunk_size = struct.unpack(form, header)
        position += length
        if name == audio:
            _refuse_shorter(path, chunk_size, size - position)
            break
        position += chunk_size + chunk_size % 2 * (form == _AIFF_CHUNK)


def _refuse_shorter(path: Path, promised: int, found: int) -> None:
    is_streamed = _SMALLEST_STREAMING_SIZE <= promised < 1 << 32 or promised >= 1 << 62
    if promised > found and not is_streamed:
        fail(path, f"truncated: its header promises {promised} bytes, {max(found, 0)} are there; fetch it again")


def _check_ogg(path: Path, file: io.BufferedReader, size: int) -> None:
    """Refuse an Ogg file whose last page is cut, or is not marked as the last (RFC 3533, section 6)."""
    file.seek(max(0, size - _LARGEST_OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    complete = len(page) > 26 and len(page) >= 27 + page[26] + sum(segments)
    if not complete or not page[5] & 0x04:
        fail(path, "truncated: the Ogg stream stops before its last page; fetch the file again")
