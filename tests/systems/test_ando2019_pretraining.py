"""MLEE pre-training and fusion: frozen encoders never change, and unsuitable checkpoints are rejected."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ser_lightning.data.batches import FrameDataset, keep_batch
from ser_lightning.data.samplers import BucketBatchSampler, EvaluationBatchSampler
from ser_lightning.data.targets import TrainingStatistics
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogPowerSpectrogram
from ser_lightning.losses import ExistenceLoss, WeightedCrossEntropy
from ser_lightning.systems import DominantEmotionRecognition, ExistencePretraining, MultiLabelEmotionExistence
from ser_lightning.systems.stages import check_unseen_speakers
from ser_lightning.training.callbacks import EpochSeed, LastCheckpoint
from ser_lightning.types import Batch, Split, Utterance

pytestmark = pytest.mark.usefixtures("small_pictures")

EMOTIONS = ("neutral", "happy", "sad", "angry")
SPEAKERS = ("Ses01F", "Ses01M", "Ses02F", "Ses02M")
F = 34
WIDTHS: dict[str, Any] = {"channels": (3, 4, 2), "cells": 5, "attention_dim": 6}
ALL = {"existence_checkpoint": "mlee", "dominant_checkpoint": "dominant"}


class Voices(LightningDataModule):
    """One fold of a corpus of noise: four speakers, four utterances of each."""

    def __init__(self, fold: int = 0, corpus_name: str = "iemocap", window_seconds: float = 0.025) -> None:
        super().__init__()
        self.corpus_name = corpus_name
        self.target_kind = "hard"
        self.extractor = LogPowerSpectrogram(window_seconds=window_seconds)
        noise = torch.Generator().manual_seed(0)
        names = [(speaker, emotion) for speaker in SPEAKERS for emotion in EMOTIONS]
        every = [Utterance(f"{speaker}_{emotion}", Path("x.wav"), speaker, emotion) for speaker, emotion in names]
        self.frames = {u.name: 3 + 2 * torch.randn(20 + n, F, generator=noise) for n, u in enumerate(every)}
        test, validation = SPEAKERS[fold], SPEAKERS[fold ^ 1]
        sets = {"test": {test}, "validation": {validation}, "train": set(SPEAKERS) - {test, validation}}
        self._split = Split(fold, **{k: tuple(u for u in every if u.speaker in v) for k, v in sets.items()})

    def split(self) -> Split:
        return self._split

    def dataset(self, name: Any) -> FrameDataset:
        utterances = self._split.of(name)
        labels = [EMOTIONS.index(str(u.label)) for u in utterances]
        return FrameDataset([self.frames[u.name] for u in utterances], labels, torch.eye(4)[labels])

    def training_statistics(self) -> TrainingStatistics:
        dataset = self.dataset("train")
        return TrainingStatistics(dataset.frames, dataset.targets.mean(0), self._split.speakers("train"))

    def train_dataloader(self) -> DataLoader[Batch]:
        dataset = self.dataset("train")
        sampler = BucketBatchSampler(dataset.lengths.tolist(), 3, 0, 0, 1)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=keep_batch)

    def val_dataloader(self) -> DataLoader[Batch]:
        dataset = self.dataset("validation")
        sampler = EvaluationBatchSampler(dataset.lengths.tolist(), 3, 0, 1)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=keep_batch)


def fit(system: nn.Module, data: Voices, folder: Path, max_epochs: int = 1, resume: Path | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        default_root_dir=folder,
        callbacks=[EpochSeed(0), LastCheckpoint()],
        logger=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(system, datamodule=data, ckpt_path=resume, weights_only=True)  # type: ignore[arg-type]
    return trainer


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)  # changes every parameter it is given


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of the earlier stages, trained on fold 0, without Ses01."""
    folder = tmp_path_factory.mktemp("stages")
    systems = {
        "mlee": MultiLabelEmotionExistence(F, EMOTIONS, ExistenceLoss(), **WIDTHS),
        "dominant": DominantEmotionRecognition(F, EMOTIONS, WeightedCrossEntropy("inverse_frequency"), **WIDTHS),
        "wider": MultiLabelEmotionExistence(F, EMOTIONS, ExistenceLoss(), **WIDTHS | {"cells": 7}),
    }
    for name, system in systems.items():
        torch.manual_seed(len(name))
        fit(system, Voices(), folder / name).save_checkpoint(folder / f"{name}.ckpt")
    foreign = MultiLabelEmotionExistence(F, EMOTIONS, ExistenceLoss(), **WIDTHS)
    fit(foreign, Voices(fold=2, corpus_name="voxceleb2"), folder / "foreign").save_checkpoint(folder / "foreign.ckpt")
    return {path.stem: path for path in folder.glob("*.ckpt")}


