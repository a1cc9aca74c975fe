"""Properties of every extractor."""

import json

import pytest
import torch
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import (
    FeatureExtractor,
    LogMelFilterbank,
    LogPowerSpectrogram,
    MagnitudeSpectrogram,
    SilenceRemoval,
    SpeedPerturbation,
    Waveform,
    build_extractor,
)

EXTRACTORS = {
    "log_mel": LogMelFilterbank(),
    "log_mel_wide": LogMelFilterbank(num_mels=64, dft_length=1024, min_frequency_hz=20.0, max_frequency_hz=7600.0),
    "log_power": LogPowerSpectrogram(window_seconds=0.040, dft_length=1600, max_frequency_hz=4000.0),
    "magnitude": MagnitudeSpectrogram(window_seconds=0.032, dft_length=512),
    "silence_removal": SilenceRemoval(MagnitudeSpectrogram(), top_db=30.0),
}
EVERY = pytest.mark.parametrize("extractor", EXTRACTORS.values(), ids=EXTRACTORS.keys())
LENGTHS = (16000, 5000, 12345, 700, 399, 1)


def clips(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    waveforms = [torch.randn(length, generator=generator, dtype=torch.float64) * 0.1 for length in LENGTHS]
    for waveform in waveforms[:3]:
        waveform[1000:4000] *= 1e-3  # something for the silence removal
    return [waveform.to(dtype) for waveform in waveforms]


def pad(waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    return torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True), lengths


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_padding_never_changes_the_frames_of_an_utterance(
    extractor: FeatureExtractor, dtype: torch.dtype, tolerance: float
) -> None:
    waveforms = clips(dtype)
    together, lengths = extractor(*pad(waveforms))
    assert together.dtype == dtype
    for index, waveform in enumerate(waveforms):
        alone, length = extractor(waveform[None], torch.tensor([len(waveform)]))
        assert alone.shape == (1, int(length), extractor.num_features)
        assert lengths[index] == length[0] >= 1
        real = together[index, : int(length)]
        scale = alone.abs().max().clamp_min(1.0)
        assert (real - alone[0]).abs().max() <= tolerance * scale
        assert not together[index, int(length) :].any()


@EVERY
def test_samples_past_the_end_never_matter(extractor: FeatureExtractor) -> None:
    waveforms, lengths = pad(clips(torch.float64))
    noisy = waveforms.clone()
    for index, length in enumerate(LENGTHS):
        noisy[index, length:] = 7.0
    for clean, dirty in zip(extractor(waveforms, lengths), extractor(noisy, lengths), strict=True):
        torch.testing.assert_close(dirty, clean, atol=1e-8, rtol=0)


@EVERY
def test_autocast_to_half_precision_changes_nothing(extractor: FeatureExtractor) -> None:
    waveforms, lengths = pad(clips(torch.float32))
    expected, _ = extractor(waveforms, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        frames, _ = extractor(waveforms, lengths)
    assert frames.dtype == torch.float32
    assert torch.equal(frames, expected)


@EVERY
def test_a_waveform_in_half_precision_gives_float32_frames(extractor: FeatureExtractor) -> None:
    waveforms, lengths = pad(clips(torch.float32))
    frames, _ = extractor(waveforms.bfloat16(), lengths)
    expected, _ = extractor(waveforms.bfloat16().float(), lengths)
    assert frames.dtype == torch.float32
    assert torch.equal(frames, expected)


@EVERY
def test_an_extractor_is_rebuilt_from_its_json_configuration(extractor: FeatureExtractor) -> None:
    configuration = json.loads(json.dumps(extractor.configuration()))
    again = build_extractor(configuration)
    assert type(again) is type(extractor)
    assert again.configuration() == extractor.configuration()
    for expected, frames in zip(extractor(*pad(clips(torch.float32))), again(*pad(clips(torch.float32))), strict=True):
        assert torch.equal(frames, expected)


@EVERY
def test_an_extractor_adds_nothing_to_a_checkpoint(extractor: FeatureExtractor) -> None:
    assert extractor.state_dict() == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EVERY
def test_frames_on_the_device_equal_those_on_the_cpu(extractor: FeatureExtractor) -> None:
    waveforms, lengths = pad(clips(torch.float64))
    expected, expected_lengths = extractor(waveforms, lengths)
    on_device = build_extractor(extractor.configuration()).cuda()
    frames, frame_lengths = on_device(waveforms.cuda(), lengths.cuda())
    assert frames.is_cuda
    torch.testing.assert_close(frames.cpu(), expected, atol=1e-8, rtol=1e-8)
    assert torch.equal(frame_lengths.cpu(), expected_lengths)


@EVERY
def test_stored_and_device_part_together_equal_the_extractor(
    extractor: FeatureExtractor,
) -> None:
    waveforms, lengths = pad(clips(torch.float32))
    expected, expected_lengths = extractor(waveforms, lengths)
    stored, device = extractor.split_for_device()
    samples, sample_lengths = stored(waveforms, lengths)
    assert samples.shape == (len(LENGTHS), int(sample_lengths.max()), 1)
    frames, frame_lengths = device(samples.squeeze(2), sample_lengths)
    assert torch.equal(frame_lengths, expected_lengths)
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)
    assert torch.equal(device.num_frames(sample_lengths), expected_lengths)
    assert device.num_features == extractor.num_features


@EVERY
@pytest.mark.parametrize("num_frames", [1, 2, 37])
def test_a_stretch_of_samples_gives_the_frames_that_lie_there(extractor: FeatureExtractor, num_frames: int) -> None:
    _, device = extractor.split_for_device()
    waveform = clips(torch.float64)[0]
    frames, _ = device(waveform[None], torch.tensor([len(waveform)]))
    length = device.num_samples(num_frames)
    for first in (0, 5, frames.shape[1] - num_frames):
        start = first * device.hop_length
        stretch = waveform[start : start + length]
        cropped, cropped_lengths = device(stretch[None], torch.tensor([len(stretch)]))
        assert cropped_lengths.tolist() == [num_frames]
        torch.testing.assert_close(cropped[0], frames[0, first : first + num_frames], atol=1e-8, rtol=0)


def test_silence_is_cut_before_storing_at_any_speed() -> None:
    extractor = SpeedPerturbation(SilenceRemoval(MagnitudeSpectrogram(), top_db=30.0), 1.1)
    waveform = clips(torch.float32)[0][None]
    lengths = torch.tensor([waveform.shape[1]])
    stored, device = extractor.split_for_device()
    assert isinstance(device, MagnitudeSpectrogram)
    samples, sample_lengths = stored(waveform, lengths)
    expected, _ = extractor(waveform, lengths)
    assert int(sample_lengths) < 16000 / 1.1
    torch.testing.assert_close(device(samples.squeeze(2), sample_lengths)[0], expected)


def test_an_extractor_of_unknown_frame_count_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"SilenceRemoval.*data\.init_args\.features to stored"):
        SilenceRemoval(MagnitudeSpectrogram(), top_db=30.0).num_samples(10)


def test_a_waveform_is_given_as_it_is_and_zero_past_its_end() -> None:
    waveforms = torch.ones(2, 5)
    frames, lengths = Waveform()(waveforms, torch.tensor([5, 3]))
    assert frames.tolist() == [[[1.0]] * 5, [[1.0]] * 3 + [[0.0]] * 2]
    assert lengths.tolist() == [5, 3]
    assert waveforms.all(), "the waveforms were changed in place"
    assert Waveform(8000).num_samples(300) == 300
