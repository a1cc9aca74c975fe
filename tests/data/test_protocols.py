import hashlib
import json
import random
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from ser_lightning.data.protocols import (
    ActorFolds,
    LeaveOneSessionOut,
    LeaveOneSpeakerOut,
    ListedFolds,
    Protocol,
    RandomFolds,
    speaker_overlap,
)
from ser_lightning.errors import ProtocolError
from ser_lightning.types import STAGES, Split, Stage, Utterance, hash_splits


def corpus(speakers: Sequence[str], each: int = 3, sessions: dict[str, str] | None = None) -> list[Utterance]:
    return [
        Utterance(
            name=f"{speaker}_{take:02d}",
            path=Path(f"{speaker}_{take:02d}.wav"),
            speaker=speaker,
            label=("angry", "sad")[take % 2],
            session=sessions[speaker] if sessions else None,
        )
        for speaker in speakers
        for take in range(each)
    ]


ACTORS = [f"{actor:02d}" for actor in range(1, 11)]
DYADS = {"1F": "1", "1M": "1", "2F": "2", "2M": "2", "3F": "3", "3M": "3"}
BLOCKS = ["1-2", "3-5", "6", "7-10"]

EVERY_PROTOCOL: list[tuple[Protocol, list[Utterance]]] = [
    (ActorFolds(BLOCKS), corpus(ACTORS)),
    (ActorFolds("even", 4), corpus(ACTORS)),
    (LeaveOneSpeakerOut(), corpus(ACTORS)),
    (LeaveOneSpeakerOut(), corpus(list(DYADS), sessions=DYADS)),
    (LeaveOneSessionOut(), corpus(list(DYADS), sessions=DYADS)),
    (LeaveOneSessionOut(None), corpus(list(DYADS), sessions=DYADS)),
    (RandomFolds(), corpus(ACTORS, each=7)),
    (RandomFolds(3, 0.1, seed=5), corpus(ACTORS)),
]
each_protocol = pytest.mark.parametrize(
    ("protocol", "utterances"), EVERY_PROTOCOL, ids=[f"{protocol.name}-{len(us)}" for protocol, us in EVERY_PROTOCOL]
)


def splits(protocol: Protocol, utterances: Sequence[Utterance]) -> list[Split]:
    return [protocol.split(utterances, fold) for fold in range(protocol.num_folds(utterances))]


@each_protocol
def test_every_utterance_is_in_exactly_one_set_of_a_fold(protocol: Protocol, utterances: list[Utterance]) -> None:
    for split in splits(protocol, utterances):
        together = [u.name for stage in STAGES for u in split.of(stage)]
        assert sorted(together) == sorted(u.name for u in utterances)
        assert all(split.of(stage) for stage in STAGES)


@each_protocol
def test_every_utterance_is_tested_exactly_once_over_the_folds(protocol: Protocol, utterances: list[Utterance]) -> None:
    tested = [u.name for split in splits(protocol, utterances) for u in split.test]
    assert sorted(tested) == sorted(u.name for u in utterances)


@each_protocol
def test_speakers_never_cross_in_speaker_disjoint_protocols(protocol: Protocol, utterances: list[Utterance]) -> None:
    crossing = [speaker_overlap(split) for split in splits(protocol, utterances)]
    assert all(crossing) if not protocol.speakers_disjoint else not any(crossing)


@each_protocol
def test_order_of_the_utterances_changes_nothing(protocol: Protocol, utterances: list[Utterance]) -> None:
    shuffled = random.Random(1).sample(utterances, len(utterances))
    assert splits(protocol, shuffled) == splits(protocol, utterances)
    assert hash_splits(splits(protocol, shuffled)) == hash_splits(splits(protocol, utterances))


@each_protocol
def test_sets_are_ordered_by_name_and_folds_count_from_zero(protocol: Protocol, utterances: list[Utterance]) -> None:
    for fold, split in enumerate(splits(protocol, utterances)):
        assert split.fold == fold
        for stage in STAGES:
            names = [u.name for u in split.of(stage)]
            assert names == sorted(names)


