"""Eqs. 5 to 7 of Mocanu et al. 2021."""

from math import cos, radians, sin
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from ser_lightning.losses import EmotionConstraint, TripletLoss
from ser_lightning.losses.metric_loss import distances_between

RAVDESS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CREMA_D = ("angry", "disgust", "fearful", "happy", "neutral", "sad")
WHEEL = {
    "negative": ["sad", "fearful", "disgust", "angry"],
    "positive": ["surprised", "happy", "calm"],
    "centre": ["neutral"],
}
WHEEL_OF_CREMA_D = {"negative": ["sad", "fearful", "disgust", "angry"], "positive": ["happy"], "centre": ["neutral"]}
CORPORA = pytest.mark.parametrize(
    ("names", "polarities"), [(RAVDESS, WHEEL), (CREMA_D, WHEEL_OF_CREMA_D)], ids=["RAVDESS", "CREMA-D"]
)

ALPHA, BETA, MARGIN = 0.1, 0.15, 0.1

Selection = Literal["hinge", "band", "nearest"]
SELECTIONS = pytest.mark.parametrize("negatives", ["hinge", "band", "nearest"])


def random_batch(num_classes: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, 6, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(num_classes, (size,), generator=generator)


def at_degrees(*angles: float) -> Tensor:
    return torch.tensor([[cos(radians(angle)), sin(radians(angle))] for angle in angles], dtype=torch.float64)


def distance(degrees: float) -> float:
    return 2 * sin(radians(degrees) / 2)


def in_plain_loops(
    embeddings: Tensor,
    labels: Tensor,
    names: tuple[str, ...],
    polarities: dict[str, list[str]],
    same_related: bool = False,
    negatives: Selection = "hinge",
) -> tuple[float, int, list[int]]:
    polarity_of = {emotion: polarity for polarity, emotions in polarities.items() for emotion in emotions}
    d = distances_between(embeddings).numpy()
    emotions = [names[label] for label in labels]
    batch = range(len(emotions))
    total, terms, violations = 0.0, 0, [0, 0, 0]
    for a in batch:
        own = emotions[a]
        mates = [e for e in names if e != own and own in polarity_of and polarity_of.get(e) == polarity_of[own]]
        positives = [p for p in batch if p != a and emotions[p] == own]
        if not mates:
            losses = [
                d[a, p] - d[a, n] + MARGIN
                for p in positives
                for n in batch
                if emotions[n] != own and d[a, p] < d[a, n] < d[a, p] + MARGIN
            ]
            total += np.mean(losses) if losses else 0.0
            terms += len(losses)
            continue
        related = [r for r in batch if emotions[r] in mates]
        if not related:
            continue
        r1 = min(related, key=lambda r: d[a, r])
        r2 = r1 if same_related else max(related, key=lambda r: d[a, r])
        pulls = [max(d[a, p] - d[a, r1] + ALPHA, 0.0) for p in positives]
        others = [n for n in batch if emotions[n] != own and emotions[n] not in mates]
        violated = [n for n in others if d[a, n] < d[a, r2] + BETA]
        seen = {
            "hinge": violated,
            "band": [n for n in violated if d[a, n] > d[a, r2]],
            "nearest": sorted(violated, key=lambda n: d[a, n])[:1],
        }[negatives]
        pushes = [d[a, r2] - d[a, n] + BETA for n in seen]
        violations = [one + len(more) for one, more in zip(violations, (others, violated, seen), strict=True)]
        total += (np.mean(pulls) if pulls else 0.0) + (np.mean(pushes) if pushes else 0.0)
        terms += sum(loss > 0 for loss in pulls) + len(pushes)
    return total / len(emotions), terms, violations


@SELECTIONS
@pytest.mark.parametrize("same_related", [False, True])
@pytest.mark.parametrize("seed", range(4))
@CORPORA
def test_loss_and_terms_equal_plain_loops(
    names: tuple[str, ...], polarities: dict[str, list[str]], seed: int, same_related: bool, negatives: Selection
) -> None:
    embeddings, labels = random_batch(len(names), 24, seed)
    expected = in_plain_loops(embeddings, labels, names, polarities, same_related, negatives)
    constraint = EmotionConstraint(names, ALPHA, BETA, polarities, MARGIN, same_related, negatives)
    loss, terms = constraint(embeddings, labels)
    assert loss.item() == pytest.approx(expected[0], rel=1e-12)
    assert terms.item() == expected[1] > 0
    assert constraint.violations(embeddings, labels).tolist() == expected[2]
    assert expected[2][1] > 0


def test_the_farthest_related_is_meant_unless_the_nearest_is_asked_for() -> None:
    embeddings, labels = random_batch(len(RAVDESS), 24, 0)
    losses = [
        EmotionConstraint(RAVDESS, ALPHA, BETA, WHEEL, MARGIN, *more)(embeddings, labels) for more in ([], [False])
    ]
    assert losses[0] == losses[1] != EmotionConstraint(RAVDESS, ALPHA, BETA, WHEEL, MARGIN, True)(embeddings, labels)


def test_a_negative_as_far_as_the_related_is_not_semi_hard() -> None:
    # Mirrored, so that both are exactly as far from the anchor: sad on the axis, angry above it, happy below.
    embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]], dtype=torch.float64)
    polarities = {"negative": ["sad", "angry"]}
    constraint = EmotionConstraint(("sad", "angry", "happy"), ALPHA, BETA, polarities, MARGIN, negatives="band")
    assert [value.item() for value in constraint(embeddings, torch.arange(3))] == [0.0, 0]


