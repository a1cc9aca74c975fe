"""Formats of audio files, and checks of what their headers declare.

libsndfile decodes a truncated WAV and an Ogg file with a missing page without an error, so sizes and checksums are
checked here first.
"""

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ser_lightning.errors import AudioError

LOSSY_ENDINGS = (".ogg", ".oga", ".opus", ".mp3")
AUDIO_ENDINGS = (".wav", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".w64", ".rf64", *LOSSY_ENDINGS)
"""Endings of the audio files that are looked for in a folder, in the order of preference if a recording has several."""

UNREAD_ENDINGS = (".m4a", ".m4b", ".aac", ".wma", ".amr")
"""Endings of audio that cannot be decoded; such files are reported."""

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"})
"""libsndfile's names of the formats that are decoded, whatever the ending; docs/corpora.md lists them."""

_MPEG4_ENDINGS = frozenset({*UNREAD_ENDINGS, ".mp4", ".mov", ".3gp", ".webm", ".mkv"})
_LFS_POINTER = b"version https://git-lfs"
# A program that writes into a pipe does not know the length and declares about 2 or 4 GiB: ffmpeg 0xFFFFFFFF, arecord
# 0x80000000, sox 0x7FFFF000 in a WAV and 0x7F000000 in an AIFF.
_SMALLEST_STREAMING_SIZE = 0x7F000000
_WAV_CHUNK, _AIFF_CHUNK, _CAF_CHUNK = "<4sI", ">4sI", ">4sQ"
_MOST_CHUNKS = 1000  # of a file; zeros read as chunks of no bytes would be walked through for minutes
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def open_regular(path: Path) -> io.FileIO:
    """Open ``path`` for reading, without a buffer.

    Raises:
        AudioError: If it cannot be opened, or is not a regular file: opening a FIFO would wait for a writer, and a
            device may never end. These are not opened.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "FIFO" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
            fail(path, f"a {kind}, not a file; write the audio to a file first")
        return path.open("rb", buffering=0)
    except OSError as error:
        fail_to_open(path, error)


def check_header(path: Path, file: io.FileIO, size: int) -> dict[int, bytes]:
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
        if position < 24:
            fail(path, f"damaged: its audio begins at byte {position}, in its header; fetch the file again")
        _check_length(path, promised, size - position)
    elif head.startswith(b"riff") and len(head) >= 23:  # Sony Wave64: a GUID, then the length of the whole file
        file.seek(16)
        _check_length(path, struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0], size)
    return {}


def conversion_command(path: Path, options: str = "-ac 1 -ar 16000") -> str:
    """Return the command that converts ``path`` to a plain WAV, in place if it already ends in .wav."""
    wav = path.with_suffix(".wav")
    if path.suffix.lower() != ".wav":
        return f'ffmpeg -i "{path}" {options} "{wav}"'
    return f'ffmpeg -i "{path}" {options} -f wav "{path}.new" && mv "{path}.new" "{path}"'


def fail(path: Path, reason: str) -> NoReturn:
    """Raise an AudioError for ``path``."""
    raise AudioError({path: reason})


def fail_to_open(path: Path, error: OSError) -> NoReturn:
    """Raise an AudioError for ``path``, which could not be opened."""
    raise AudioError({path: why_unreadable(path, error)}) from error


def fail_to_recognise(path: Path, reason: str) -> NoReturn:
    """Raise an AudioError for ``path``, which libsndfile did not open for ``reason``."""
    if path.suffix.lower() in _MPEG4_ENDINGS:
        fail(path, f"libsndfile does not read this kind of file; convert it: {conversion_command(path)}")
    fail(path, f"cannot be decoded: {reason}")


def why_unreadable(path: Path, error: OSError) -> str:
    """Return the reason in ``error`` why ``path`` cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return "a broken symbolic link" if path.is_symlink() else "missing: there is no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a file"
    return f"cannot be read: {error.strerror}"


