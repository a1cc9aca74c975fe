"""Samples that are not sound: integer scale, channels that cancel, offsets."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_lightning.audio import read_audio, read_blocks, read_crop
from ser_lightning.errors import AudioError
from tools.damaged_audio import Samples, tone


def write(path: Path, samples: Samples, rate_hz: int = 16000) -> Path:
    soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return path


def reason(path: Path) -> str:
    found = []
    for reader in (lambda: read_audio(path, 16000), lambda: list(read_blocks(path, 16000, 777))):
        with pytest.raises(AudioError) as caught:
            reader()
        found.append(caught.value.problems[path])
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("scale", [128, 32768, 2**31])
def test_float_samples_in_an_integer_scale_are_named(tmp_path: Path, scale: int) -> None:
    samples = tone(2) * scale
    first = int(np.flatnonzero((np.abs(samples) > 8).any(axis=1))[0])
    value = samples[first][np.abs(samples[first]).argmax()]
    text = reason(write(tmp_path / "clip.wav", samples))
    assert f"sample {first} " in text
    assert f"is {value:g}," in text


def test_float_samples_above_full_scale_are_kept(tmp_path: Path) -> None:
    samples = tone() * 8  # peaks of 2.9
    assert torch.equal(read_audio(write(tmp_path / "loud.wav", samples), 16000), torch.from_numpy(samples[:, 0]))


@pytest.mark.parametrize(("noise", "words"), [(0.0, "silent"), (0.003, "40 dB below")])
def test_channels_that_cancel_are_named(tmp_path: Path, noise: float, words: str) -> None:
    left = tone()[:, 0]
    power = np.var(left)
    rest = np.random.default_rng(1).standard_normal(len(left))
    rest *= noise and np.sqrt(power * 1e-4) / rest.std()  # -40 dB
    text = reason(write(tmp_path / "clip.wav", np.stack([left + rest, rest - left], axis=1).astype(np.float32)))
    assert "2 channels cancel" in text
    assert words in text


@pytest.mark.parametrize("right", [0.0, 1.0, -0.8])
def test_channels_that_differ_are_mixed(tmp_path: Path, right: float) -> None:
    left = tone()[:, 0]
    path = write(tmp_path / "clip.wav", np.stack([left, right * left], axis=1))
    torch.testing.assert_close(read_audio(path, 16000), torch.from_numpy(left * (1 + right) / 2))


@pytest.mark.parametrize(
    ("gain", "offset"), [(1.0, 0.2), (1.0, -0.06), (0.05, 0.02), (0.0, 0.3)], ids=["large", "negative", "quiet", "only"]
)
def test_a_constant_offset_is_named(tmp_path: Path, gain: float, offset: float) -> None:
    samples = gain * tone() + np.float32(offset) + 1e-4 * np.random.default_rng(0).standard_normal((6400, 1))
    assert f"offset of {offset:.3f}" in reason(write(tmp_path / "clip.wav", samples))


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.03), (0.01, 0.005)])
def test_offsets_of_sound_cards_are_accepted(tmp_path: Path, gain: float, offset: float) -> None:
    samples = (gain * tone() + np.float32(offset)).astype(np.float32)
    assert len(read_audio(write(tmp_path / "clip.wav", samples), 16000)) == 6400


def test_a_tenth_of_a_second_may_have_a_mean(tmp_path: Path) -> None:
    assert len(read_audio(write(tmp_path / "short.wav", tone(1, 0.09) + np.float32(0.2)), 16000)) == 1440
    assert len(read_audio(write(tmp_path / "sample.wav", np.float32([[0.01]])), 16000)) == 1


def test_a_constant_file_holds_no_audio(tmp_path: Path) -> None:
    text = reason(write(tmp_path / "clip.wav", np.full((6400, 2), 0.01, np.float32)))
    assert "all 6400 samples are 0.01" in text


def test_a_crop_is_checked_as_the_whole_is(tmp_path: Path) -> None:
    for samples, words in ((tone(1, 3.0) + 0.2, "offset"), (tone(1, 3.0) * np.float32([[1, -1]]), "cancel")):
        with pytest.raises(AudioError, match=words):
            read_crop(write(tmp_path / "clip.wav", samples), 16000, 32000, 0.5)
