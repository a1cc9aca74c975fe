"""The 147 descriptors, against openSMILE's own ComParE 2016 set."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import ComParE147, build_extractor

opensmile = pytest.importorskip("opensmile")

MFCC = [f"mfcc_sma[{k}]" for k in range(15)]


def voice(seconds: float = 2.0) -> NDArray[np.float32]:
    """Return a buzz of changing pitch, on and off, in noise: voiced, unvoiced and silent parts."""
    time = np.arange(round(seconds * 16000)) / 16000
    buzz = np.sign(np.sin(2 * np.pi * (120 * time + 20 * np.sin(2 * np.pi * time))))
    on = np.sin(2 * np.pi * 1.5 * time) > -0.3
    noise = np.random.default_rng(0).normal(size=len(time))
    waveform: NDArray[np.float32] = (0.3 * buzz * on + 0.01 * noise).astype(np.float32)
    return waveform


def describe(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    frames, lengths = ComParE147()(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    assert frames.shape == (1, int(lengths[0]), 147)
    assert frames.dtype == torch.float32
    values: NDArray[np.float32] = frames[0].numpy()
    return values


def stock(level: str, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel[level])
    values: NDArray[np.float32] = smile(waveform, 16000)[0].T
    return values


def test_the_names_are_descriptors_deltas_and_second_deltas() -> None:
    names = ComParE147().feature_names
    smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.LowLevelDescriptors)
    assert len(smile.feature_names) == 65
    assert names[:66] == [*smile.feature_names, "mfcc_sma[0]"]
    assert names[66:132] == [name.replace("_sma", "_sma_de") for name in names[:66]]
    assert names[132:] == [name.replace("_sma", "_sma_de_de") for name in MFCC]
    assert len(set(names)) == 147


@pytest.mark.parametrize("seconds", [0.5, 2.0, 40.0])
def test_descriptors_and_deltas_equal_the_stock_set_to_the_bit(seconds: float) -> None:
    waveform = voice(seconds)
    ours, plain = describe(waveform), stock("LowLevelDescriptors", waveform)
    assert np.array_equal(ours[:, :65], plain)
    assert np.array_equal(ours[:, 66:131], stock("LowLevelDescriptors_Deltas", waveform)[: len(ours)])


def test_mfcc_0_is_the_smoothed_mean_log_energy_of_26_bands() -> None:
    waveform = voice()
    spectra = librosa.stft(
        np.pad(waveform * 32768, (96, 600)),  # librosa centres the window of 320 samples in the transform's 512
        n_fft=512,
        hop_length=160,
        win_length=320,
        window=np.hamming(320),
        center=False,
    )
    bands = librosa.filters.mel(sr=16000, n_fft=512, n_mels=26, fmin=20, fmax=8000, htk=True, norm=None)
    mfcc_0 = np.sqrt(2 / 26) * np.log(np.maximum(bands @ np.abs(spectra) ** 2, 1e-8)).sum(axis=0)
    smooth = np.convolve(mfcc_0, np.ones(3) / 3, mode="same")
    found = describe(waveform)[:, ComParE147().feature_names.index("mfcc_sma[0]")]
    inner = slice(3, len(found) - 3)
    np.testing.assert_allclose(found[inner], smooth[inner], atol=0.5)  # of values near 150
    assert np.corrcoef(found[inner], smooth[inner])[0, 1] > 0.9999


def test_deltas_are_regressions_over_two_frames_on_each_side() -> None:
    frames = describe(voice())
    by_name = {name: frames[:, index] for index, name in enumerate(ComParE147().feature_names)}
    for name in MFCC:
        levels = [by_name[name.replace("_sma", f"_sma{suffix}")] for suffix in ("", "_de", "_de_de")]
        for below, above in pairwise(levels):
            slope = (below[3:-1] - below[1:-3] + 2 * (below[4:] - below[:-4])) / 10
            np.testing.assert_allclose(above[2:-2], slope, atol=1e-4)


def test_padding_and_batch_mates_change_nothing() -> None:
    waveforms = [torch.from_numpy(voice(seconds)) for seconds in (0.7, 1.0, 0.02)]
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    padded[0, len(waveforms[0]) :] = 0.5
    frames, lengths = ComParE147()(padded, torch.tensor([len(waveform) for waveform in waveforms]))
    for index, waveform in enumerate(waveforms):
        assert np.array_equal(frames[index, : lengths[index]], describe(waveform.numpy()))
        assert not frames[index, lengths[index] :].any()


@pytest.mark.parametrize("samples", [1, 100, 959, 960, 961])
def test_the_shortest_clips_still_give_finite_frames(samples: int) -> None:
    frames = describe(voice()[2000 : 2000 + samples])
    assert len(frames) >= 1
    assert np.isfinite(frames).all()


def test_full_scale_is_not_wrapped_to_the_other_sign() -> None:
    loud = np.clip(10 * voice(1.0), -1.0, 1.0)
    assert np.array_equal(describe(loud), describe(np.minimum(loud, 32767 / 32768)))
    assert np.array_equal(describe(1.5 * loud), describe(np.clip(1.5 * loud, -1.0, 1.0)))


def _extract_in_a_worker(configuration: dict[str, object], waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    frames, _ = build_extractor(configuration)(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    result: NDArray[np.float32] = frames[0].numpy()
    return result


def test_a_worker_process_gives_the_same_numbers() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        found = pool.submit(_extract_in_a_worker, ComParE147().configuration(), voice(0.5)).result()
    assert np.array_equal(found, describe(voice(0.5)))


def test_without_opensmile_the_error_names_extra_and_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[opensmile\]'.*licence.*research"):
        ComParE147()


@pytest.mark.slow
def test_opensmile_and_librosa_are_imported_lazily() -> None:
    code = (
        "import sys; from ser_lightning.features import LogMelFilterbank, ComParE147; LogMelFilterbank(); ComParE147();"
        "print(sorted({'opensmile', 'librosa', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