Build = Callable[..., ExistencePretraining]


@pytest.fixture
def build(stages: dict[str, Path]) -> Build:
    """Make a system that starts from earlier stages, given by name."""

    def make(fusion: bool = True, **changes: Any) -> ExistencePretraining:
        torch.manual_seed(0)
        named = {argument: stages.get(name) for argument, name in (ALL | changes).items() if argument in ALL}
        widths = WIDTHS | {key: value for key, value in changes.items() if key not in ALL}
        criterion = WeightedCrossEntropy("inverse_frequency")
        return ExistencePretraining(F, EMOTIONS, criterion, sgd, fusion=fusion, **named, **widths)

    return make


@pytest.mark.parametrize("fusion", [False, True])
def test_frozen_encoders_equal_the_earlier_stages_bit_for_bit(
    fusion: bool, build: Build, stages: dict[str, Path], tmp_path: Path
) -> None:
    system = build(fusion)
    started = {name: value.clone() for name, value in system.classifier.state_dict().items()}
    fit(system, Voices(), tmp_path, max_epochs=2)
    for encoder, name in zip(system.encoders, ALL.values(), strict=False):
        stored = torch.load(stages[name], weights_only=True)["state_dict"]
        own = encoder.state_dict()
        assert {key for key in stored if not key.startswith(("classifier.", "class_prior"))} == set(own)
        assert {key.rsplit(".", 1)[1] for key in own} > {"running_mean", "running_variance", "mean", "deviation"}
        for key, value in own.items():
            assert torch.equal(value, stored[key]), key
    assert len(system.encoders) == 1 + fusion
    assert not any(torch.equal(value, started[name]) for name, value in system.classifier.state_dict().items())


