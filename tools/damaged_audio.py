"""Damaged audio files of every kind, from a seed, for tests of what reads them."""
# Shapes: N samples, K channels.

import functools
import io
import os
import random
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from tools.damage import append_noise, cut, flip_bits, insert_noise, lose_block, noise, nothing, zero_block

Samples = NDArray[np.float32]

FORMATS = (
    *(("wav", "WAV", "PCM_16"), ("wav", "WAV", "PCM_U8"), ("wav", "WAV", "FLOAT"), ("wav", "WAVEX", "PCM_24")),
    *(("wav", "WAV", "ULAW"), ("wav", "WAV", "IMA_ADPCM"), ("wav", "WAV", "GSM610"), ("rf64", "RF64", "PCM_16")),
    *(("w64", "W64", "PCM_16"), ("aiff", "AIFF", "PCM_16"), ("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16")),
    *(("caf", "CAF", "ALAC_16"), ("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS")),
    ("mp3", "MP3", "MPEG_LAYER_III"),
)
"""Ending, libsndfile's format and subtype of the files to damage."""

RATE_HZ = 16000
_HEADER_BYTES = 128


def write_damaged(folder: Path, seed: int, number: int) -> Path:
    """Write a damaged file, ``<number>-<damage>.<ending>``, determined by seed and number.

    ``len(DAMAGES)`` numbers in a row have every damage; ``len(DAMAGES) * len(FORMATS)`` have it in every format. Only
    the serial number of an Ogg stream, which libsndfile draws, differs between calls.

    Args:
        folder: An existing folder.
        seed: Seed of the series.
        number: Position in the series, 0 or more.

    Returns:
        The file's path.
    """
    rng = random.Random(f"{seed} {number}")
    damage = list(DAMAGES)[number % len(DAMAGES)]
    ending, form, subtype = FORMATS[number // len(DAMAGES) % len(FORMATS)]
    path = folder / f"{number}-{damage}.{ending}"
    if damage in _OF_SAMPLES:
        path.write_bytes(encoded(_OF_SAMPLES[damage](tone(2)), "WAV", "FLOAT"))
    elif damage in _OF_BYTES:
        path.write_bytes(_OF_BYTES[damage](rng, bytearray(_whole(form, subtype, rng.choice((1, 2))))))
    else:
        _NOT_FILES[damage](path)
    return path


def tone(channels: int = 1, seconds: float = 0.4) -> Samples:
    """Return a tone in noise [N, K] at ``RATE_HZ``."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = 0.02 * np.random.default_rng(0).standard_normal((len(time), channels))
    return (0.3 * np.sin(2 * np.pi * 200 * time)[:, None] + noise).astype(np.float32)


def encoded(samples: Samples, form: str, subtype: str) -> bytes:
    """Return a file of ``samples`` [N, K]; equal arguments give equal bytes."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format=form, subtype=subtype)
    content = bytearray(file.getvalue())
    if (peak := content.find(b"PEAK")) >= 0:  # of float samples, with the time of writing after size and version
        content[peak + 12 : peak + 16] = bytes(4)
    return bytes(content)


@functools.cache
def _whole(form: str, subtype: str, channels: int) -> bytes:
    return encoded(tone(1 if subtype == "GSM610" else channels), form, subtype)


def _flip_header_bits(rng: random.Random, content: bytearray) -> bytes:
    return flip_bits(rng, content, 4, _HEADER_BYTES)


def _lie_in_header(rng: random.Random, content: bytearray) -> bytes:
    """Set a number in the header, such as a size, rate or count, to an extreme one."""
    size = rng.choice((2, 4, 8))
    value = rng.choice((0, 1, (1 << (8 * size - 1)) - 1, 1 << (8 * size - 1), (1 << (8 * size)) - 2))
    place = rng.randrange(4, _HEADER_BYTES - size)
    content[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return bytes(content)


def _promise_terabytes(rng: random.Random, content: bytearray) -> bytes:
    """Set the length that the format declares to the largest that its field holds."""
    if content.startswith(b"fLaC"):
        content[21] |= 0x0F
        content[22:26] = b"\xff" * 4
    for name, place, field in (
        (b"Xing", 8, b"\x7f\xff\xff\xf0"),
        (b"Info", 8, b"\x7f\xff\xff\xf0"),
        (b"data", 4, b"\x7f" + b"\xff" * 6 + b"\xf0"),
        (b"SSND", 4, b"\x7e\xff\xff\xf0"),
        (b".snd", 8, b"\x7e\xff\xff\xf0"),
    ):
        if (found := content.find(name)) >= 0:
            content[found + place : found + place + len(field)] = field
    return bytes(content)


def _rate_of_1_hz(rng: random.Random, content: bytearray) -> bytes:
    rates = (struct.pack("<I", RATE_HZ), struct.pack(">I", RATE_HZ), struct.pack(">d", RATE_HZ))
    lies = (struct.pack("<I", 1), struct.pack(">I", 1), struct.pack(">d", 1))
    for rate, lie in zip(rates, lies, strict=True):
        content = content.replace(rate, lie, 1)
    return bytes(content)


def _cut_in_header(rng: random.Random, content: bytearray) -> bytes:
    return bytes(content[: rng.randrange(_HEADER_BYTES)])


def _header_of_another(rng: random.Random, content: bytearray) -> bytes:
    _, form, subtype = rng.choice(FORMATS)
    return _whole(form, subtype, 1)[: rng.randrange(4, _HEADER_BYTES)] + bytes(content[_HEADER_BYTES:])


_OF_BYTES: Mapping[str, Callable[[random.Random, bytearray], bytes]] = {
    "flipped": flip_bits,
    "flipped-header": _flip_header_bits,
    "lying-header": _lie_in_header,
    "terabytes": _promise_terabytes,
    "rate-1-hz": _rate_of_1_hz,
    "cut": cut,
    "cut-header": _cut_in_header,
    "lost-block": lose_block,
    "zero-block": zero_block,
    "inserted-noise": insert_noise,
    "appended-noise": append_noise,
    "other-header": _header_of_another,
    "noise": noise,
    "header-and-zeros": lambda rng, content: bytes(content[: rng.randrange(_HEADER_BYTES)]) + bytes(100_000),
    "empty": nothing,
}

_OF_SAMPLES: Mapping[str, Callable[[Samples], Samples]] = {
    "nan": lambda samples: np.where(np.arange(len(samples))[:, None] == 1000, np.float32(np.nan), samples),
    "infinite": lambda samples: np.where(np.arange(len(samples))[:, None] == 1000, np.float32(np.inf), samples),
    "integer-scale": lambda samples: samples * 32768,
    "cancelling-channels": lambda samples: samples[:, :1] * np.array([1, -1], np.float32),
    "offset": lambda samples: samples + np.float32(0.2),
    "silent": lambda samples: samples * 0,
    "constant": lambda samples: samples * 0 + np.float32(0.01),
}


def _make_socket(path: Path) -> None:
    # The name of a socket has at most 107 bytes, so it is bound from its folder.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


_NOT_FILES: Mapping[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "socket": _make_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "broken-link": lambda path: path.symlink_to("nowhere"),
    "looping-link": lambda path: path.symlink_to(path.name),
    "folder": Path.mkdir,
}

DAMAGES = (*_OF_BYTES, *_OF_SAMPLES, *_NOT_FILES)
"""What is wrong with a file, in the order of ``write_damaged``."""

ALWAYS_UNUSABLE = frozenset({"cut-header", "noise", "empty", *_OF_SAMPLES, *_NOT_FILES})
"""Damages that leave no file to read; the others may be harmless, or unnoticed in a format without checksums."""
