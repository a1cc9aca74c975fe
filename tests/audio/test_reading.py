"""Audio files: correct decoding, and a reason for each kind of fault."""

import hashlib
import os
import pickle
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from ser_lightning.audio import audio_digest, duration_seconds, read_audio, read_blocks, read_crop, reading
from ser_lightning.errors import AudioError

Samples = NDArray[np.float32]


def tone(seconds: float = 1.0, rate_hz: int = 16000, frequency_hz: float = 440.0) -> Samples:
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def reason(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path, 16000)
    assert list(caught.value.problems) == [path]
    text = caught.value.problems[path]
    assert "\n" not in text
    return text


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), 16000, subtype="PCM_16")
    return path


@pytest.mark.parametrize(
    ("ending", "subtype", "tolerance"),
    [
        ("wav", "PCM_16", 3.1e-5),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-6),
        ("wav", "FLOAT", 0.0),
        ("wav", "DOUBLE", 0.0),
        ("flac", "PCM_16", 3.1e-5),
        ("flac", "PCM_24", 1e-6),
        ("ogg", "VORBIS", 5e-2),
    ],
)
def test_every_kind_of_file_at_the_target_rate_gives_its_samples(
    tmp_path: Path, ending: str, subtype: str, tolerance: float
) -> None:
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, tone(), 16000, subtype=subtype)
    waveform = read_audio(path, 16000)
    assert waveform.dtype == torch.float32
    assert waveform.shape == (16000,)
    np.testing.assert_allclose(waveform.numpy(), tone(), atol=tolerance, rtol=0)
    assert duration_seconds(path) == 1.0


def test_stereo_at_48_khz_is_mixed_down_and_resampled(tmp_path: Path) -> None:
    low, high = tone(1.0, 48000, 440.0), tone(1.0, 48000, 12000.0)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([low + high, low - high], axis=1), 48000, subtype="FLOAT")
    waveform = read_audio(path, 16000)
    assert waveform.shape == (16000,)
    inner = slice(100, -100)  # the resampler's filter has no neighbours beyond the ends
    np.testing.assert_allclose(waveform.numpy()[inner], tone()[inner], atol=2e-3)


def test_resampling_removes_what_the_target_rate_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "high.wav"
    soundfile.write(path, tone(1.0, 48000, 12000.0), 48000, subtype="FLOAT")
    assert read_audio(path, 16000)[100:-100].abs().max() < 1e-2


@pytest.mark.parametrize(
    "rate_hz", [8000, 11025, 12000, 22050, 24000, 32000, 37800, 44100, 48000, 48048, 88200, 96000, 192000]
)
def test_rates_that_recordings_are_made_at_are_resampled(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(1.0, rate_hz), rate_hz, subtype="FLOAT")
    inner = slice(200, -200)
    np.testing.assert_allclose(read_audio(path, 16000).numpy()[inner], tone()[inner], atol=3e-3)


