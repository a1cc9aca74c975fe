"""The log-power spectrogram, against a plain loop."""

import numpy as np
import pytest
import torch
from scipy.signal import get_window

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogPowerSpectrogram


def test_log_power_equals_that_of_a_plain_loop() -> None:
    waveform = np.random.default_rng(0).normal(scale=0.1, size=8000)
    extractor = LogPowerSpectrogram(window_seconds=0.040, dft_length=1600, max_frequency_hz=4000.0)
    frames, lengths = extractor(torch.from_numpy(waveform)[None], torch.tensor([8000]))
    window = get_window("hamming", 640)
    expected = [
        np.log(np.abs(np.fft.rfft(waveform[start : start + 640] * window, 1600)[:400]) ** 2)
        for start in range(0, 8000 - 640 + 1, 160)
    ]
    assert frames.shape == (1, int(lengths), 400)
    assert extractor.num_features == 400
    np.testing.assert_allclose(frames[0], np.stack(expected), atol=1e-4)  # the window is held in float32


def test_all_bins_are_kept_without_an_upper_frequency() -> None:
    assert LogPowerSpectrogram(dft_length=512).num_features == 257


def test_silence_gives_the_logarithm_of_the_floor() -> None:
    frames, _ = LogPowerSpectrogram(floor=1e-6)(torch.zeros(1, 1000), torch.tensor([1000]))
    torch.testing.assert_close(frames, torch.full_like(frames, np.log(1e-6)))
    with pytest.raises(ConfigurationError, match=r"floor \(0.0\)"):
        LogPowerSpectrogram(floor=0.0)
