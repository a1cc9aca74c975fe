"""The magnitude spectrogram, against librosa."""

import librosa
import numpy as np
import torch

from ser_lightning.features import MagnitudeSpectrogram


def test_magnitudes_equal_those_of_librosa() -> None:
    waveform = np.random.default_rng(0).normal(scale=0.1, size=8000)
    extractor = MagnitudeSpectrogram(window_seconds=0.032, dft_length=512)
    frames, _ = extractor(torch.from_numpy(waveform)[None], torch.tensor([8000]))
    expected = np.abs(librosa.stft(waveform, n_fft=512, hop_length=160, window="hamming", center=False)).T
    assert frames.shape == (1, 47, 257)
    assert extractor.num_features == 257
    np.testing.assert_allclose(frames[0], expected, atol=1e-6)