@each_protocol
@pytest.mark.parametrize("beyond", [-1, 0])
def test_a_fold_out_of_range_is_rejected_with_the_range(
    protocol: Protocol, utterances: list[Utterance], beyond: int
) -> None:
    folds = protocol.num_folds(utterances)
    fold = folds if beyond == 0 else beyond
    with pytest.raises(ProtocolError, match=rf"fold {fold} .*0 to {folds - 1}"):
        protocol.split(utterances, fold)


@each_protocol
def test_an_utterance_named_twice_is_rejected(protocol: Protocol, utterances: list[Utterance]) -> None:
    with pytest.raises(ProtocolError, match=f"unique.*{utterances[4].name}"):
        protocol.split([*utterances, utterances[4]], 0)


@each_protocol
def test_no_utterance_at_all_is_rejected(protocol: Protocol, utterances: list[Utterance]) -> None:
    with pytest.raises(ProtocolError, match="no utterance"):
        protocol.split([], 0)


def test_of_many_names_five_are_shown_and_the_rest_counted() -> None:
    for total, shown in ((5, r"01_00, .*05_00\. Give"), (7, r"01_00, .*05_00 and 2 more\. Give")):
        utterances = corpus(ACTORS[:total], each=1)
        with pytest.raises(ProtocolError, match=shown):
            RandomFolds().split(utterances * 2, 0)


def test_only_a_protocol_without_test_sets_rejects_testing() -> None:
    class Untested(RandomFolds):
        has_test_set = False

    RandomFolds().check_has_test_set()
    with pytest.raises(ProtocolError, match=r"random folds \(5, seed 0\).*nothing is tested"):
        Untested().check_has_test_set()


