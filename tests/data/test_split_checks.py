"""The same audio twice, and classes that cannot be learnt."""

from pathlib import Path

import pytest

from ser_lightning.data.split_checks import (
    classes_of_one_speaker,
    find_same_audio,
    pairs_across_sets,
    same_audio_in_words,
    untrained_classes,
)
from ser_lightning.types import Split, TargetKind, Utterance


def utterance(name: str, speaker: str = "x", label: str | None = "a", *votes: str) -> Utterance:
    return Utterance(name, Path(name), speaker, label, votes=tuple((vote,) for vote in votes))


A, B, C, D, E = (utterance(name) for name in "ABCDE")
SPLIT = Split(3, train=(A, B), validation=(C,), test=(D, E))
SOUNDS = {A.path: "1", B.path: "1", C.path: "1", D.path: "2", E.path: "1"}


def test_every_group_of_the_same_audio_is_found() -> None:
    (group,) = find_same_audio([E, D, C, B, A], SOUNDS)
    assert group.utterances == (A, B, C, E)
    assert group.pairs == 6
    assert find_same_audio([A, D], SOUNDS) == find_same_audio([A, B], {}) == []


def test_pairs_are_counted_across_sets_and_not_within() -> None:
    groups = find_same_audio([A, B, C, D, E], SOUNDS)
    assert pairs_across_sets(groups, SPLIT) == [5]  # AC AE BC BE CE, not AB
    assert pairs_across_sets(groups, Split(0, (A, B, C, E), (D,), ())) == [0]
    assert pairs_across_sets(groups, Split(0, (A,), (D,), (E,))) == [1]  # the others are left out
    assert same_audio_in_words(groups, [SPLIT]) == "6 pairs of utterances have the same audio, in two sets of fold 3"


@pytest.mark.parametrize(
    ("known", "is_known"), [((("A", "B"),), True), ((("C", "B", "A"),), True), ((("A", "C"),), False), ((), False)]
)
def test_known_groups_of_a_release_are_marked(known: tuple[tuple[str, ...], ...], is_known: bool) -> None:
    (group,) = find_same_audio([A, B], SOUNDS, known)
    assert group.known == is_known


def test_other_speakers_and_labels_are_named() -> None:
    p, q = utterance("p", "x", "a"), utterance("q", "y", None)
    (group,) = find_same_audio([p, q], {p.path: "1", q.path: "1"})
    assert group.contradictions == ["speakers x, y", "labels a, none"]


@pytest.mark.parametrize(("kind", "missing"), [("hard", {"b": 2, "c": 1}), ("soft", {"c": 1}), ("existence", {"c": 1})])
def test_classes_that_are_tested_and_never_trained_are_counted(kind: TargetKind, missing: dict[str, int]) -> None:
    train = (utterance("1", "x", "a", "a", "b"), utterance("2", "x", None, "b"))
    test = tuple(utterance(str(n), "y", label) for n, label in enumerate("abbc", start=3))
    split = Split(0, train, (utterance("9", "z", "c"),), test)
    assert untrained_classes(split, ("a", "b", "c", "d"), kind) == missing


def test_classes_of_one_speaker_are_named_with_the_speaker() -> None:
    rows = [("1", "x", "a"), ("2", "y", "a"), ("3", "y", "b"), ("4", "y", "b"), ("5", "x", None)]
    utterances = [utterance(*row) for row in rows]
    assert classes_of_one_speaker(utterances, ("a", "b", "c")) == {"b": "y"}
    assert classes_of_one_speaker(utterances[2:4], ("b",)) == {}
    assert classes_of_one_speaker([utterance("1", "x", "x"), utterance("2", "y", "y")], ("x", "y")) == {}
