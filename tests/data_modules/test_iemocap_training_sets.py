"""Ando's training sets, dominant and all: training utterances differ, scored ones do not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from data_modules.base import CorpusDataModule
from data_modules.emo_evaluation import Evaluation
from data_modules.iemocap import IEMOCAP, Others
from data_modules.iemocap_synthetic import recordings
from ser_lightning.data.corpora import protocol_hash
from ser_lightning.data.protocols import Protocol
from ser_lightning.data.targets import ExistenceTargets, HardTargets, SoftTargets, Targets
from ser_lightning.errors import ProtocolError
from ser_lightning.features import LogPowerSpectrogram
from ser_lightning.types import Stage, Utterance

EMOTIONS = ("neutral", "happy", "sad", "angry")
EVALUATED = ("validation", "test", "all")


@pytest.fixture
def make(synthetic_iemocap: Path, feature_folder: Path) -> Any:
    """Make a data module as the experiments of Ando et al. 2019 configure it."""

    def module(
        others: Others, targets: Targets | None = None, fold: int = 0, speeds: tuple[float, ...] = (0.9,), **more: Any
    ) -> IEMOCAP:
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
            speeds=speeds,
            **more,
        )

    return module


@pytest.mark.parametrize("targets", [HardTargets(), SoftTargets(), ExistenceTargets()])
@pytest.mark.parametrize("fold", range(4))
def test_evaluation_sets_have_only_dominant_emotions(fold: int, targets: Targets, make: Any) -> None:
    dominant, every = make("leave_out", fold=fold), make("keep", targets, fold)
    assert len(every.split().test) > len(dominant.split().test)  # the others exist, but are skipped
    for name in EVALUATED:
        scored = every.set_utterances(name)
        assert scored == dominant.set_utterances(name), name
        assert {u.label for u in scored} == set(EMOTIONS), name


def test_scored_labels_are_classes_and_utterances_unique(make: Any) -> None:
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
def test_hard_targets_make_dominant_and_all_the_same_set(fold: int, make: Any) -> None:
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


def counted(targets: Targets, evaluations: Sequence[Evaluation]) -> list[list[float]]:
    """Count votes by hand: the target of each training utterance of ``targets``."""
    found: list[list[float]] = []
    for evaluation in evaluations:
        votes = [len([vote for vote in evaluation.votes if emotion in vote]) for emotion in EMOTIONS]
        if isinstance(targets, ExistenceTargets):
            found.append([float(count > 0) for count in votes])
        elif isinstance(targets, SoftTargets) and any(votes):
            found.append([(targets.alpha + count) / (4 * targets.alpha + sum(votes)) for count in votes])
        elif isinstance(targets, HardTargets) and evaluation.label in EMOTIONS:
            found.append([float(emotion == evaluation.label) for emotion in EMOTIONS])
    return found


@pytest.mark.parametrize("speeds", [(), (0.9, 1.1)])
@pytest.mark.parametrize("others", ["leave_out", "keep"])
@pytest.mark.parametrize(
    "targets",
    [HardTargets(), SoftTargets(), SoftTargets(alpha=0), ExistenceTargets()],
    ids=["hard", "soft", "soft without smoothing", "existence"],
)
def test_class_weights_follow_the_training_targets(
    targets: Targets, others: Others, speeds: tuple[float, ...], make: Any
) -> None:
    module: CorpusDataModule = make(others, targets, speeds=speeds)
    module.prepare_data()
    module.setup("fit")
    turns = [turn.evaluation for turn in recordings(4, 0, 16)]
    learned = [e for e in turns if e.improvised and e.session == 2 and (others == "keep" or e.label in EMOTIONS)]
    by_hand = torch.tensor(counted(targets, learned), dtype=torch.float64).mean(0)
    torch.testing.assert_close(module.training_statistics().class_prior.double(), by_hand, atol=1e-6, rtol=0)
    labels = torch.tensor(counted(HardTargets(), learned), dtype=torch.float64).mean(0)
    assert isinstance(targets, HardTargets) == torch.equal(by_hand, labels)


class OneFold(Protocol):
    """A fixed split."""

    @property
    def name(self) -> str:
        """Its name."""
        return "one fold"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return 1."""
        return 1

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Test a speaker, validate on another."""
        sets: dict[str, Stage] = {"Ses01F": "test", "Ses01M": "validation"}
        return [sets.get(u.speaker, "train") for u in utterances]


@pytest.mark.parametrize("protocol", [None, OneFold()], ids=["leave one speaker out", "one fold"])
def test_dominant_and_all_are_one_protocol_and_other_splits(protocol: Protocol | None, make: Any) -> None:
    dominant, everything = (make(others, protocol=protocol) for others in ("leave_out", "keep"))
    assert protocol_hash(dominant) == protocol_hash(everything)
    for fold in range(dominant.num_folds()):
        assert dominant.split(fold).hash != everything.split(fold).hash
    assert protocol_hash(make("leave_out", protocol=protocol, recognise="speaker")) != protocol_hash(dominant)


def release_where(root: Path, without: set[str], block: Callable[..., str], annotate: Callable[..., Path]) -> IEMOCAP:
    """Two sessions; evaluators find none of the four emotions for some of the speakers."""
    for session in ("Ses01", "Ses02"):
        spoken = [(f"{session}F_impro01_{letter}00{n}", f"{session}{letter}") for letter in "FM" for n in range(2)]
        heard = {True: ("xxx", "Fear;"), False: ("neu", "Neutral;")}
        annotate(root, f"{session}F_impro01", *(block(name, *heard[speaker in without]) for name, speaker in spoken))
    return IEMOCAP(root, LogPowerSpectrogram(), others="keep")


@pytest.mark.parametrize(
    ("name", "without", "said"),
    [
        ("test", {"Ses01F"}, "2 utterances in the test set of fold 0 .*angry, happy"),
        ("validation", {"Ses01M"}, "2 utterances in the validation set of fold 0 .*angry"),
        ("train", {"Ses02F", "Ses02M"}, "4 utterances in the train set of fold 0 .*voted.*angry"),
    ],
)
def test_an_empty_set_is_named_with_fold_and_classes(
    tmp_path: Path, name: str, without: set[str], said: str, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    module = release_where(tmp_path, without, block, annotate)
    with pytest.raises(ProtocolError, match=f"leave one speaker out: .*{said}"):
        module.set_utterances(name)
    assert all(module.set_utterances(other) for other in ("train", "validation", "test", "all") if other != name)