def test_a_session_is_tested_and_one_of_the_next_validates() -> None:
    utterances = corpus(list(DYADS), sessions=DYADS)
    (first, *_, last) = splits(LeaveOneSessionOut(), utterances)
    assert first.speakers("test") == ("1F", "1M")
    assert first.speakers("validation") == ("2F",)
    assert first.speakers("train") == ("2M", "3F", "3M")
    assert last.speakers("validation") == ("1F",)
    (whole, *_) = splits(LeaveOneSessionOut(None), utterances)
    assert whole.speakers("validation") == ("2F", "2M")
    two = LeaveOneSessionOut().split(corpus(["1F", "2F", "2M"], sessions=DYADS), 0)
    assert (two.speakers("train"), two.speakers("validation"), two.speakers("test")) == (("2M",), ("2F",), ("1F",))


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        (corpus(ACTORS), r"30 of 30 utterances have no session: 01_00"),
        (corpus(["1F", "1M"], sessions=DYADS), r"at least 2 sessions .* has 1: 1"),
        (corpus(["1F", "1M", "2F"], sessions=DYADS), r"the train set of fold 0 is empty"),
        (
            [*corpus(list(DYADS), sessions=DYADS), Utterance("x", Path("x.wav"), "1F", "sad", session="2")],
            "1F in more than one session",
        ),
    ],
)
def test_sessions_that_cannot_be_left_out_are_named(utterances: list[Utterance], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        LeaveOneSessionOut().split(utterances, 0)


def test_fold_k_validates_on_block_k_and_tests_the_next() -> None:
    blocks = [("01", "02"), ("03", "04", "05"), ("06",), ("07", "08", "09", "10")]
    for fold, split in enumerate(splits(ActorFolds(BLOCKS), corpus(ACTORS))):
        assert split.speakers("validation") == blocks[fold]
        assert split.speakers("test") == blocks[[1, 2, 3, 0][fold]]
        assert set(split.speakers("train")) == set(ACTORS) - set(blocks[fold]) - set(blocks[[1, 2, 3, 0][fold]])


def test_even_blocks_are_consecutive_with_the_larger_first() -> None:
    assert ActorFolds("even", 4).speaker_blocks(corpus(ACTORS)) == [
        ("01", "02", "03"),
        ("04", "05", "06"),
        ("07", "08"),
        ("09", "10"),
    ]


def test_even_blocks_order_numbers_as_numbers_and_names_as_text() -> None:
    assert ActorFolds("even", 3).speaker_blocks(corpus(["10", "9", "100"])) == [("9",), ("10",), ("100",)]
    assert ActorFolds("even", 3).speaker_blocks(corpus(["10", "9", "anna"])) == [("10",), ("9",), ("anna",)]


def test_even_blocks_without_a_speaker_each_are_rejected() -> None:
    with pytest.raises(ProtocolError, match=r"4 folds.* 3: 01, 02, 03"):
        ActorFolds("even", 4).split(corpus(ACTORS[:3]), 0)


def test_even_blocks_advise_only_what_works() -> None:
    with pytest.raises(ProtocolError, match=r"3: 01, 02, 03.*num_folds to 3"):
        ActorFolds("even", 4).split(corpus(ACTORS[:3]), 0)
    with pytest.raises(ProtocolError, match=r"2: 01, 02.*Add speakers.*3") as caught:
        ActorFolds("even", 3).split(corpus(ACTORS[:2]), 0)
    assert "num_folds" not in str(caught.value)


def test_all_missing_actors_are_named_and_even_blocks_suggested() -> None:
    present = [actor for actor in ACTORS if actor not in {"03", "07", "10"}]
    with pytest.raises(ProtocolError, match=r"3 of the 10 actors.*: 3, 7, 10.*blocks: even"):
        ActorFolds(BLOCKS).split(corpus(present), 0)


def test_a_speaker_whom_no_block_holds_is_named() -> None:
    with pytest.raises(ProtocolError, match=r"no block.*11, 12"):
        ActorFolds(BLOCKS).split(corpus([*ACTORS, "11", "12"]), 0)


@pytest.mark.parametrize("word", ["anna", "²"])
def test_ranges_on_speakers_who_are_not_numbers_are_rejected(word: str) -> None:
    with pytest.raises(ProtocolError, match=f"not numbers: {word}.*blocks: even"):
        ActorFolds(BLOCKS).split(corpus([*ACTORS, word]), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": "evn", "num_folds": 3}, "'evn' is neither"),
        ({"blocks": "even"}, "needs num_folds"),
        ({"blocks": "even", "num_folds": 2}, "num_folds is 2; choose at least 3"),
        ({"blocks": ["1-2", "3-4"]}, "num_folds is 2; choose at least 3"),
        ({"blocks": ["1-2", "3-4", "5"], "num_folds": 4}, "num_folds is 4.*3 blocks"),
        ({"blocks": ["1-3", "3-4", "5"]}, "3 in more than one block"),
        ({"blocks": ["1-2", "4-3", "5"]}, "'4-3'.*3-4"),
        ({"blocks": ["1-2", "x", "5"]}, "'x'"),
        ({"blocks": ["1-2", 6, "5"]}, "6 is not a range"),
    ],
)
def test_unusable_blocks_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        ActorFolds(**arguments)


def test_num_folds_beside_as_many_blocks_is_accepted() -> None:
    assert ActorFolds(BLOCKS, 4).num_folds([]) == 4


def test_leave_one_out_validates_on_the_session_partner() -> None:
    for fold, split in enumerate(splits(LeaveOneSpeakerOut(), corpus(list(DYADS), sessions=DYADS))):
        tested = sorted(DYADS)[fold]
        partner = tested[0] + {"F": "M", "M": "F"}[tested[1]]
        assert split.speakers("test") == (tested,)
        assert split.speakers("validation") == (partner,)
        assert set(split.speakers("train")) == set(DYADS) - {tested, partner}


def test_leave_one_out_without_sessions_validates_on_the_next() -> None:
    sets = [
        (split.speakers("test"), split.speakers("validation"))
        for split in splits(LeaveOneSpeakerOut(), corpus(["2", "10", "1"]))
    ]
    assert sets == [(("1",), ("2",)), (("2",), ("10",)), (("10",), ("1",))]