def test_emotions_in_no_polarity_have_no_related_one() -> None:
    names = ("sad", "bored", "angry", "amazed")
    constraint = EmotionConstraint(names, ALPHA, BETA, {"negative": ["sad", "angry"]}, MARGIN)
    assert constraint.alone.tolist() == [False, True, False, True]


# Six utterances on a circle: sad at 0 and 4 degrees, angry at 7 and 20, happy at 26, neutral at 190.
SIX = at_degrees(0, 4, 7, 20, 26, 190)
SIX_LABELS = torch.tensor([0, 0, 1, 1, 2, 3])
SIX_NAMES = ("sad", "angry", "happy", "neutral")
SIX_POLARITIES = {"negative": ["sad", "angry"], "positive": ["happy"], "centre": ["neutral"]}


@SELECTIONS
@pytest.mark.parametrize("same_related", [False, True])
def test_terms_of_six_utterances_are_those_worked_out_by_hand(same_related: bool, negatives: Selection) -> None:
    pulls = [
        distance(4) - distance(7) + ALPHA,  # sad at 0: the other sad at 4, the nearest angry at 7
        distance(4) - distance(3) + ALPHA,  # sad at 4: sad at 0, angry at 7
        distance(13) - distance(3) + ALPHA,  # angry at 7: angry at 20, sad at 4
        distance(13) - distance(16) + ALPHA,  # angry at 20: angry at 7, sad at 4
    ]
    pushes = [
        distance(20) - distance(26) + BETA,  # sad at 0: the farthest angry at 20, happy at 26
        distance(16) - distance(22) + BETA,  # sad at 4: angry at 20, happy at 26
        # angry at 7: happy is 0.21 farther than the farthest sad
        distance(20) - distance(6) + BETA,  # angry at 20: the farthest sad at 0, happy at 26; neutral never violates
    ]
    if same_related:  # for the others, happy is 0.2 and more farther than the nearest related
        pushes = [distance(16) - distance(6) + BETA]  # angry at 20: sad at 4, happy at 26
    if negatives == "band":
        pushes.pop()  # nearer than r2
    constraint = EmotionConstraint(SIX_NAMES, ALPHA, BETA, SIX_POLARITIES, MARGIN, same_related, negatives)
    loss, terms = constraint(SIX, SIX_LABELS)
    assert terms.item() == len(pulls) + len(pushes)
    assert loss.item() == pytest.approx((sum(pulls) + sum(pushes)) / 6, rel=1e-9)


@pytest.mark.parametrize(
    ("negatives", "pushes"),
    [
        # Sad at 0, the farthest angry at 40; happy at -10 and at 42 violate, at 52 does not.
        ("hinge", [distance(40) - distance(10) + BETA, distance(40) - distance(42) + BETA]),
        ("band", [distance(40) - distance(42) + BETA]),
        ("nearest", [distance(40) - distance(10) + BETA]),
    ],
)
def test_each_selection_counts_the_negatives_that_it_names(negatives: Selection, pushes: list[float]) -> None:
    polarities = {"negative": ["sad", "angry"], "positive": ["happy"]}
    embeddings, labels = at_degrees(0, 40, -10, 42, 52).requires_grad_(), torch.tensor([0, 1, 2, 2, 2])
    constraint = EmotionConstraint(SIX_NAMES[:3], ALPHA, BETA, polarities, negatives=negatives)
    pairs = constraint._pairs(distances_between(embeddings.detach()), labels)
    losses = (pairs.farthest - distances_between(embeddings.detach()) + BETA)[0, pairs.seen[0]]
    assert losses.tolist() == pytest.approx(pushes, rel=1e-9)
    assert pairs.violated[0].tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("negatives", ["hinge", "nearest"])