def test_only_the_classifier_has_gradients_and_an_optimiser(build: Build, tmp_path: Path) -> None:
    system = build()
    fit(system, Voices(), tmp_path)
    (group,) = system.configure_optimizers().param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in system.classifier.parameters()}
    system.zero_grad()
    system.training_step(next(iter(Voices().train_dataloader())), 0).backward()
    with_gradient = {name for name, parameter in system.named_parameters() if parameter.grad is not None}
    assert with_gradient == {f"classifier.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}


def test_frozen_encoders_always_stay_in_evaluation_mode(build: Build, tmp_path: Path) -> None:
    system = build()
    dropouts = [nn.Dropout(0.9) for _ in system.encoders]
    for encoder, dropout in zip(system.encoders, dropouts, strict=True):
        encoder.encoder.pooling.add_module("dropout", dropout)
    system.train()
    assert system.classifier.training
    fit(system, Voices(), tmp_path)
    assert not any(module.training for encoder in system.encoders for module in encoder.modules())
    frames = torch.randn(2, 30, F)
    mask = torch.ones(2, 30, dtype=torch.bool)
    system.train()
    vectors = [system.encoders[0](frames, mask) for _ in range(2)]
    assert torch.equal(*vectors)
    assert torch.equal(system.eval().encoders[0](frames, mask), vectors[0])


def test_encoders_use_their_own_standardisation(build: Build, stages: dict[str, Path], tmp_path: Path) -> None:
    system = build()
    fit(system, Voices(), tmp_path)
    frames, mask = 5 * torch.randn(3, 30, F), torch.arange(30) < torch.tensor([[30], [12], [1]])
    vectors = []
    for name, kind in (("mlee", MultiLabelEmotionExistence), ("dominant", DominantEmotionRecognition)):
        source = kind(F, EMOTIONS, ExistenceLoss(), **WIDTHS).eval()
        source.load_state_dict(torch.load(stages[name], weights_only=True)["state_dict"])
        vectors.append(source.encoder(source.standardisation(frames, mask), mask))
    expected = system.classifier(torch.cat(vectors, 1))
    assert torch.equal(system.eval()(frames, mask.sum(1)), expected)
    assert system.classifier[0].in_features == 2 * 2 * WIDTHS["cells"]


def test_the_earlier_stages_standardisation_is_used(build: Build, tmp_path: Path) -> None:
    data = Voices()
    data.frames = {name: 100 * frames for name, frames in data.frames.items()}
    system = build()
    fit(system, data, tmp_path)
    assert torch.equal(system.standardisation.mean, system.encoders[0].standardisation.mean)
    assert all((encoder.standardisation.mean < 4).all() for encoder in system.encoders)
    frames, lengths = torch.randn(2, 30, F), torch.tensor([30, 30])
    before = system.eval()(frames, lengths)
    system.standardisation.fit(SimpleNamespace(mean=torch.full((F,), 7.0), deviation=torch.full((F,), 9.0)))
    assert torch.equal(system(frames, lengths), before)


def test_frames_are_not_read_for_an_unused_standardisation(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_lightning.data.targets.mean_and_deviation", lambda _: pytest.fail("frames are read"))
    fit(build(), Voices(), tmp_path)
    with pytest.raises(pytest.fail.Exception, match="frames are read"):
        fit(MultiLabelEmotionExistence(F, EMOTIONS, ExistenceLoss(), **WIDTHS), Voices(), tmp_path)


def mixed(fold: int) -> Voices:
    """A fold with every speaker in every set."""
    data = Voices()
    every = [u for stage in ("train", "validation", "test") for u in data.split().of(stage)]  # type: ignore[arg-type]
    sets: dict[str, list[Utterance]] = {"train": [], "validation": [], "test": []}
    for speaker in SPEAKERS:
        own = [u for u in every if u.speaker == speaker]
        own = own[fold:] + own[:fold]
        for name, utterances in zip(sets, (own[:2], own[2:3], own[3:]), strict=True):
            sets[name].extend(utterances)
    data._split = Split(fold, **{name: tuple(utterances) for name, utterances in sets.items()})
    return data


def test_with_mixed_speakers_only_the_same_fold_is_accepted(build: Build, tmp_path: Path) -> None:
    stage = MultiLabelEmotionExistence(F, EMOTIONS, ExistenceLoss(), **WIDTHS)
    fit(stage, mixed(0), tmp_path / "stage").save_checkpoint(tmp_path / "mixed.ckpt")
    system = build(fusion=False)
    system.sources["existence_checkpoint"] = tmp_path / "mixed.ckpt"
    fit(system, mixed(0), tmp_path / "same")
    other = build(fusion=False)
    other.sources["existence_checkpoint"] = tmp_path / "mixed.ckpt"
    with pytest.raises(ConfigurationError, match=rf"mixed\.ckpt.*{mixed(1).split().hash}"):
        fit(other, mixed(1), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"existence_checkpoint": "nothing"}, r"model\.init_args\.existence_checkpoint"),
        ({"dominant_checkpoint": "nothing"}, r"model\.init_args\.dominant_checkpoint"),
        ({"existence_checkpoint": "dominant"}, r"existence_checkpoint.*dominant\.ckpt.*Dominant.*MultiLabel"),
        ({"dominant_checkpoint": "mlee"}, r"dominant_checkpoint.*mlee\.ckpt.*MultiLabel.*Dominant"),
        ({"existence_checkpoint": "wider"}, r"wider\.ckpt.*blstm.* \(28,\) .*\(20,\)"),
        ({"cells": 6}, r"mlee\.ckpt.*blstm.* \(20,\) .*\(24,\)"),
    ],
)
def test_a_stage_that_is_missing_or_does_not_fit_is_rejected(
    changes: dict[str, Any], named: str, build: Build, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        fit(build(**changes), Voices(), tmp_path)


def test_a_stage_without_its_file_is_rejected_with_its_path(build: Build, tmp_path: Path) -> None:
    system = build()
    system.sources["dominant_checkpoint"] = tmp_path / "gone.ckpt"
    with pytest.raises(ConfigurationError, match=r"dominant_checkpoint .*gone\.ckpt"):
        fit(system, Voices(), tmp_path)


def test_a_stage_of_another_extractor_is_rejected(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mlee\.ckpt .*0\.025.*0\.05"):
        fit(build(), Voices(window_seconds=0.05), tmp_path)


@pytest.mark.parametrize(("fold", "stage"), [(2, "validation"), (3, "validation")])
def test_an_encoder_trained_on_evaluation_speakers_is_rejected(
    fold: int, stage: str, build: Build, tmp_path: Path
) -> None:
    data = Voices(fold=fold)
    seen = data.split().speakers("validation")[0]
    with pytest.raises(ConfigurationError, match=rf"mlee\.ckpt .*trained .*{seen}.*{stage}"):
        fit(build(), data, tmp_path)


def test_one_seen_test_speaker_is_enough_to_reject(build: Build, tmp_path: Path) -> None:
    data = Voices(fold=2)
    data._split = replace(data.split(), validation=Voices(fold=0).split().validation)
    with pytest.raises(ConfigurationError, match=r"mlee\.ckpt .*trained .*Ses02F.*test"):
        fit(build(), data, tmp_path)


def test_an_encoder_of_another_corpus_is_accepted(build: Build, tmp_path: Path) -> None:
    system = build(fusion=False, existence_checkpoint="foreign")  # its Ses01 is another speaker
    fit(system, Voices(), tmp_path)
    assert system.origin["training_speakers"] == ["Ses02F", "Ses02M"]


def test_a_checkpoint_is_rejected_for_earlier_stages_speakers(build: Build, tmp_path: Path) -> None:
    data = Voices()
    fewer = tuple(u for u in data.split().train if u.speaker == "Ses02F")
    data._split = replace(data.split(), train=fewer)
    system = build()
    fit(system, data, tmp_path).save_checkpoint(tmp_path / "best.ckpt")
    checkpoint = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert checkpoint["ser_lightning"]["origin"]["training_speakers"] == ["Ses02F"]
    check_unseen_speakers(checkpoint, tmp_path / "best.ckpt", "iemocap", {"test": ["Ses01F"]}, "now")
    with pytest.raises(ConfigurationError, match=r"best\.ckpt .*trained .*Ses02M.*test"):
        check_unseen_speakers(checkpoint, tmp_path / "best.ckpt", "iemocap", {"test": ["Ses02M"]}, "now")


def test_a_stage_resumes_to_equal_weights_without_its_sources(build: Build, tmp_path: Path) -> None:
    fit(build(), Voices(), tmp_path / "calm", max_epochs=3)
    fit(build(), Voices(), tmp_path / "cut", max_epochs=1)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    resumed = build(existence_checkpoint="gone", dominant_checkpoint="gone")
    with torch.no_grad():
        for parameter in resumed.classifier.parameters():
            parameter.zero_()
    trainer = fit(resumed, Voices(), tmp_path / "cut", max_epochs=3, resume=last)
    assert trainer.current_epoch == 3
    one, other = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("calm", "cut")
    )
    assert one["epoch"] == other["epoch"] == 2
    assert one["ser_lightning"] == other["ser_lightning"]
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_padding_and_batch_mates_never_change_a_fused_prediction(
    dtype: torch.dtype, tolerance: float, build: Build
) -> None:
    system = build().to(dtype).eval()
    with torch.no_grad():
        for name, tensor in (*system.named_parameters(), *system.named_buffers()):
            if ".norm." in name or ".standardisation." in name:  # zeros do not stay zero
                tensor.uniform_(0.5, 1.5)
    lengths = torch.tensor([50, 21, 1, 33])
    frames: Tensor = torch.randn(4, 50, F, dtype=dtype, generator=torch.Generator().manual_seed(1))
    together = system(frames, lengths)
    reordered = system(frames.flip(0), lengths.flip(0)).flip(0)
    longer = system(torch.cat([frames, torch.full((4, 30, F), 1e4, dtype=dtype)], 1), lengths)
    torch.testing.assert_close(reordered, together, atol=tolerance, rtol=0)
    torch.testing.assert_close(longer, together, atol=tolerance, rtol=0)
    for row, length in enumerate(lengths.tolist()):
        alone = system(frames[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=tolerance, rtol=0)
