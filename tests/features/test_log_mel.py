"""Log-Mel energies, against librosa."""

import librosa
import numpy as np
import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogMelFilterbank


@pytest.mark.parametrize(("num_mels", "low_hz", "high_hz"), [(40, 0.0, None), (26, 20.0, 7600.0)])
def test_the_filters_equal_librosas_on_the_htk_scale(num_mels: int, low_hz: float, high_hz: float | None) -> None:
    extractor = LogMelFilterbank(num_mels=num_mels, min_frequency_hz=low_hz, max_frequency_hz=high_hz)
    expected = librosa.filters.mel(
        sr=16000, n_fft=512, n_mels=num_mels, fmin=low_hz, fmax=high_hz, htk=True, norm=None, dtype=np.float64
    )
    np.testing.assert_allclose(extractor.filters[::2].T, expected, atol=2e-5)
    assert extractor.filters[::2].equal(extractor.filters[1::2])


def test_log_energies_equal_those_of_librosa() -> None:
    waveform = np.random.default_rng(0).normal(scale=0.1, size=16000)
    frames, lengths = LogMelFilterbank()(torch.from_numpy(waveform)[None], torch.tensor([16000]))
    energies = librosa.feature.melspectrogram(
        y=np.pad(waveform, (56, 512)),  # librosa centres the window of 400 samples in the transform's 512
        sr=16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        window="hamming",
        center=False,
        n_mels=40,
        htk=True,
        norm=None,
    )
    expected = np.log(np.maximum(energies, 1e-10)).T[: int(lengths)]
    assert frames.shape == (1, 98, 40)
    np.testing.assert_allclose(frames[0], expected, atol=1e-5)


def test_digital_silence_gives_the_logarithm_of_the_floor() -> None:
    frames, _ = LogMelFilterbank(floor=1e-4)(torch.zeros(1, 4000), torch.tensor([4000]))
    torch.testing.assert_close(frames, torch.full_like(frames, np.log(1e-4)))


def test_filters_too_narrow_for_the_transform_are_rejected() -> None:
    with (
        pytest.warns(UserWarning, match="all zero values"),
        pytest.raises(ConfigurationError, match=r"num_mels \(128\).*dft_length.*512"),
    ):
        LogMelFilterbank(num_mels=128)


def test_band_edges_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"9000"):
        LogMelFilterbank(max_frequency_hz=9000.0)
    with pytest.raises(ConfigurationError, match=r"min_frequency_hz \(300.0\)"):
        LogMelFilterbank(min_frequency_hz=300.0, max_frequency_hz=200.0)
    with pytest.raises(ConfigurationError, match=r"num_mels \(0\)"):
        LogMelFilterbank(num_mels=0)


def test_gradients_reach_the_waveform() -> None:
    extractor, lengths = LogMelFilterbank(num_mels=8), torch.tensor([700])
    waveform = torch.randn(1, 700, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.equal(extractor(waveform, lengths)[0].detach(), extractor(waveform.detach(), lengths)[0])
    assert torch.autograd.gradcheck(lambda samples: extractor(samples, lengths)[0].sum(-1), waveform, nondet_tol=0)