def _check_wav(path: Path, file: io.FileIO, size: int) -> dict[int, bytes]:
    file.seek(4)
    riff_size = struct.unpack("<I", file.read(4))[0]
    block_bytes, long_size, data = 1, 0, None
    for name, chunk_size, position in _chunks(file, size, 12, _WAV_CHUNK):
        if name == b"data":
            data = chunk_size, position
            break
        if name == b"fmt ":
            block_bytes = max(1, int.from_bytes(file.read(14)[12:14], "little"))
        if name == b"ds64":  # RF64 has the size here; its data chunk's size is a placeholder (EBU Tech 3306)
            long_size = int.from_bytes(file.read(16)[8:16], "little")
    if data is None:
        reason = "the file ends before its audio begins" if riff_size + 8 > size else "it has no data chunk"
        fail(path, f"truncated: {reason}; fetch the file again")
    declared, start = data
    found = size - start
    if declared == 0 and found > 0 and riff_size + 8 < size:
        # The writer was killed or wrote into a pipe before it knew the sizes; libsndfile would read no samples.
        sizes = {4: size - 8, start - 4: found}
        return {position: struct.pack("<I", min(value, 0xFFFFFFFF)) for position, value in sizes.items()}
    if long_size and declared == 0xFFFFFFFF:
        declared = long_size
    elif declared >= _SMALLEST_STREAMING_SIZE:
        return {}
    if declared - found >= block_bytes:
        fail(path, f"truncated: its header declares {declared} bytes of audio, the file has {found}; fetch it again")
    return {}


def _chunks(file: io.FileIO, size: int, position: int, form: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, length and position of each chunk; a chunk begins with its name and length in ``form``."""
    length = struct.calcsize(form)
    for _ in range(_MOST_CHUNKS):
        if position + length > size:  # a declared length may lead beyond the file, even beyond 64 bits
            return
        file.seek(position)
        name, chunk_size = struct.unpack(form, file.read(length).ljust(length, b"\0"))
        position += length
        yield name, chunk_size, position
        position += chunk_size + chunk_size % 2 * (form != _CAF_CHUNK)


def _check_chunks(path: Path, file: io.FileIO, size: int, start: int, form: str, audio: bytes) -> None:
    """Check the length of the chunk named ``audio``; without one, libsndfile reports that itself."""
    for name, chunk_size, position in _chunks(file, size, start, form):
        if name == audio:
            _check_length(path, chunk_size, size - position)
            return


def _check_length(path: Path, promised: int, found: int) -> None:
    is_streamed = _SMALLEST_STREAMING_SIZE <= promised < 1 << 32 or promised == (1 << 64) - 1
    if promised > found and not is_streamed:
        fail(path, f"truncated: its header declares {promised} bytes, the file has {max(found, 0)}; fetch it again")


def _check_ogg(path: Path, file: io.FileIO, size: int) -> None:
    """Reject an Ogg file with a damaged or missing page, which libsndfile would skip (RFC 3533, section 6)."""
    position, next_number, is_last = 0, dict[bytes, int](), False
    while position < size:
        file.seek(position)
        header = file.read(27)
        if is_last and not header.startswith(b"OggS"):
            return  # such as tags after the audio
        sizes = file.read(header[26]) if len(header) == 27 else b""
        page = header + sizes + file.read(sum(sizes))
        if not page.startswith(b"OggS"[: len(page)]):
            fail(path, f"damaged: no Ogg page begins at byte {position}; fetch the file again")
        if len(header) < 27 or len(page) < 27 + header[26] + sum(sizes):
            break
        if _ogg_checksum(page) != struct.unpack_from("<I", page, 22)[0]:
            fail(path, f"damaged: the Ogg page at byte {position} does not match its checksum; fetch the file again")
        stream, number = page[14:18], struct.unpack_from("<I", page, 18)[0]
        is_first = bool(page[5] & 0x02)
        if not is_first and number != next_number.get(stream, number):
            fail(path, f"damaged: an Ogg page is missing before byte {position}; fetch the file again")
        next_number[stream] = number + 1
        position, is_last = position + len(page), bool(page[5] & 0x04)
    if position < size or not is_last:  # the last page is cut or missing
        fail(path, "truncated: the Ogg stream stops before its last page; fetch the file again")


def _ogg_checksum(page: bytes) -> int:
    """Return the CRC-32 of an Ogg page: zlib's polynomial with the bits of bytes and result reversed, from 0."""
    content = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(content.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
