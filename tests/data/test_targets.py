"""Ando et al. 2019's targets: a page of votes worked out by hand, and properties for any votes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from data_modules import iemocap, iemocap_synthetic
from ser_lightning.data.targets import (
    ExistenceTargets,
    HardTargets,
    SoftTargets,
    Targets,
    existence_ratios,
    vote_counts,
    vote_distribution,
)
from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import ExistenceLoss, WeightedCrossEntropy
from ser_lightning.types import Utterance

CLASSES = ("neutral", "happy", "sad", "angry")

# Three evaluators each. The label is what two of three gave, None without such a majority among the classes.
PAGE: Mapping[str, tuple[str | None, str]] = {
    "clear": ("neutral", "neutral / neutral / neutral, frustrated"),
    "mixed": ("happy", "happy / neutral, happy / excited"),
    "torn": (None, "sad / angry / frustrated"),
    "foreign": (None, "frustrated / frustrated / other"),
    "sad": ("sad", "sad / sad / sad, neutral"),
    "angry": ("angry", "angry / angry / angry"),
    "doubt": ("neutral", "neutral / neutral / sad"),
}
COUNTS = {
    "clear": [3, 0, 0, 0],
    "mixed": [1, 2, 0, 0],
    "torn": [0, 0, 1, 1],
    "foreign": [0, 0, 0, 0],
    "sad": [1, 0, 3, 0],
    "angry": [0, 0, 0, 3],
    "doubt": [2, 0, 1, 0],
}
SOFT = {  # (0.75 + votes) / (3 + all votes)
    "clear": [3.75 / 6, 0.75 / 6, 0.75 / 6, 0.75 / 6],
    "mixed": [1.75 / 6, 2.75 / 6, 0.75 / 6, 0.75 / 6],
    "torn": [0.75 / 5, 0.75 / 5, 1.75 / 5, 1.75 / 5],
    "sad": [1.75 / 7, 0.75 / 7, 3.75 / 7, 0.75 / 7],
    "angry": [0.75 / 6, 0.75 / 6, 0.75 / 6, 3.75 / 6],
    "doubt": [2.75 / 6, 0.75 / 6, 1.75 / 6, 0.75 / 6],
}
UNSMOOTHED = {
    "clear": [1, 0, 0, 0],
    "mixed": [1 / 3, 2 / 3, 0, 0],
    "torn": [0, 0, 1 / 2, 1 / 2],
    "sad": [1 / 4, 0, 3 / 4, 0],
    "angry": [0, 0, 0, 1],
    "doubt": [2 / 3, 0, 1 / 3, 0],
}
HARD = {
    "clear": [1, 0, 0, 0],
    "mixed": [0, 1, 0, 0],
    "sad": [0, 0, 1, 0],
    "angry": [0, 0, 0, 1],
    "doubt": [1, 0, 0, 0],
}
EXISTENCE = {
    "clear": [1, 0, 0, 0],
    "mixed": [1, 1, 0, 0],
    "torn": [0, 0, 1, 1],
    "foreign": [0, 0, 0, 0],
    "sad": [1, 0, 1, 0],
    "angry": [0, 0, 0, 1],
    "doubt": [1, 0, 1, 0],
}


def page() -> list[Utterance]:
    return [
        Utterance(name, Path(name), "a", label, votes=tuple(tuple(vote.split(", ")) for vote in votes.split(" / ")))
        for name, (label, votes) in PAGE.items()
    ]


def made(targets: Targets) -> dict[str, list[float]]:
    return {u.name: targets.of(u, CLASSES) for u in page() if targets.trains_on(u, CLASSES)}


def prior(targets: Targets) -> Tensor:
    return torch.tensor(list(made(targets).values()), dtype=torch.float64).mean(0)


def class_weights(targets: Targets) -> list[float]:
    """Return the class weights of the loss: with uniform logits it is the weight times log 4."""
    loss = WeightedCrossEntropy("inverse_frequency")
    weights = prior(targets)
    undecided = torch.zeros(1, 4, dtype=torch.float64)
    return [float(loss(undecided, target[None], weights)) / math.log(4) for target in torch.eye(4, dtype=torch.float64)]


def existence_weights(present: bool) -> list[float]:
    """Return the weight of presence or absence: with a zero logit the loss is the weight times log 2."""
    loss = ExistenceLoss()
    weights = prior(ExistenceTargets())
    return [
        float(loss(1e6 * (k - 1.0)[None], (k * present)[None], weights)) / math.log(2)
        for k in torch.eye(4, dtype=torch.float64)
    ]


def test_an_evaluator_with_two_labels_votes_for_both() -> None:
    assert {u.name: vote_counts(u, CLASSES) for u in page()} == COUNTS


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (HardTargets(), HARD),
        (SoftTargets(), SOFT),
        (SoftTargets(alpha=0), UNSMOOTHED),
        (ExistenceTargets(), EXISTENCE),
    ],
    ids=["hard", "soft", "soft without smoothing", "existence"],
)
def test_targets_and_training_set_equal_the_hand_worked_page(
    targets: Targets, expected: dict[str, list[float]]
) -> None:
    there = made(targets)
    assert list(there) == list(expected)
    for name, target in expected.items():
        assert there[name] == pytest.approx(target), name


def test_hard_targets_give_one_training_set() -> None:
    dominant = [u for u in page() if u.label in CLASSES]
    assert [u.name for u in dominant if HardTargets().trains_on(u, CLASSES)] == list(made(HardTargets()))
    assert [u.name for u in dominant if SoftTargets().trains_on(u, CLASSES)] == list(HARD)
    assert [u.name for u in dominant if ExistenceTargets().trains_on(u, CLASSES)] == list(HARD)


def test_class_weights_of_hard_targets_follow_from_their_mean() -> None:
    # N = 5: two neutral, one of each other. w_k = N / (K N_k).
    assert class_weights(HardTargets()) == pytest.approx([5 / 8, 5 / 4, 5 / 4, 5 / 4])


def test_class_weights_of_soft_targets_are_of_the_votes_mass() -> None:
    # N = 6, without smoothing: neutral 1 + 1/3 + 1/4 + 2/3 = 9/4, happy 2/3, sad 1/2 + 3/4 + 1/3 = 19/12, angry 3/2.
    assert class_weights(SoftTargets(alpha=0)) == pytest.approx([6 / 9, 6 / (8 / 3), 6 / (19 / 3), 6 / 6])
    # With 0.75 pseudo-votes for each class, in the same order.
    masses = (
        3.75 / 6 + 1.75 / 6 + 0.75 / 5 + 1.75 / 7 + 0.75 / 6 + 2.75 / 6,
        0.75 / 6 + 2.75 / 6 + 0.75 / 5 + 0.75 / 7 + 0.75 / 6 + 0.75 / 6,
        0.75 / 6 + 0.75 / 6 + 1.75 / 5 + 3.75 / 7 + 0.75 / 6 + 1.75 / 6,
        0.75 / 6 + 0.75 / 6 + 1.75 / 5 + 0.75 / 7 + 3.75 / 6 + 0.75 / 6,
    )
    assert class_weights(SoftTargets()) == pytest.approx([6 / (4 * mass) for mass in masses])


def test_existence_weights_follow_presence_and_absence() -> None:
    # N = 7: neutral exists in 4, happy in 1, sad in 3, angry in 2. N / (2 existent) and N / (2 non-existent).
    assert existence_weights(present=True) == pytest.approx([7 / 8, 7 / 2, 7 / 6, 7 / 4])
    assert existence_weights(present=False) == pytest.approx([7 / 6, 7 / 12, 7 / 8, 7 / 10])


def test_the_existence_table_covers_dominant_and_all_utterances() -> None:
    ratios = existence_ratios(page(), CLASSES)
    assert ratios["dominant"] == pytest.approx({"neutral": 4 / 5, "happy": 1 / 5, "sad": 2 / 5, "angry": 1 / 5})
    assert ratios["all"] == pytest.approx({"neutral": 4 / 7, "happy": 1 / 7, "sad": 3 / 7, "angry": 2 / 7})


def test_a_table_of_nothing_dominant_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"2 utterances.*neutral, happy, sad"):
        existence_ratios([u for u in page() if u.label is None], CLASSES)


def test_soft_targets_are_distributions_ordered_as_votes() -> None:
    rng = np.random.default_rng(0)
    names = (*CLASSES, "frustrated", "other")
    for _ in range(200):
        votes = tuple(tuple(rng.choice(names, rng.integers(0, 3), replace=False)) for _ in range(rng.integers(1, 5)))
        utterance = Utterance("a", Path("a"), "a", None, votes=votes)
        counts = np.array([sum(name in vote for vote in votes) for name in CLASSES])
        for alpha in (0.0, 0.3, 0.75, 5.0):
            target = np.array(SoftTargets(alpha).of(utterance, CLASSES))
            assert target.sum() == pytest.approx(1)
            assert (np.sign(target[:, None] - target) == np.sign(counts[:, None] - counts)).all()
        distribution = vote_distribution(utterance, CLASSES)
        assert (distribution is None) == (counts.sum() == 0) == (not SoftTargets().trains_on(utterance, CLASSES))
        if distribution is not None:
            assert distribution == pytest.approx(SoftTargets(alpha=0).of(utterance, CLASSES))
            assert [float(part > 0) for part in distribution] == ExistenceTargets().of(utterance, CLASSES)


def test_more_smoothing_goes_towards_the_uniform_distribution() -> None:
    spread = [max(SoftTargets(alpha).of(page()[4], CLASSES)) for alpha in (0, 0.75, 3, 1e9)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] == pytest.approx(1 / 4)


def test_in_a_corpus_without_votes_the_label_is_one_vote() -> None:
    utterance = replace(page()[1], votes=())
    assert vote_counts(utterance, CLASSES) == [0, 1, 0, 0]
    assert vote_distribution(utterance, CLASSES) == ExistenceTargets().of(utterance, CLASSES) == [0, 1, 0, 0]
    assert SoftTargets().of(utterance, CLASSES) == pytest.approx([0.75 / 4, 1.75 / 4, 0.75 / 4, 0.75 / 4])
    assert vote_distribution(replace(utterance, label=None), CLASSES) is None


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_an_alpha_out_of_range_is_rejected(alpha: float) -> None:
    with pytest.raises(ConfigurationError, match=f"alpha is {alpha}"):
        SoftTargets(alpha)


@pytest.mark.parametrize("name", ["HardTargets", "SoftTargets", "ExistenceTargets"])
def test_targets_are_built_from_a_configuration(name: str) -> None:
    parser = ArgumentParser()
    parser.add_argument("--targets", type=Targets)
    options = parser.parse_object({"targets": {"class_path": f"ser_lightning.data.targets.{name}"}})
    assert type(parser.instantiate_classes(options).targets).__name__ == name


def test_the_table_of_a_synthetic_corpus_is_as_constructed(tmp_path: Path) -> None:
    iemocap.write_synthetic(tmp_path, speakers=4, seed=3, clips_per_speaker=14)
    found = iemocap.find_utterances(tmp_path, "improvised", CLASSES, merge_excited=False, others="keep").utterances
    turns = [t.evaluation for t in iemocap_synthetic.recordings(4, 3, 14) if t.evaluation.improvised]
    assert len(turns) == len(found) == 28
    ratios = existence_ratios(found, CLASSES)
    dominant = [e for e in turns if e.code in ("neu", "hap", "sad", "ang")]
    for table, evaluations in ((ratios["dominant"], dominant), (ratios["all"], turns)):
        for emotion, ratio in table.items():
            heard = [e for e in evaluations if any(emotion in vote for vote in e.votes)]
            assert ratio == len(heard) / len(evaluations), emotion


def test_a_whole_synthetic_corpus_has_the_papers_ratios() -> None:
    turns = [t.evaluation for t in iemocap_synthetic.recordings(10, 3) if t.evaluation.improvised]
    ratios = existence_ratios([Utterance(e.name, e.file, e.speaker, e.label, votes=e.votes) for e in turns], CLASSES)
    # Excited utterances are often happy too, and have no dominant target here.
    assert ratios["dominant"]["happy"] < ratios["all"]["happy"]
    for emotion in ("neutral", "sad"):
        assert ratios["dominant"][emotion] > ratios["all"][emotion]
