"""Silence removal."""

import math

import librosa
import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import MagnitudeSpectrogram, SilenceRemoval


def speech_and_silence() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(48000, generator=generator) * 1e-4
    for start in (8000, 28000):
        waveform[start : start + 8000] += torch.randn(8000, generator=generator) * 0.1
    return waveform


def test_the_sounds_are_those_of_librosa_joined_in_order() -> None:
    waveform = speech_and_silence()
    extractor = SilenceRemoval(MagnitudeSpectrogram(), top_db=30.0)
    stretches = librosa.effects.split(waveform.numpy(), top_db=30.0, frame_length=1024, hop_length=256)
    assert len(stretches) == 2
    sound = extractor.heard(waveform)
    assert torch.equal(sound, torch.cat([waveform[start:end] for start, end in stretches]))
    assert 16000 <= len(sound) <= 16000 + 4 * 1024
    frames, lengths = extractor(waveform[None], torch.tensor([48000]))
    expected, expected_lengths = MagnitudeSpectrogram()(sound[None], torch.tensor([len(sound)]))
    assert torch.equal(frames, expected)
    assert torch.equal(lengths, expected_lengths)


@pytest.mark.parametrize("waveform", [speech_and_silence(), torch.zeros(4000)])
def test_the_sounds_are_followed_by_their_reverse_if_asked(waveform: torch.Tensor) -> None:
    plain, doubled = (SilenceRemoval(MagnitudeSpectrogram(), 30.0, append_reversed=asked) for asked in (False, True))
    sound = plain.heard(waveform)
    assert torch.equal(doubled.heard(waveform), torch.cat([sound, sound.flip(0)]))
    stored, _ = doubled.split_for_device()
    samples, lengths = stored(waveform[None], torch.tensor([len(waveform)]))
    assert torch.equal(samples[0, :, 0], doubled.heard(waveform))
    assert lengths.tolist() == [2 * len(sound)]


def test_a_higher_threshold_never_keeps_less() -> None:
    kept = [
        len(SilenceRemoval(MagnitudeSpectrogram(), top_db).heard(speech_and_silence())) for top_db in (5.0, 30.0, 90.0)
    ]
    assert kept == sorted(kept)
    assert kept[-1] == 48000


@pytest.mark.parametrize("waveform", [torch.zeros(4000), torch.full((4000,), 1e-6), torch.ones(10)])
def test_a_clip_without_a_louder_part_stays_whole(waveform: torch.Tensor) -> None:
    assert torch.equal(SilenceRemoval(MagnitudeSpectrogram(), 30.0).heard(waveform), waveform)


def test_the_threshold_is_relative_to_the_clips_own_level() -> None:
    extractor = SilenceRemoval(MagnitudeSpectrogram(), top_db=30.0)
    loud = extractor.heard(speech_and_silence())
    quiet = extractor.heard(speech_and_silence() * math.pow(10.0, -40 / 20))
    assert len(loud) == len(quiet)


def test_sizes_are_those_of_the_inner_extractor() -> None:
    inner = MagnitudeSpectrogram(hop_seconds=0.020)
    extractor = SilenceRemoval(inner, top_db=30.0)
    assert (extractor.num_features, extractor.hop_seconds, extractor.sample_rate_hz) == (257, 0.020, 16000)


def test_a_threshold_that_is_not_positive_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"top_db \(0.0\)"):
        SilenceRemoval(MagnitudeSpectrogram(), top_db=0.0)