def test_every_partner_of_a_larger_session_validates() -> None:
    trios = {"a": "1", "b": "1", "c": "1", "d": "2", "e": "2"}
    assert LeaveOneSpeakerOut().split(corpus(list(trios), sessions=trios), 0).speakers("validation") == ("b", "c")


def test_a_speaker_alone_in_a_session_is_named() -> None:
    with pytest.raises(ProtocolError, match=r"speaker c .*session 2"):
        LeaveOneSpeakerOut().split(corpus(["a", "b", "c"], sessions={"a": "1", "b": "1", "c": "2"}), 2)


def test_sessions_on_some_utterances_only_are_rejected() -> None:
    mixed = [*corpus(["a", "b"], sessions={"a": "1", "b": "1"}), *corpus(["c"])]
    with pytest.raises(ProtocolError, match=r"3 of 9.*no session: c_00, c_01, c_02"):
        LeaveOneSpeakerOut().split(mixed, 0)


def test_one_session_for_all_leaves_nothing_to_learn_from() -> None:
    with pytest.raises(ProtocolError, match="train set of fold 1"):
        LeaveOneSpeakerOut().split(corpus(["a", "b", "c"], sessions=dict.fromkeys("abc", "1")), 1)


def test_leaving_out_one_of_two_speakers_is_rejected() -> None:
    with pytest.raises(ProtocolError, match=r"at least 3 speakers.*2: a, b"):
        LeaveOneSpeakerOut().split(corpus(["a", "b"]), 0)


def test_random_folds_keep_the_papers_proportions() -> None:
    for split in splits(RandomFolds(), corpus(ACTORS, each=10)):
        assert [len(split.of(stage)) for stage in STAGES] == [55, 25, 20]


def test_random_folds_differ_by_seed_and_are_shuffled() -> None:
    utterances = corpus(ACTORS, each=10)
    first, second = (RandomFolds(seed=seed).split(utterances, 0) for seed in (0, 1))
    assert first.hash != second.hash
    assert len(first.speakers("test")) > 4, first.speakers("test")


def test_random_folds_are_the_same_on_every_machine() -> None:
    # Fixed: a published split hash must not change with the version of NumPy.
    assert hash_splits(splits(RandomFolds(), corpus(ACTORS, each=10))) == "553450709cfd"