@pytest.mark.parametrize("rate_hz", [11127, 16001, 22254, 22255, 47999])
def test_a_rate_that_needs_gigabytes_is_rejected_before_decoding(
    tmp_path: Path, rate_hz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, tone(0.1, rate_hz), rate_hz)

    def never(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(soundfile.SoundFile, "read", never)
    monkeypatch.setattr(reading, "Resample", never)
    text = reason(path)
    assert f"sampling rate of {rate_hz} Hz" in text
    assert f'ffmpeg -i "{path}" -ac 1 -ar 16000 -f wav "{path}.new" && mv' in text
    with pytest.raises(AudioError, match=f"{rate_hz} Hz"):
        read_crop(path, 16000, 100, 0.5)
    with pytest.raises(AudioError, match=f"{rate_hz} Hz"):
        next(read_blocks(path, 16000, 100))


def test_few_filters_are_kept(tmp_path: Path) -> None:
    for rate_hz in range(8000, 18000, 500):
        soundfile.write(tmp_path / "tone.wav", tone(0.1, rate_hz), rate_hz)
        read_audio(tmp_path / "tone.wav", 16000)
    assert reading._resampler.cache_info().currsize <= 8


def test_extra_chunks_around_the_audio_are_ignored(wav: Path) -> None:
    content = wav.read_bytes()
    extra = b"LIST" + struct.pack("<I", 5) + b"hello\0"  # an odd size is padded to an even one
    grown = content[:12] + extra + content[12:] + extra
    wav.write_bytes(grown[:4] + struct.pack("<I", len(grown) - 8) + grown[8:])
    assert read_audio(wav, 16000).shape == (16000,)


@pytest.mark.parametrize("sizes", [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000), (36, 0)])
def test_a_wav_written_into_a_pipe_is_read_to_its_end(wav: Path, sizes: tuple[int, int]) -> None:
    content = bytearray(wav.read_bytes())
    struct.pack_into("<I", content, 4, sizes[0])
    struct.pack_into("<I", content, 40, sizes[1])
    wav.write_bytes(content)
    assert read_audio(wav, 16000).shape == (16000,)
    assert duration_seconds(wav) == 1.0


