"""A small corpus of noise and short runs on it, for systems trained in stages."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from ser_lightning.data.batches import FrameDataset, keep_batch
from ser_lightning.data.samplers import BucketBatchSampler, ClassBatchSampler, EvaluationBatchSampler
from ser_lightning.data.targets import TrainingStatistics
from ser_lightning.features import MagnitudeSpectrogram
from ser_lightning.training.callbacks import (
    AtomicCheckpointIO,
    BackgroundCheckpointIO,
    BestCheckpoint,
    EpochSeed,
    LastCheckpoint,
)
from ser_lightning.training.loggers import MetricsTable
from ser_lightning.types import Batch, Split, Utterance

EMOTIONS = ("neutral", "happy", "sad", "angry")
SPEAKERS = ("01", "02", "03", "04", "05", "06")
NUM_BINS = 34


class Halt(Exception):  # noqa: N818  # not an error
    """Stands for a kill."""


class HaltAt(Callback):
    """End a run before a batch of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise Halt


class SwayingNoise(LightningDataModule):
    """One fold of a corpus of noise: six speakers, two utterances per emotion, each emotion modulated at its own rate.

    Fold k tests speaker k + 1 and validates on the next one. With ``recognise="speaker"`` the classes are speakers,
    each with one utterance held out. With ``squared``, frames are squared on the system's device.
    """

    def __init__(
        self,
        fold: int = 0,
        corpus_name: str = "noise",
        recognise: str = "emotion",
        window_seconds: float = 0.004,
        batch_size: int = 8,
        squared: bool = False,
    ) -> None:
        super().__init__()
        self.corpus_name = corpus_name
        self.batch_size = batch_size
        self.squared = squared
        self.recognise = recognise
        self.target_kind = "hard"
        self.extractor = MagnitudeSpectrogram(window_seconds=window_seconds, hop_seconds=0.004, dft_length=66)
        self.class_names = SPEAKERS if recognise == "speaker" else EMOTIONS
        noise = torch.Generator().manual_seed(0)
        self.frames, every = {}, []
        for number in range(len(SPEAKERS) * len(EMOTIONS) * 2):
            speaker, emotion = SPEAKERS[number // 8], EMOTIONS[number // 2 % 4]
            name = f"{speaker}_{emotion}_{number % 2}"
            pace = 2.0 + 2.0 * EMOTIONS.index(emotion) + 0.1 * SPEAKERS.index(speaker)
            time = torch.arange(24 + number % 9)[:, None]
            wave = torch.sin(time / pace + torch.arange(NUM_BINS) / (3.0 + SPEAKERS.index(speaker)))
            self.frames[name] = 2 + wave + 0.3 * torch.rand(len(time), NUM_BINS, generator=noise)
            every.append(Utterance(name, Path("x.wav"), speaker, speaker if recognise == "speaker" else emotion))
        if recognise == "speaker":
            held = {u.name for u in every if u.name.endswith("sad_1")}
            train = tuple(u for u in every if u.name not in held)
            self.own_split = Split(fold, train, tuple(u for u in every if u.name in held), ())
        else:
            test, validation = SPEAKERS[fold], SPEAKERS[fold ^ 1]
            sets = {"test": {test}, "validation": {validation}, "train": set(SPEAKERS) - {test, validation}}
            self.own_split = Split(fold, **{k: tuple(u for u in every if u.speaker in v) for k, v in sets.items()})

    def keep(self, stage: str, wanted: Callable[[Utterance], bool]) -> None:
        """Keep only ``wanted`` utterances in ``stage``."""
        kept = tuple(u for u in self.set_utterances(stage) if wanted(u))
        self.own_split = replace(self.own_split, **{stage: kept})

    @property
    def batches(self) -> str:
        return "length" if self.recognise == "speaker" else "class"

    def split(self) -> Split:
        return self.own_split

    def set_utterances(self, name: Any) -> tuple[Utterance, ...]:
        return self.own_split.of(name)

    def dataset(self, name: str) -> FrameDataset:
        utterances = self.set_utterances(name)
        labels = [self.class_names.index(str(u.label)) for u in utterances]
        return FrameDataset([self.frames[u.name] for u in utterances], labels, torch.eye(len(self.class_names))[labels])

    def training_statistics(self) -> TrainingStatistics:
        dataset = self.dataset("train")
        return TrainingStatistics(dataset.frames, dataset.targets.mean(0), self.own_split.speakers("train"))

    def process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        dataset = self.dataset("train")
        sampler: BucketBatchSampler | ClassBatchSampler
        if self.recognise == "speaker":
            sampler = BucketBatchSampler(dataset.lengths.tolist(), self.batch_size, 0, *self.process())
        else:
            labels = dataset.labels.tolist()
            sampler = ClassBatchSampler(labels, len(self.class_names), self.batch_size, 0, *self.process())
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=keep_batch)

    def evaluation_dataloader(self, name: str) -> DataLoader[Batch]:
        dataset = self.dataset(name)
        sampler = EvaluationBatchSampler(dataset.lengths.tolist(), self.batch_size, *self.process())
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=keep_batch)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_dataloader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_dataloader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return replace(batch, inputs=batch.inputs.square()) if self.squared else batch


def fit(
    system: LightningModule,
    data: LightningDataModule,
    folder: Path,
    max_epochs: int = 1,
    resume: Path | None = None,
    halt: tuple[int, int] | None = None,
    **options: Any,
) -> Trainer:
    """Train with the callbacks of every run; ``halt`` ends it before a batch of an epoch."""
    kept = [BestCheckpoint("validation/WA"), LastCheckpoint()]
    trainer = Trainer(
        max_epochs=max_epochs,
        default_root_dir=folder,
        callbacks=[EpochSeed(0), *([HaltAt(*halt)] if halt else []), MetricsTable(), *kept],
        plugins=[BackgroundCheckpointIO()],
        logger=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"accelerator": "cpu", "devices": 1} | options,
    )
    trainer.fit(system, datamodule=data, ckpt_path=resume, weights_only=True)
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()  # tests read at once what they save afterwards
    return trainer


@pytest.fixture(scope="session")
def noise() -> type[SwayingNoise]:
    """The corpus of noise."""
    return SwayingNoise


@pytest.fixture(scope="session")
def train() -> Callable[..., Trainer]:
    """Train a system as runs do."""
    return fit


@pytest.fixture(scope="session")
def halt() -> type[Halt]:
    """The exception that stands for a kill."""
    return Halt
