"""Ando's training sets, dominant and all: what is learned from differs, what is scored never does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from data_modules.base import CorpusDataModule
from data_modules.iemocap import IEMOCAP, Others
from ser_lightning.data.targets import ExistenceTargets, HardTargets, SoftTargets, Targets
from ser_lightning.features import LogPowerSpectrogram

EMOTIONS = ("neutral", "happy", "sad", "angry")
EVALUATED = ("validation", "test", "all")


@pytest.fixture
def make(synthetic_iemocap: Path, feature_folder: Path) -> Any:
    """Make a data module as the experiments of Ando et al. 2019 configure it."""

    def module(others: Others, targets: Targets | None = None, fold: int = 0) -> IEMOCAP:
        return IEMOCAP(
            root=synthetic_iemocap,
            extractor=LogPowerSpectrogram(max_frequency_hz=1000),
            dialogs="improvised",
            classes=EMOTIONS,
            merge_excited=False,
            others=others,
            fold=fold,
            batch_size=4,
            feature_folder=feature_folder,
            targets=targets,
            speeds=(0.9,),
        )

    return module


@pytest.mark.parametrize("targets", [HardTargets(), SoftTargets(), ExistenceTargets()])
@pytest.mark.parametrize("fold", range(4))
def test_validation_and_test_are_the_utterances_with_a_dominant_emotion_whatever_is_trained_on(
    fold: int, targets: Targets, make: Any
) -> None:
    dominant, every = make("leave_out", fold=fold), make("keep", targets, fold)
    assert len(every.split().test) > len(dominant.split().test)  # the others are there, and are passed over
    for name in EVALUATED:
        scored = every.set_utterances(name)
        assert scored == dominant.set_utterances(name), name
        assert {u.label for u in scored} == set(EMOTIONS), name


def test_every_label_that_is_scored_is_a_class_and_every_utterance_comes_once(make: Any) -> None:
    module: CorpusDataModule = make("keep", ExistenceTargets())
    module.prepare_data()
    for stage, name, loader in (("validate", "validation", "val_dataloader"), ("test", "test", "test_dataloader")):
        module.setup(stage)
        batches = list(getattr(module, loader)())
        labels = torch.cat([batch.labels for batch in batches])
        indices = torch.cat([batch.indices for batch in batches])
        names = [EMOTIONS[label] for label in labels[indices.argsort()]]
        assert names == [u.label for u in module.set_utterances(name)]
        assert sorted(indices.tolist()) == list(range(len(names)))


def test_soft_and_existence_learn_from_more_when_others_are_kept(make: Any) -> None:
    train = {
        (kind, others): make(others, targets).set_utterances("train")
        for kind, targets in (("hard", HardTargets()), ("soft", SoftTargets()), ("existence", ExistenceTargets()))
        for others in ("leave_out", "keep")
    }
    assert train["hard", "keep"] == train["hard", "leave_out"]
    assert train["soft", "leave_out"] == train["existence", "leave_out"] == train["hard", "leave_out"]
    assert set(train["hard", "keep"]) < set(train["soft", "keep"]) <= set(train["existence", "keep"])
    assert any(u.label is None for u in train["soft", "keep"])


@pytest.mark.parametrize("fold", [0, 3])
def test_hard_targets_make_one_training_set_of_dominant_and_all_so_table_3_runs_them_once(fold: int, make: Any) -> None:
    modules = [make(others, HardTargets(), fold) for others in ("leave_out", "keep")]
    for module in modules:
        module.prepare_data()
        module.setup("fit")
    (one, other) = (list(module.train_dataloader()) for module in modules)
    assert len(one) == len(other) > 1
    for left, right in zip(one, other, strict=True):
        for field in ("inputs", "lengths", "labels", "targets", "indices"):
            assert torch.equal(getattr(left, field), getattr(right, field)), field
    (ours, theirs) = (module.training_statistics() for module in modules)
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.deviation, theirs.deviation)
    assert torch.equal(ours.class_prior, theirs.class_prior)
    assert ours.speakers == theirs.speakers
