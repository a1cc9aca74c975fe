"""Headers that declare what their file cannot hold, and paths that are not files."""

import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_lightning.audio import audio_digest, duration_seconds, read_audio, read_blocks, read_crop
from ser_lightning.audio.headers import FORMATS
from ser_lightning.errors import AudioError
from ser_lightning.features import FeatureStore, LogMelFilterbank
from tools.damaged_audio import encoded, tone

READERS: tuple[Callable[[Path], object], ...] = (
    duration_seconds,
    lambda path: read_audio(path, 16000),
    lambda path: list(read_blocks(path, 16000, 1000)),
    lambda path: read_crop(path, 16000, 1000, 0.5),
)


def reasons(path: Path, readers: tuple[Callable[[Path], object], ...] = READERS) -> str:
    """Return the reason that all readers give."""
    found = set()
    for reader in readers:
        with pytest.raises(AudioError) as caught:
            reader(path)
        found.add(caught.value.problems[path])
    (reason,) = found
    return reason


def flac_that_promises(samples: int) -> bytes:
    content = bytearray(encoded(tone(), "FLAC", "PCM_16"))
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(content)


def mp3_that_promises(frames: int) -> bytes:
    content = bytearray(encoded(tone(), "MP3", "MPEG_LAYER_III"))
    place = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[place : place + 4] = struct.pack(">I", frames)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (flac_that_promises(1 << 33), "8589934592 samples"),  # 32 GiB as float32
        (mp3_that_promises(0xC0000000), "samples"),  # 6.8 TiB
    ],
    ids=["flac", "mp3"],
)
def test_a_length_beyond_the_bytes_is_damage(tmp_path: Path, content: bytes, declared: str) -> None:
    path = tmp_path / "lie.flac"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert declared in reasons(path)
    assert f"{len(content)} bytes" in reasons(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # KiB


def test_a_length_that_could_be_true_is_found_by_decoding(tmp_path: Path) -> None:
    path = tmp_path / "lie.flac"
    path.write_bytes(flac_that_promises(100_000))
    assert "truncated" in reasons(path, READERS[1:3])


def test_a_lying_header_is_skipped_like_other_bad_audio(tmp_path: Path) -> None:
    lie, good = tmp_path / "lie.flac", tmp_path / "good.flac"
    lie.write_bytes(flac_that_promises(1 << 33))
    good.write_bytes(encoded(tone(), "FLAC", "PCM_16"))
    prepared = FeatureStore(tmp_path / "store", LogMelFilterbank()).prepare([lie, good], progress=False)
    assert prepared.extracted == 1
    assert list(prepared.problems) == [lie]


@pytest.mark.parametrize("rate_hz", [1, 3999, 768_001, 160_000_000])
def test_a_rate_that_no_recording_has_is_named(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "rate.wav"
    content = bytearray(encoded(tone(1, 3.0), "WAV", "PCM_16"))
    struct.pack_into("<I", content, 24, rate_hz)
    path.write_bytes(content)
    assert f"{rate_hz} Hz" in reasons(path)


@pytest.mark.parametrize("size", [1 << 63, (1 << 63) - 1, (1 << 64) - 2])
@pytest.mark.parametrize("name", [b"data", b"free", b"desc"])
def test_a_caf_chunk_of_more_than_the_file_is_damage(tmp_path: Path, name: bytes, size: int) -> None:
    path = tmp_path / "chunk.caf"
    content = bytearray(encoded(tone(), "CAF", "PCM_16"))
    if (place := content.find(name)) < 0:
        place, content[8:8] = 8, name + bytes(8)
    struct.pack_into(">Q", content, place + 4, size)
    path.write_bytes(content)
    assert reasons(path)


def test_zeros_are_not_walked_through_as_chunks(tmp_path: Path) -> None:
    path = tmp_path / "zeros.wav"
    with path.open("wb") as file:
        file.write(encoded(tone(), "WAV", "PCM_16")[:16])
        file.truncate(1 << 33)
    assert "no data chunk" in reasons(path) or "before its audio" in reasons(path)


def test_one_flipped_bit_of_an_ogg_page_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.ogg"
    whole = encoded(tone(1, 3.0), "OGG", "VORBIS")
    rng = np.random.default_rng(0)
    for place in rng.integers(4, len(whole), 40):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        assert "Ogg" in reasons(path)


def test_a_missing_ogg_page_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.ogg"
    whole = encoded(tone(1, 20.0), "OGG", "VORBIS")
    starts = [place for place in range(len(whole)) if whole.startswith(b"OggS", place)]
    assert len(starts) > 6
    path.write_bytes(whole[: starts[4]] + whole[starts[5] :])
    assert f"before byte {starts[4]}" in reasons(path)
    path.write_bytes(whole + b"TAG" + bytes(125))  # such as an ID3 tag
    assert len(read_audio(path, 16000)) == 320_000


def test_what_is_not_a_file_is_refused_without_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo, device = tmp_path / "fifo.wav", tmp_path / "device.wav"
    os.mkfifo(fifo)
    device.symlink_to("/dev/zero")

    opened: list[Path] = []
    open_path = Path.open

    def watched(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(self)
        return open_path(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    readers = (*READERS, audio_digest)
    assert "FIFO" in reasons(fifo, readers)
    assert "device" in reasons(device, readers)
    prepared = FeatureStore(tmp_path / "store", LogMelFilterbank()).prepare([fifo, device], progress=False)
    assert set(prepared.problems) == {fifo, device}
    assert not {fifo, device} & set(opened)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_the_content_says_the_format_not_the_ending(tmp_path: Path, form: str) -> None:
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(form, "PCM_16")
    for name in ("clip.wav", "clip.mp3", "clip.raw", "clip.gsm", "clip"):
        (tmp_path / name).write_bytes(encoded(tone(), form, subtype))
        assert len(read_audio(tmp_path / name, 16000)) == 6400


@pytest.mark.parametrize(("form", "subtype"), [("NIST", "PCM_16"), ("VOC", "PCM_16"), ("MAT5", "PCM_16")])
def test_formats_outside_the_list_are_refused(tmp_path: Path, form: str, subtype: str) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(tone(), form, subtype))
    assert "is not read; convert it: ffmpeg" in reasons(path)
    (tmp_path / "clip.raw").write_bytes(bytes(1000))
    assert "cannot be decoded" in reasons(tmp_path / "clip.raw")