def test_a_protocol_hash_is_over_labelled_a_split_hash_over_all() -> None:
    labelled = corpus(["a", "b", "c"])
    kept = [*labelled, *(replace(u, name=f"{u.name}x", label=None) for u in labelled)]
    ours, theirs = (splits(LeaveOneSpeakerOut(), utterances) for utterances in (labelled, kept))
    assert hash_splits([split.labelled for split in theirs]) == hash_splits(ours) != hash_splits(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert other.labelled == one.labelled == one
        assert other.hash != one.hash


@pytest.mark.parametrize("total", range(2, 40))
@pytest.mark.parametrize(("folds", "fraction"), [(2, 0.49), (5, 0.79), (5, 0.25), (7, 0.01)])
def test_random_folds_of_any_size_are_proper_or_rejected(total: int, folds: int, fraction: float) -> None:
    utterances, refusal = corpus(["a"], each=total), ""
    try:
        made = splits(RandomFolds(folds, fraction), utterances)
    except ProtocolError as error:
        made, refusal = [], str(error)
    assert "is empty" in refusal or sorted(u.name for split in made for u in split.test) == [u.name for u in utterances]
    assert all(sum(len(split.of(stage)) for stage in STAGES) == total for split in made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_folds": 1}, "num_folds is 1; choose at least 2"),
        ({"validation_fraction": 0.0}, "validation_fraction is 0.0"),
        ({"validation_fraction": 0.8}, "validation_fraction is 0.8;.*5 folds.*than 0.8"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_unusable_random_folds_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        RandomFolds(**arguments)


def test_a_protocol_that_shares_speakers_is_rejected_by_name() -> None:
    class Careless(LeaveOneSpeakerOut):
        def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
            return ["test", *super().stages(utterances, fold)[1:]]

    with pytest.raises(ProtocolError, match=r"fold 1 .*: a"):
        Careless().split(corpus(["a", "b", "c"]), 1)


def test_overlap_names_the_speakers_who_are_in_two_sets() -> None:
    a, b, c = (tuple(corpus([speaker])) for speaker in "abc")
    assert speaker_overlap(Split(0, a, b, c)) == ()
    assert speaker_overlap(Split(0, a + b, b + c, c)) == ("b", "c")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ({"class_path": "ActorFolds", "init_args": {"blocks": BLOCKS}}, "actor folds (blocks, 4)"),
        ({"class_path": "ActorFolds", "init_args": {"blocks": "even", "num_folds": 3}}, "actor folds (even, 3)"),
        ({"class_path": "LeaveOneSpeakerOut"}, "leave one speaker out"),
        ({"class_path": "RandomFolds", "init_args": {"seed": 2}}, "random folds (5, seed 2)"),
    ],
)
def test_protocols_are_made_from_yaml_and_say_their_names(written: dict[str, Any], name: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--protocol", type=Protocol)
    path = f"ser_lightning.data.protocols.{written['class_path']}"
    config = parser.parse_string(yaml.safe_dump({"protocol": {**written, "class_path": path}}))
    assert parser.instantiate(config).protocol.name == name


def listed(*sets: str | None, speakers: Sequence[str] = ACTORS) -> list[Utterance]:
    utterances = corpus(speakers[: len(sets)], each=1)
    return [replace(u, listed_set=name) for u, name in zip(utterances, sets, strict=True)]


@pytest.mark.parametrize(
    "sets",
    [("train", "validation", "test"), ("Training", "DEV", "eval"), (" tr", "val ", "Testing"), ("trn", "valid", "tst")],
)
def test_listed_sets_may_be_spelt_in_the_usual_ways(sets: tuple[str, ...]) -> None:
    split = ListedFolds().split(listed(*sets), 0)
    assert [split.speakers(stage) for stage in STAGES] == [("01",), ("02",), ("03",)]
    assert ListedFolds().num_folds(listed(*sets)) == 1


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("train", "dev", None), r"1 of 3 utterances are listed in no set: 03_00\."),
        (("train", "dev", "fold3"), "the set 'fold3' is unknown"),
        (("train", "train", "test"), "no utterance is listed in the validation set; the sets listed are test, train"),
    ],
)
def test_faults_of_listed_sets_are_named(sets: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        ListedFolds().split(listed(*sets), 0)


def test_listed_sets_share_a_speaker_only_on_request() -> None:
    utterances = [replace(u, speaker="x") if u.listed_set != "dev" else u for u in listed("train", "dev", "test")]
    with pytest.raises(ProtocolError, match=r"more than one set: x\..*`speakers_disjoint` to false"):
        ListedFolds().split(utterances, 0)
    assert ListedFolds(speakers_disjoint=False).split(utterances, 0).speakers("test") == ("x",)


def test_listed_folds_are_chosen_by_name_in_yaml() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--protocol", type=Protocol)
    for protocol in ("ListedFolds", "{class_path: ListedFolds, init_args: {speakers_disjoint: false}}"):
        assert isinstance(parser.instantiate(parser.parse_args([f"--protocol={protocol}"])).protocol, ListedFolds)


def test_a_hash_of_many_utterances_is_that_of_one_json_list() -> None:
    split = RandomFolds().split(corpus(ACTORS, each=300), 0)
    content = [[0, stage, [[u.name, u.speaker, u.label] for u in split.of(stage)]] for stage in STAGES]
    assert len(split.train) > 1000
    assert split.hash == hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def test_memory_to_hash_folds_hardly_grows_with_the_corpus() -> None:
    few, many = (_memory_of_hash(splits(RandomFolds(4), corpus(ACTORS, each))) for each in (200, 800))
    assert many < 1.5 * few  # as one JSON text, four times


def _memory_of_hash(folds: Sequence[Split]) -> int:
    tracemalloc.start()
    try:
        hash_splits(folds)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