def test_a_wav_of_a_killed_writer_is_read_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    samples = np.random.default_rng(0).integers(-9000, 9000, size=(4_000_000, 2), dtype=np.int16)  # 16 MB
    soundfile.write(path, samples, 16000, subtype="PCM_16")
    whole = [read_crop(path, 16000, 1000, place) for place in (0.0, 0.5, 0.99)]
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 4, 36)
    struct.pack_into("<I", content, 40, 0)
    path.write_bytes(content)
    tracemalloc.start()
    assert duration_seconds(path) == 250.0
    for place, expected in zip((0.0, 0.5, 0.99), whole, strict=True):
        assert torch.equal(read_crop(path, 16000, 1000, place), expected)
    assert sum(len(block) for block in read_blocks(path, 16000, 16000)) == 4_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_a_missing_file_is_called_missing(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.wav").startswith("missing")
    (tmp_path / "link.wav").symlink_to(tmp_path / "none.wav")
    assert "symbolic link" in reason(tmp_path / "link.wav")
    assert "folder" in reason(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_says_so(wav: Path) -> None:
    wav.chmod(0)
    assert "Permission denied" in reason(wav)


def test_a_git_lfs_pointer_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    path = tmp_path / "pointer.wav"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 80000\n")
    assert "git lfs pull" in reason(path)
    with pytest.raises(AudioError, match="git lfs pull"):
        duration_seconds(path)


def test_a_file_that_is_not_audio_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "page.wav"
    path.write_text("<html>404</html>" * 20)
    assert "cannot be decoded" in reason(path)


@pytest.mark.parametrize(
    ("name", "content"), [("clip.m4a", b"\0\0\0\x20ftypM4A " + b"\0" * 64), ("clip.aac", b"\xff\xf1" + b"\x50" * 64)]
)
def test_an_mpeg4_file_gets_the_ffmpeg_command_that_converts_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    text = reason(tmp_path / name)
    assert f'ffmpeg -i "{tmp_path / name}"' in text
    assert f'"{tmp_path / "clip.wav"}"' in text


@pytest.mark.parametrize("kept", [0.001, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_cut_file_is_rejected_and_never_returned_shorter(tmp_path: Path, ending: str, kept: float) -> None:
    path = tmp_path / f"cut.{ending}"
    noise = np.random.default_rng(0).normal(scale=0.1, size=32000)
    soundfile.write(path, noise, 16000)
    content = path.read_bytes()
    path.write_bytes(content[: max(16, int(len(content) * kept))])
    assert any(word in reason(path) for word in ("truncated", "cannot be decoded"))
    if kept == 0.5:
        assert "truncated" in reason(path)


def test_a_cut_wav_says_how_much_is_missing(wav: Path) -> None:
    wav.write_bytes(wav.read_bytes()[: 44 + 10000])
    assert re.search("truncated.*32000.*10000", reason(wav))
    with pytest.raises(AudioError, match="10000"):
        duration_seconds(wav)


@pytest.mark.parametrize("kind", ["WAVEX", "RF64", "W64", "AIFF", "AU", "CAF"])
@pytest.mark.parametrize("kept", [1.0, 0.999, 0.6])
def test_other_formats_named_wav_are_read_and_cut_ones_rejected(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), 16000, format=kind, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    if kept == 1.0:
        assert read_audio(path, 16000).shape == (16000,)
    else:
        assert "truncated" in reason(path)


@pytest.mark.parametrize(("kind", "place", "size"), [("AIFF", 42, 0x7F000008), ("AU", 8, 0xFFFFFFFF)])
def test_other_kinds_written_into_a_pipe_are_read_to_their_end(
    tmp_path: Path, kind: str, place: int, size: int
) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), 16000, format=kind, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    assert struct.unpack_from(">I", content, place)[0] in (32000, 32008)
    struct.pack_into(">I", content, place, size)
    path.write_bytes(content)
    assert read_audio(path, 16000).shape == (16000,)


def test_gsm_of_telephones_which_cannot_be_searched_is_read(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    soundfile.write(path, tone(2.0, 8000), 8000, subtype="GSM610")
    whole = read_audio(path, 16000)
    assert whole.shape == (32000,)
    torch.testing.assert_close(torch.cat(list(read_blocks(path, 16000, 5000))), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(read_crop(path, 16000, 4001, 0.5), whole[14000:18001], atol=1e-6, rtol=0)
    path.write_bytes(path.read_bytes()[:2000])
    assert "truncated" in reason(path)


def test_a_path_that_is_not_utf_8_is_read(tmp_path: Path, wav: Path) -> None:
    folder = tmp_path / os.fsdecode(b"donn\xe9es")
    folder.mkdir()
    moved = wav.rename(folder / wav.name)
    assert read_audio(moved, 16000).shape == (16000,)


def test_an_empty_file_and_a_file_without_samples_are_empty(tmp_path: Path) -> None:
    (tmp_path / "bytes.wav").touch()
    assert "no bytes" in reason(tmp_path / "bytes.wav")
    soundfile.write(tmp_path / "samples.wav", tone(0.0), 16000)
    assert "no samples" in reason(tmp_path / "samples.wav")


def test_silence_of_zeros_is_rejected_with_its_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zero.wav", np.zeros(1234), 16000)
    assert "all 1234 samples are zero" in reason(tmp_path / "zero.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_nan_or_infinite_sample_is_named(tmp_path: Path, value: float) -> None:
    samples = np.stack([tone(20.0), tone(20.0)], axis=1)
    samples[[300_003, 300_005], 1] = value
    soundfile.write(tmp_path / "bad.wav", samples, 16000, subtype="FLOAT")
    assert "sample 300003 (at 18.750 s) is NaN or infinite" in reason(tmp_path / "bad.wav")


def test_the_digest_is_that_of_the_bytes(wav: Path) -> None:
    assert audio_digest(wav) == hashlib.sha256(wav.read_bytes()).hexdigest()
    with pytest.raises(AudioError, match="missing"):
        audio_digest(wav.with_name("none.wav"))


def test_an_audio_error_keeps_its_problems_across_processes(tmp_path: Path) -> None:
    with pytest.raises(AudioError) as caught:
        read_audio(tmp_path / "none.wav", 16000)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("rate_hz", [16000, 48000, 44100, 11025])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_crop_equals_a_slice_of_the_decoded_file(tmp_path: Path, ending: str, rate_hz: int, channels: int) -> None:
    path = tmp_path / f"noise.{ending}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (rate_hz * 2 + 7, channels))
    soundfile.write(path, noise, rate_hz)
    whole = read_audio(path, 16000)
    for place in (0.0, 0.31, 0.5, 0.999999):
        crop = read_crop(path, 16000, 4801, place)
        start = int(place * (len(whole) - 4801 + 1))
        assert crop.shape == (4801,)
        torch.testing.assert_close(crop, whole[start : start + 4801], atol=1e-6, rtol=0)


def test_a_crop_longer_than_the_file_is_the_file(wav: Path) -> None:
    assert torch.equal(read_crop(wav, 16000, 16001, 0.7), read_audio(wav, 16000))
    assert torch.equal(read_crop(wav, 8000, 8000, 0.7), read_audio(wav, 8000))
    assert len(read_crop(wav, 16000, 15999, 0.99)) == 15999


def test_a_crop_decodes_little_more_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(tone(), 60), 16000)
    decoded: list[int] = []
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int, **options: Any) -> Any:
        decoded.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    read_crop(path, 16000, 1000, 0.5)
    read_crop(path, 8000, 1000, 0.5)
    assert decoded[0] == 1000
    assert 2000 < decoded[1] < 2100


def test_a_silent_crop_is_valid_but_a_silent_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "half.wav"
    soundfile.write(path, np.concatenate([np.zeros(8000), tone(0.5)]), 16000)
    assert not read_crop(path, 16000, 4000, 0.0).any()
    soundfile.write(path, np.zeros(8000), 16000)
    with pytest.raises(AudioError, match=r"8000 samples.*zero"):
        read_crop(path, 16000, 9000, 0.0)


def test_a_crop_of_a_bad_file_has_the_reason_of_the_whole(wav: Path) -> None:
    content = wav.read_bytes()
    for bad, words in (
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (content[:20000], "truncated"),
        (b"\0\0\0\x20ftypM4A ", "ffmpeg"),
        (b"nothing known", "cannot be decoded"),
    ):
        wav.write_bytes(bad)
        with pytest.raises(AudioError, match=words) as caught:
            read_crop(wav, 16000, 100, 0.0)
        assert list(caught.value.problems) == [wav]


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("rate_hz", [16000, 48000, 44100, 8000])
@pytest.mark.parametrize("size", [1000, 16000, 4801])
def test_blocks_joined_equal_the_decoded_file(tmp_path: Path, ending: str, rate_hz: int, size: int) -> None:
    path = tmp_path / f"noise.{ending}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (rate_hz + 7, 2)), rate_hz)
    whole = read_audio(path, 16000)
    blocks = list(read_blocks(path, 16000, size))
    assert {len(block) for block in blocks[:-1]} <= {size}
    torch.testing.assert_close(torch.cat(blocks), whole, atol=1e-6, rtol=0)


def test_blocks_decode_every_sample_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(tone(1.0, 48000), 20), 48000)
    decoded: list[int] = []
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int, **options: Any) -> Any:
        decoded.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert sum(len(block) for block in read_blocks(path, 16000, 16000)) == 20 * 16000
    assert sum(decoded) == 20 * 48000
    assert max(decoded) < 2 * 48000


def test_blocks_of_a_bad_file_end_with_the_reason(tmp_path: Path, wav: Path) -> None:
    soundfile.write(tmp_path / "zero.wav", np.zeros(1234), 16000)
    with pytest.raises(AudioError, match=r"1234 samples.*zero"):
        list(read_blocks(tmp_path / "zero.wav", 16000, 500))
    wav.write_bytes(wav.read_bytes()[:20000])
    with pytest.raises(AudioError, match="truncated"):
        list(read_blocks(wav, 16000, 500))
    soundfile.write(wav, np.concatenate([tone(5.0), [np.nan]]), 16000, subtype="FLOAT")
    blocks = read_blocks(wav, 16000, 16000)
    assert torch.equal(next(blocks), torch.from_numpy(tone(5.0)[:16000]).float())
    with pytest.raises(AudioError, match=r"sample 80000 .*NaN"):
        list(blocks)
