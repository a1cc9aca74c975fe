"""Feature extraction against librosa, and the feature store against a loop in memory; one core."""
# Shapes: N samples, T frames, F features a frame.

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import librosa
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.row import Row, compare
from data_modules.ravdess import RAVDESS, write_synthetic
from ser_lightning.audio import read_audio
from ser_lightning.data.protocols import ActorFolds
from ser_lightning.features import (
    ComParE147,
    FeatureExtractor,
    FeatureStore,
    LogMelFilterbank,
    MagnitudeSpectrogram,
)
from ser_lightning.nn.encoders import ThinSEResNet34

NUM_CLIPS, NUM_LLD_CLIPS = 200, 30
NUM_CROPS = 32
CROP_FRAMES = 100
REPETITIONS = 7


def rows() -> list[Row]:
    """Return the rows of extraction, feature store and on-device features."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_clips(Path(folder) / "audio")
        return [
            extraction_row(paths),
            store_row("log-Mel", LogMelFilterbank(), paths, Path(folder) / "stores"),
            store_row("147 LLDs", ComParE147(), paths[:NUM_LLD_CLIPS], Path(folder) / "lld"),
            on_device_row(Path(folder)),
        ]


def write_clips(folder: Path) -> list[Path]:
    """Write ``NUM_CLIPS`` clips of tones in noise, 3 to 4 seconds at 16 kHz and 16 bits; return their paths."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{index:03d}.wav" for index in range(NUM_CLIPS)]
    for path in paths:
        time = np.arange(random.integers(48000, 64000)) / 16000
        tone = np.sin(2 * np.pi * random.uniform(100, 300) * time)
        soundfile.write(path, 0.3 * tone + random.normal(scale=0.05, size=len(time)), 16000)
    return paths


def extraction_row(paths: list[Path]) -> Row:
    """Compare log-Mel extraction from waveforms in memory, one at a time, with librosa."""
    waveforms = [read_audio(path, 16000) for path in paths]
    arrays = [waveform.numpy() for waveform in waveforms]
    extractor = LogMelFilterbank(window="hann")

    def ours() -> list[Tensor]:
        with torch.inference_mode():
            return [extractor(waveform[None], torch.tensor([len(waveform)]))[0] for waveform in waveforms]

    def theirs() -> list[NDArray[np.float32]]:
        return [_log_mel_by_librosa(array) for array in arrays]

    return compare(
        f"log-Mel, {NUM_CLIPS} clips", "librosa's melspectrogram and power_to_db", ours, theirs, 0.25, REPETITIONS
    )


def store_row(name: str, extractor: FeatureExtractor, paths: list[Path], folder: Path) -> Row:
    """Compare filling an empty store with extracting the same frames into memory."""
    fresh = itertools.count()

    def ours() -> None:
        prepared = FeatureStore(folder / str(next(fresh)), extractor).prepare(paths, progress=False)
        if prepared.extracted != len(paths):
            raise RuntimeError(f"{prepared.extracted} of {len(paths)} clips were extracted: {prepared.problems}")

    def theirs() -> list[Tensor]:
        frames = []
        with torch.inference_mode():
            for path in paths:
                waveform = read_audio(path, 16000)
                frames.append(extractor(waveform[None], torch.tensor([len(waveform)]))[0][0])
        return frames

    measured = f"feature store, {name}, {len(paths)} clips"
    return compare(measured, "the same extraction, kept in memory", ours, theirs, 1.2, REPETITIONS)


def on_device_row(folder: Path) -> Row:
    """Compare a training step on frames extracted on the device with one on stored frames.

    Frames and network (a quarter of its width) are those of Mocanu et al. 2021. The device is a CPU, the worst case.
    """
    write_synthetic(folder / "ravdess", speakers=3, seed=0, clips_per_speaker=NUM_CROPS)
    torch.manual_seed(0)
    encoder = ThinSEResNet34(257, channels=16)

    def steps(features: Literal["stored", "on_device"]) -> Callable[[], None]:
        data = RAVDESS(
            folder / "ravdess",
            MagnitudeSpectrogram(window_seconds=0.032),
            ActorFolds("even", 3),
            batch_size=NUM_CROPS,
            feature_folder=folder / "stores",
            features=features,
            crop_frames=CROP_FRAMES,
        )
        data.extract(progress=False)
        data.setup("fit")
        loader = data.train_dataloader()

        def step() -> None:
            for batch in loader:
                made = data.on_after_batch_transfer(batch, 0)
                encoder(made.inputs, made.lengths)[0].square().mean().backward()

        return step

    name = f"training batch of {NUM_CROPS} crops, frames extracted on the device"
    return compare(name, "stored frames", steps("on_device"), steps("stored"), 1.25, REPETITIONS)


def _log_mel_by_librosa(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    energies = librosa.feature.melspectrogram(
        y=waveform, sr=16000, n_fft=512, win_length=400, hop_length=160, center=False, n_mels=40, htk=True, norm=None
    )
    frames: NDArray[np.float32] = librosa.power_to_db(energies, top_db=None)
    return frames
