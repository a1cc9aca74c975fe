"""The base data module: extraction on the device, random crops, balanced batches, speakers as classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data_modules.base import CorpusDataModule
from data_modules.crema_d import CremaD, write_synthetic
from data_modules.iemocap import IEMOCAP
from data_modules.ravdess import RAVDESS
from ser_lightning.data.batches import FrameDataset
from ser_lightning.data.held_out import HeldOutClips
from ser_lightning.data.protocols import ActorFolds
from ser_lightning.data.targets import mean_and_deviation
from ser_lightning.errors import ConfigurationError, ProtocolError
from ser_lightning.features import (
    ComParE147,
    FeatureExtractor,
    LogMelFilterbank,
    MagnitudeSpectrogram,
    SilenceRemoval,
)
from ser_lightning.types import Batch

EXTRACTORS = {
    "log_mel": LogMelFilterbank(),
    "without_silence": SilenceRemoval(MagnitudeSpectrogram(window_seconds=0.032), top_db=30.0),
}


@pytest.fixture
def make(synthetic_ravdess: Path, feature_folder: Path) -> Callable[..., RAVDESS]:
    """Make a data module of the synthetic corpus."""

    def module(extractor: FeatureExtractor = EXTRACTORS["log_mel"], **options: Any) -> RAVDESS:
        settled = {"protocol": ActorFolds("even", 3), "batch_size": 7, "feature_folder": feature_folder}
        return RAVDESS(synthetic_ravdess, extractor, **(settled | options))

    return module


def epoch(data: CorpusDataModule, number: int = 0) -> list[Batch]:
    """Return the training batches of an epoch, with frames."""
    data.setup("fit")
    loader = data.train_dataloader()
    sampler: Any = loader.batch_sampler
    sampler.sampler.set_epoch(number)
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def assert_equal_batches(ours: list[Batch], theirs: list[Batch], tolerance: float = 1e-5) -> None:
    assert len(ours) == len(theirs) > 0
    for one, two in zip(ours, theirs, strict=True):
        for field in ("lengths", "labels", "targets", "indices"):
            assert torch.equal(getattr(one, field), getattr(two, field)), field
        torch.testing.assert_close(one.inputs, two.inputs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("extractor", EXTRACTORS.values(), ids=EXTRACTORS.keys())
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop_frames": 40},
        {"crop_frames": 300},
        {"batches": "class", "batch_size": 16, "crop_frames": 40},
        {"speeds": (1.1,)},
    ],
)
def test_frames_made_on_the_device_equal_the_stored_ones(
    make: Callable[..., RAVDESS], extractor: FeatureExtractor, options: dict[str, Any]
) -> None:
    stored = make(extractor, **options)
    on_device = make(extractor, features="on_device", **options)
    assert on_device.num_features == stored.num_features
    assert_equal_batches(epoch(on_device, 2), epoch(stored, 2))
    for data in (stored, on_device):
        data.setup("test")
    batches = [[data.on_after_batch_transfer(b, 0) for b in data.test_dataloader()] for data in (on_device, stored)]
    assert_equal_batches(*batches)


@pytest.mark.parametrize(
    ("extractor", "options"),
    [
        ("log_mel", {"batch_size": 32}),  # Huang 2020 and Zhou 2020
        ("without_silence", {"batch_size": 32}),  # Mocanu 2021, S1
        ("without_silence", {"batch_size": 16, "batches": "class", "crop_frames": 40}),  # S4, S5
        ("log_mel", {"speeds": (1.1,), "crop_frames": 300}),
        ("without_silence", {"features": "on_device", "crop_frames": 40}),
    ],
)
@pytest.mark.parametrize("process", [(0, 1), (1, 2)])
def test_batches_of_held_frames_equal_the_loaders(
    make: Callable[..., RAVDESS],
    monkeypatch: pytest.MonkeyPatch,
    extractor: str,
    options: dict[str, Any],
    process: tuple[int, int],
) -> None:
    monkeypatch.setattr("data_modules.base.rank_and_world_size", lambda _: process)
    loaded, held = (make(EXTRACTORS[extractor], **options) for _ in range(2))
    for data in (loaded, held):
        data.setup("fit")
        data.setup("test")
    for dataset in held._datasets.values():
        dataset.hold(torch.device("cpu"))
    for number in (0, 2):
        assert_equal_batches(epoch(held, number), epoch(loaded, number), tolerance=0)
    for name in ("train", "validation", "test"):
        assert_equal_batches(*(list(data.evaluation_dataloader(name)) for data in (held, loaded)), tolerance=0)


@pytest.mark.parametrize(("device", "sets"), [("cpu", 0), ("cuda", 2)])
def test_sets_are_held_on_a_gpu_while_they_fit(
    make: Callable[..., RAVDESS], monkeypatch: pytest.MonkeyPatch, device: str, sets: int
) -> None:
    monkeypatch.setattr("data_modules.base.training_device", lambda _: torch.device(device))
    monkeypatch.setattr(FrameDataset, "hold", lambda self, device: setattr(self, "held", device))
    data = make()
    data.setup("fit")
    data.setup("test")
    train, validation, test = (data._datasets[name] for name in ("train", "validation", "test"))

    def loaders(held_gib: float) -> list[DataLoader[Batch]]:
        data.held_gib = held_gib
        return [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]

    assert [loader.pin_memory for loader in loaders(0)] == [device == "cuda"] * 3
    assert not any(dataset.held for dataset in (train, validation, test))
    fits_two = (train.num_bytes + validation.num_bytes) / 2**30
    assert [loader.pin_memory for loader in loaders(fits_two)] == [False, False, device == "cuda"]
    assert [dataset for dataset in (train, validation, test) if dataset.held] == [train, validation][:sets]


@pytest.mark.gpu
def test_batches_are_gathered_on_the_gpu_without_a_sync(make: Callable[..., RAVDESS]) -> None:
    loaded, held = make(crop_frames=40), make(crop_frames=40)
    held.setup("fit")
    held._datasets["train"].hold(torch.device("cuda"))
    next(iter(held.train_dataloader()))  # page-locked memory is allocated once
    try:
        torch.cuda.set_sync_debug_mode("error")
        batches = epoch(held)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(batch.inputs.is_cuda for batch in batches)
    assert_equal_batches([batch.to("cpu") for batch in batches], epoch(loaded), tolerance=0)


def test_statistics_are_equal_for_stored_and_device_frames(make: Callable[..., RAVDESS]) -> None:
    stored, on_device = make(), make(features="on_device")
    for data in (stored, on_device):
        data.setup("fit")
    ours, theirs = on_device.training_statistics(), stored.training_statistics()
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.deviation, theirs.deviation, atol=1e-4, rtol=0)
    assert torch.equal(ours.class_prior, theirs.class_prior)
    assert ours.speakers == theirs.speakers


def test_the_trainer_asks_for_the_frames(make: Callable[..., RAVDESS]) -> None:
    seen: list[tuple[int, ...]] = []

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(40, 1)

        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            seen.append(tuple(batch.inputs.shape))
            return self.layer(batch.inputs).mean()

        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            seen.append(tuple(batch.inputs.shape[::2]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    data = make(features="on_device", crop_frames=30, batch_size=8)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(Module(), datamodule=data)
    assert seen == [(8, 30, 40), (8, 30, 40), (8, 40)]


@pytest.mark.gpu
def test_gpu_frames_need_no_sync_and_equal_the_stored_ones(make: Callable[..., RAVDESS]) -> None:
    data = make(features="on_device")
    data.setup("fit")
    batch = next(iter(data.train_dataloader())).to("cuda")
    data.on_after_batch_transfer(batch, 0)
    try:
        torch.cuda.set_sync_debug_mode("error")
        made = data.on_after_batch_transfer(batch, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert made.inputs.is_cuda
    assert_equal_batches([made.to("cpu")], [data.on_after_batch_transfer(batch.to("cpu"), 0)])


def test_an_extractor_of_whole_recordings_is_rejected_on_device(make: Callable[..., RAVDESS]) -> None:
    pytest.importorskip("opensmile")
    data = make(ComParE147(), features="on_device")
    with pytest.raises(ConfigurationError, match=r"ComParE147.*data\.init_args\.features to stored"):
        epoch(data)


def test_a_random_crop_has_the_set_frames_of_its_utterance(
    make: Callable[..., RAVDESS],
) -> None:
    data = make(crop_frames=40)
    batches = epoch(data)
    whole = data.store.load([u.path for u in data.set_utterances("train")])
    for batch in batches:
        assert batch.inputs.shape[1:] == (40, 40)
        assert batch.lengths.tolist() == [40] * batch.size
        for crop, position in zip(batch.inputs, batch.indices.tolist(), strict=True):
            windows = whole[position].unfold(0, 40, 1).transpose(1, 2)
            assert (windows == crop).all(2).all(1).any(), position
    assert sorted(torch.cat([b.indices for b in batches]).tolist()) == list(range(len(whole)))


def test_crops_are_equal_after_a_resume_and_new_each_epoch(make: Callable[..., RAVDESS]) -> None:
    first = epoch(make(crop_frames=40), 1)
    assert_equal_batches(first, epoch(make(crop_frames=40), 1))
    by_position = [
        {int(i): crop for batch in batches for i, crop in zip(batch.indices, batch.inputs, strict=True)}
        for batches in (first, epoch(make(crop_frames=40), 2))
    ]
    changed = sum(not torch.equal(by_position[0][position], crop) for position, crop in by_position[1].items())
    assert changed > 0.9 * len(by_position[0])


def test_evaluation_hears_utterances_whole(make: Callable[..., RAVDESS]) -> None:
    for options in ({}, {"features": "on_device"}):
        data = make(crop_frames=40, **options)
        data.setup("validate")
        lengths = torch.cat([data.on_after_batch_transfer(b, 0).lengths for b in data.val_dataloader()])
        assert (lengths > 40).all()


def test_batches_by_class_hold_equally_many_of_each(make: Callable[..., RAVDESS]) -> None:
    for batch in epoch(make(batches="class", batch_size=16)):
        assert torch.bincount(batch.labels, minlength=8).tolist() == [2] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_frames": 0}, "crop_frames is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": -3}, "workers is -3"),
    ],
)
def test_numbers_that_do_not_fit_are_rejected(
    make: Callable[..., RAVDESS], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**options)


@pytest.fixture(scope="module")
def synthetic_crema_d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers of six clips."""
    root = tmp_path_factory.mktemp("synthetic") / "crema_d"
    write_synthetic(root, speakers=3, seed=0, clips_per_speaker=6)
    return root