def test_two_points_of_mixed_polarity_are_torn_apart(negatives: Selection) -> None:
    """Sad = happy and angry = surprised: eq. 6 is violated by each pair, and the band sees none."""
    names, polarities = ("sad", "angry", "happy", "surprised"), {k: WHEEL[k] for k in ("negative", "positive")}
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    embeddings = at_degrees(0, 0, 60, 60, 0, 0, 60, 60).requires_grad_()
    constraint = EmotionConstraint(names, ALPHA, BETA, polarities, negatives=negatives)
    loss, _ = constraint(embeddings, labels)
    loss.backward()
    # Each anchor: r2 at distance 1, two negatives at its own point and two at r2's; the first term is satisfied.
    expected = {"hinge": 1 - 0.5 + BETA, "nearest": 1 - 0 + BETA}[negatives]
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert embeddings.grad is not None
    assert (embeddings.grad.norm(dim=1) > 0.01).all()
    band = EmotionConstraint(names, ALPHA, BETA, polarities, negatives="band")
    assert band(embeddings, labels)[0] == 0.0
    assert band.violations(embeddings, labels).tolist() == [32, 32, 0]


@pytest.mark.parametrize("same_related", [False, True])
def test_loss_and_gradient_are_zero_when_satisfied(same_related: bool) -> None:
    # Two sad and two angry utterances around 0 degrees, happy at 120, neutral at 240.
    embeddings = at_degrees(0, 1, 12, 13, 120, 121, 240, 241).requires_grad_()
    constraint = EmotionConstraint(SIX_NAMES, ALPHA, BETA, SIX_POLARITIES, MARGIN, same_related)
    loss, terms = constraint(embeddings, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    assert (loss.item(), terms.item()) == (0.0, 0)
    loss.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0.0


@pytest.mark.parametrize("labels", [[0], [0, 1], [0, 2], [2, 3], [0, 0, 0]], ids=str)
def test_without_company_loss_and_gradient_are_zero(labels: list[int]) -> None:
    embeddings = at_degrees(*range(0, 100 * len(labels), 100)).requires_grad_()
    loss, terms = EmotionConstraint(SIX_NAMES, ALPHA, BETA, SIX_POLARITIES)(embeddings, torch.tensor(labels))
    assert (loss.item(), terms.item()) == (0.0, 0)
    loss.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0.0


def test_anchors_without_related_emotions_use_plain_triplets() -> None:
    # Neutral and happy anchors alone: no related emotion occurs, so only plain triplets remain.
    embeddings, _ = random_batch(4, 20, 0)
    labels = torch.tensor([2, 3] * 10)
    constraint = EmotionConstraint(SIX_NAMES, ALPHA, BETA, SIX_POLARITIES, MARGIN)
    loss, terms = constraint(embeddings, labels)
    distances = distances_between(embeddings).numpy()
    same = labels.unsqueeze(1) == labels
    means = []
    for a in range(20):
        losses = [
            distances[a, p] - distances[a, n] + MARGIN
            for p in range(20)
            for n in range(20)
            if p != a and same[a, p] and not same[a, n] and distances[a, p] < distances[a, n] < distances[a, p] + MARGIN
        ]
        means.append(np.mean(losses) if losses else 0.0)
    assert loss.item() == pytest.approx(np.mean(means), rel=1e-12)
    assert terms == TripletLoss(SIX_NAMES, MARGIN)(embeddings, labels)[1]


def test_a_related_emotion_is_never_a_negative() -> None:
    # One sad and one angry anchor, and no other polarity: only the first term remains.
    embeddings = at_degrees(0, 10, 12, 30)
    loss, terms = EmotionConstraint(SIX_NAMES, ALPHA, BETA, SIX_POLARITIES)(embeddings, torch.tensor([0, 0, 1, 1]))
    pulls = [
        distance(10) - distance(12) + ALPHA,
        distance(10) - distance(2) + ALPHA,
        distance(18) - distance(2) + ALPHA,
        distance(18) - distance(20) + ALPHA,
    ]
    assert terms.item() == 4
    assert loss.item() == pytest.approx(np.mean(pulls), rel=1e-9)


@SELECTIONS
@CORPORA
def test_its_gradient_survives_finite_differences(
    names: tuple[str, ...], polarities: dict[str, list[str]], negatives: Selection
) -> None:
    embeddings, labels = random_batch(len(names), 14, 3)
    constraint = EmotionConstraint(names, ALPHA, BETA, polarities, MARGIN, negatives=negatives)
    torch.autograd.gradcheck(lambda inputs: constraint(inputs, labels)[0], embeddings.requires_grad_())


def test_the_order_of_the_batch_does_not_matter() -> None:
    embeddings, labels = random_batch(8, 30, 0)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    constraint = EmotionConstraint(RAVDESS, ALPHA, BETA, WHEEL)
    loss, terms = constraint(embeddings, labels)
    shuffled, shuffled_terms = constraint(embeddings[order], labels[order])
    torch.testing.assert_close(shuffled, loss, rtol=1e-12, atol=0)
    assert shuffled_terms == terms


def test_gradients_are_finite_if_all_embeddings_are_identical() -> None:
    embeddings = torch.ones(8, 4, requires_grad=True)
    loss, _ = EmotionConstraint(RAVDESS, ALPHA, BETA, WHEEL)(embeddings, torch.tensor([0, 0, 1, 1] * 2))
    loss.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0.0


def test_autocast_does_not_change_half_precision_embeddings() -> None:
    embeddings, labels = random_batch(8, 30, 0)
    rounded = embeddings.bfloat16()
    constraint = EmotionConstraint(RAVDESS, ALPHA, BETA, WHEEL)
    expected = constraint(rounded.float(), labels)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = constraint(rounded, labels)[0]
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_emotions_that_a_corpus_lacks_change_nothing() -> None:
    embeddings, labels = random_batch(len(CREMA_D), 24, seed=0)
    whole = EmotionConstraint(CREMA_D, ALPHA, BETA, WHEEL)(embeddings, labels)
    part = EmotionConstraint(CREMA_D, ALPHA, BETA, WHEEL_OF_CREMA_D)(embeddings, labels)
    assert part[1] > 0
    assert all(torch.equal(*pair) for pair in zip(whole, part, strict=True))


def test_an_emotion_without_polarity_has_one_to_itself() -> None:
    embeddings, labels = random_batch(len(CREMA_D), 24, seed=0)
    named = EmotionConstraint(CREMA_D, ALPHA, BETA, WHEEL_OF_CREMA_D)(embeddings, labels)
    unnamed = {polarity: emotions for polarity, emotions in WHEEL_OF_CREMA_D.items() if polarity != "centre"}
    left_out = EmotionConstraint(CREMA_D, ALPHA, BETA, unnamed)(embeddings, labels)
    assert all(torch.equal(*pair) for pair in zip(named, left_out, strict=True))


def test_a_polarity_may_be_called_like_an_emotion_without_one() -> None:
    polarities = {"negative": ["sad", "angry"], "neutral": ["happy"]}
    polarity = EmotionConstraint(SIX_NAMES, ALPHA, BETA, polarities).polarity.tolist()
    assert len(set(polarity)) == 3, "neutral is no relative of happy"


def test_settings_are_not_in_the_checkpoint() -> None:
    assert not EmotionConstraint(RAVDESS, ALPHA, BETA, WHEEL).state_dict()


@pytest.mark.parametrize(
    ("polarities", "message"),
    [
        ({"negative": ["sad", "angry"], "positive": ["hapy", "neutral"]}, r"hapy.* happy"),
        ({"negative": ["sad", "angry"], "positive": ["angry"]}, "angry.*negative.*positive"),
        ({"negative": ["sad", "sad"]}, "sad.*negative.*negative"),
        ({name: [name] for name in SIX_NAMES}, "polarities.*TripletLoss"),
        ({}, "polarities.*TripletLoss"),
    ],
    ids=["misspelt", "two polarities", "twice", "nobody related", "empty"],
)
def test_polarities_that_do_not_fit_are_rejected_by_name(polarities: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmotionConstraint(SIX_NAMES, ALPHA, BETA, polarities)


@pytest.mark.parametrize("name", ["alpha", "beta", "margin"])
def test_margins_that_are_not_positive_are_rejected(name: str) -> None:
    margins = {"alpha": ALPHA, "beta": BETA, "margin": MARGIN, name: -0.5}
    with pytest.raises(ValueError, match=rf"{name} is -0\.5"):
        EmotionConstraint(SIX_NAMES, polarities=SIX_POLARITIES, **margins)
