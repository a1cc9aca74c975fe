"""Reading spectrograms from the feature store, and making batches of them, against NumPy memory maps; one core."""
# Shapes: T frames, F features a frame.

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from benchmarks.features import NUM_CLIPS, write_clips
from benchmarks.row import Row, compare
from ser_lightning.data.batches import FrameDataset, keep_batch
from ser_lightning.data.samplers import BucketBatchSampler
from ser_lightning.features import FeatureStore, MagnitudeSpectrogram
from ser_lightning.types import Batch

EPOCHS = 5  # 1,000 clips: 0.1 s is 10,000 clips a second
BATCH_SIZE = 32
REPETITIONS = 7


def rows() -> list[Row]:
    """Return the rows of reading at random, of the loader and of frames that are held on the device."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_clips(Path(folder) / "audio")
        store = FeatureStore(Path(folder) / "store", MagnitudeSpectrogram(window_seconds=0.032))
        store.prepare(paths, progress=False)
        frames = store.load(paths)
        np.save(Path(folder) / "frames.npy", torch.cat(frames).numpy())
        rows = np.load(Path(folder) / "frames.npy", mmap_mode="c")
        mapped = np.split(rows, np.cumsum([len(clip) for clip in frames])[:-1])
        return [reading_row(frames, mapped), *loader_rows(frames, mapped)]


def reading_row(frames: list[Tensor], mapped: list[NDArray[np.float32]]) -> Row:
    """Compare copies of a loaded store's frames in random order with copies of a memory map's rows."""
    order = np.random.default_rng(0).permutation(len(frames)).tolist() * EPOCHS

    def ours() -> None:
        for index in order:
            frames[index].clone()

    def theirs() -> None:
        for index in order:
            mapped[index].copy()

    name = f"reading {len(order)} spectrograms of the store at random"
    return compare(name, "one NumPy memory map", ours, theirs, 1.5, REPETITIONS)


def loader_rows(frames: list[Tensor], mapped: list[NDArray[np.float32]]) -> list[Row]:
    """Compare the loader, from the store and from a set held on the device, with a bare loop on the same batches."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lengths = [len(clip) for clip in frames]
    sampler = BucketBatchSampler(lengths, BATCH_SIZE, seed=0)
    batches = list(sampler)

    def loader(held: bool) -> DataLoader[Batch]:
        dataset = FrameDataset(frames, [0] * len(frames), torch.ones(len(frames), 1))
        if held:
            dataset.hold(device)
        pinned = device.type == "cuda" and not held
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=keep_batch, pin_memory=pinned)

    def bare() -> Iterator[Tensor]:
        for batch in batches:
            yield pad_sequence([torch.from_numpy(mapped[index]) for index in batch], batch_first=True)

    def epochs(made: Callable[[], Iterable[Batch | Tensor]]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(EPOCHS):
                for batch in made():  # alive until the next one is made, as in training
                    batch.to(device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    stored, on_device = loader(held=False), loader(held=True)
    name = f"batches of {EPOCHS * NUM_CLIPS} spectrograms"
    return [
        compare(
            f"{name}, loader", "a bare loop on a memory map", epochs(stored.__iter__), epochs(bare), 1.25, REPETITIONS
        ),
        compare(
            f"{name}, held on the {device.type}",
            "the same loop",
            epochs(on_device.__iter__),
            epochs(bare),
            1.25,
            REPETITIONS,
        ),
    ]
