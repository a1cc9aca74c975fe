"""Framing and power spectra, against NumPy, SciPy and librosa."""

import librosa
import numpy as np
import pytest
import torch
from scipy.signal import get_window

from ser_lightning.errors import ConfigurationError
from ser_lightning.features.spectra import ShortTimeSpectrum, Window


@pytest.mark.parametrize("window", ["hamming", "hann"])
def test_the_window_is_the_periodic_one(window: Window) -> None:
    spectrum = ShortTimeSpectrum(16000, 0.025, 0.010, window, 512, None)
    np.testing.assert_allclose(spectrum.weights, get_window(window, 400), atol=1e-7)


@pytest.mark.parametrize(("seconds", "dft_length"), [(0.025, 512), (0.040, 1600), (0.032, 512)])
def test_power_equals_that_of_librosa_in_float64(seconds: float, dft_length: int) -> None:
    waveform = np.random.default_rng(0).normal(size=8000)
    spectrum = ShortTimeSpectrum(16000, seconds, 0.010, "hamming", dft_length, None)
    power, lengths = spectrum(torch.from_numpy(waveform)[None], torch.tensor([8000]))
    window_length = round(seconds * 16000)
    # librosa centres a short window in the transform, which delays it by half the difference.
    delay = (dft_length - window_length) // 2
    expected = librosa.stft(
        np.pad(waveform, (delay, dft_length)),
        n_fft=dft_length,
        hop_length=160,
        win_length=window_length,
        window=spectrum.weights.double().numpy(),
        center=False,
    )
    np.testing.assert_allclose(power[0].T, np.abs(expected[:, : int(lengths)]) ** 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (399, 1), (400, 1), (559, 1), (560, 2), (16000, 98)])
def test_there_is_a_frame_per_whole_window_at_least_one(samples: int, frames: int) -> None:
    spectrum = ShortTimeSpectrum(16000, 0.025, 0.010, "hann", None, None)
    power, lengths = spectrum(torch.ones(1, samples), torch.tensor([samples]))
    assert power.shape == (1, frames, 257)
    assert lengths.tolist() == [frames]
    assert spectrum.num_frames(torch.tensor([samples])).tolist() == [frames]


def test_a_tone_is_loudest_at_its_own_frequency() -> None:
    spectrum = ShortTimeSpectrum(16000, 0.040, 0.010, "hamming", 1600, 4000.0)
    tone = torch.sin(2 * torch.pi * 1230.0 * torch.arange(16000) / 16000)
    power, _ = spectrum(tone[None], torch.tensor([16000]))
    assert {spectrum.bin_frequencies_hz[int(bin)] for bin in power[0].argmax(dim=-1)} == {1230.0}


def test_ten_hertz_bins_below_4_khz_are_400_from_0_to_3990_hz() -> None:
    frequencies_hz = ShortTimeSpectrum(16000, 0.040, 0.010, "hamming", 1600, 4000.0).bin_frequencies_hz
    assert frequencies_hz == [10.0 * k for k in range(400)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((16000, 0.025, 0.010, "hann", 256, None), "256"),
        ((16000, 0.0, 0.010, "hann", None, None), "window_seconds"),
        ((16000, 0.025, 0.00001, "hann", None, None), "1e-05"),
        ((16000, 0.025, 0.010, "hann", None, -5.0), "-5.0"),
    ],
)
def test_numbers_that_do_not_fit_are_named(
    arguments: tuple[int, float, float, Window, int | None, float | None], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ShortTimeSpectrum(*arguments)