def test_speakers_can_be_the_classes_of_any_corpus(synthetic_crema_d: Path, feature_folder: Path) -> None:
    data = CremaD(
        synthetic_crema_d, LogMelFilterbank(), recognise="speaker", feature_folder=feature_folder, batch_size=4
    )
    assert data.class_names == ("1001", "1002", "1003")
    assert isinstance(data.protocol, HeldOutClips)
    assert all(u.label == u.speaker for u in data.all_utterances)
    batches = epoch(data)
    speakers = [u.speaker for u in data.set_utterances("train")]
    for batch in batches:
        assert [data.class_names[int(label)] for label in batch.labels] == [speakers[int(i)] for i in batch.indices]
        assert torch.equal(batch.targets, torch.eye(3)[batch.labels])
    assert [u.speaker for u in data.set_utterances("validation")] == ["1001", "1002", "1003"]
    assert data.training_statistics().class_prior.tolist() == pytest.approx([1 / 3] * 3)
    with pytest.raises(ProtocolError, match="nothing is tested"):
        data.setup("test")


def test_speakers_can_be_classes_if_the_yaml_sets_emotions(synthetic_iemocap: Path, feature_folder: Path) -> None:
    data = IEMOCAP(synthetic_iemocap, LogMelFilterbank(), recognise="speaker", feature_folder=feature_folder)
    assert len(data.class_names) == 4
    assert not set(data.class_names) & set(data.classes)
    assert {u.label for u in data.all_utterances} == set(data.class_names)
    batch = epoch(data)[0]
    assert torch.equal(batch.targets, torch.eye(4)[batch.labels])


def test_a_protocol_of_ones_own_holds_for_speakers_too(synthetic_crema_d: Path) -> None:
    data = CremaD(synthetic_crema_d, LogMelFilterbank(), HeldOutClips(2), recognise="speaker")
    assert len(data.split().validation) == 6


def test_mean_and_deviation_are_computed_lazily(make: Callable[..., RAVDESS], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(frames: Any) -> tuple[Tensor, Tensor]:
        asked.append(1)
        return mean_and_deviation(frames)

    monkeypatch.setattr("ser_lightning.data.targets.mean_and_deviation", counted)
    data = make()
    data.setup("fit")
    assert data.training_statistics().class_prior.sum() == pytest.approx(1.0)
    assert not asked
    assert data.training_statistics().mean.shape == (40,)
    assert data.training_statistics().deviation.shape == (40,)
    assert len(asked) == 1
