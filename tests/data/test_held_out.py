"""Protocols that hold out clips of each speaker."""

import random
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser
from rich.console import Console

from ser_lightning.cross_validation.audit import audit
from ser_lightning.data.held_out import HeldOutClips, ListedClips
from ser_lightning.data.protocols import Protocol, speaker_overlap
from ser_lightning.errors import ProtocolError
from ser_lightning.types import Utterance, hash_splits


def corpus(clips: dict[str, int]) -> list[Utterance]:
    return [
        Utterance(name=f"{speaker}_{take:02d}", path=Path(f"{speaker}_{take:02d}.wav"), speaker=speaker, label=speaker)
        for speaker, count in clips.items()
        for take in range(count)
    ]


CORPUS = corpus({"anna": 9, "bert": 4, "carl": 20})


def names(utterances: tuple[Utterance, ...]) -> list[str]:
    return [utterance.name for utterance in utterances]


@pytest.mark.parametrize("count", [1, 3])
def test_held_out_clips_validate_and_the_others_train(count: int) -> None:
    split = HeldOutClips(count).split(CORPUS, 0)
    speakers = [u.speaker for u in split.validation]
    assert speakers == ["anna"] * count + ["bert"] * count + ["carl"] * count
    assert sorted(names(split.train + split.validation)) == sorted(u.name for u in CORPUS)
    assert split.test == ()
    assert HeldOutClips(count).num_folds(CORPUS) == 1


def test_the_draw_depends_on_the_seed_not_the_order() -> None:
    shuffled = random.Random(0).sample(CORPUS, len(CORPUS))
    split = HeldOutClips(2).split(CORPUS, 0)
    assert HeldOutClips(2).split(shuffled, 0) == split
    drawn = {tuple(names(HeldOutClips(2, seed).split(CORPUS, 0).validation)) for seed in range(10)}
    assert len(drawn) == 10


def test_other_speakers_change_nothing_about_a_speakers_draw() -> None:
    whole = HeldOutClips().split(CORPUS, 0).validation
    alone = HeldOutClips().split([u for u in CORPUS if u.speaker == "bert"], 0).validation
    assert [u for u in whole if u.speaker == "bert"] == list(alone)


def test_every_clip_of_a_speaker_is_held_out_by_some_seed() -> None:
    drawn = {u.name for seed in range(200) for u in HeldOutClips(1, seed).split(CORPUS, 0).validation}
    assert drawn == {u.name for u in CORPUS}


def test_a_speaker_with_too_few_clips_is_named_with_the_way_out() -> None:
    with pytest.raises(ProtocolError, match=r"bert has 4 clips.*clips_per_speaker to 3"):
        HeldOutClips(4).split(CORPUS, 0)
    with pytest.raises(ProtocolError, match=r"dora has 1 clip,.*add clips of dora"):
        HeldOutClips().split(corpus({"anna": 2, "dora": 1}), 0)


@pytest.mark.parametrize(("arguments", "message"), [((0,), "clips_per_speaker is 0"), ((1, -1), "seed is -1")])
def test_unusable_arguments_are_rejected(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        HeldOutClips(*arguments)


def test_yaml_makes_it_and_its_name_says_what_it_does() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--protocol", type=Protocol)
    written = {"class_path": "ser_lightning.data.held_out.HeldOutClips", "init_args": {"clips_per_speaker": 2}}
    protocol = parser.instantiate_classes(parser.parse_string(yaml.safe_dump({"protocol": written}))).protocol
    assert protocol.name == "held-out clips (2 of each speaker, seed 0)"
    assert not protocol.speakers_disjoint
    assert not protocol.has_test_set


def test_an_empty_test_set_has_a_hash_and_no_speakers() -> None:
    split = HeldOutClips().split(CORPUS, 0)
    assert split.hash == hash_splits([split])
    assert split.hash != HeldOutClips(2).split(CORPUS, 0).hash
    assert split.speakers("test") == ()
    assert speaker_overlap(split) == ("anna", "bert", "carl")


def test_audit_shows_the_empty_set_and_shared_speakers(synthetic_ravdess: Path) -> None:
    console = Console(record=True, width=200)
    arguments = [
        "--config=experiments/quickstart.yaml",
        f"--data.init_args.root={synthetic_ravdess}",
        "--data.init_args.protocol=ser_lightning.data.held_out.HeldOutClips",
    ]
    assert audit(arguments, [], console) == 1
    shown = console.export_text()
    assert "held-out clips (1 of each speaker, seed 0)" in shown
    assert "0.00" in next(line for line in shown.splitlines() if " test " in line)


def test_a_list_names_validation_clips_with_or_without_extension(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("carl_03.wav 1\n\nanna_00\n", encoding="utf-8")
    protocol = ListedClips(file)
    split = protocol.split(CORPUS, 0)
    assert names(split.validation) == ["anna_00", "carl_03"]
    assert len(split.train) == len(CORPUS) - 2
    assert (split.test, protocol.name, protocol.num_folds(CORPUS)) == ((), "listed clips (list.txt)", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [("anna_77.wav\n", r"list\.txt.*anna_77\.wav"), ("\n", r"list\.txt.*no clip")],
)
def test_a_list_that_does_not_fit_is_rejected(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ProtocolError, match=message):
        ListedClips(tmp_path / "list.txt").split(CORPUS, 0)


def test_a_list_that_is_not_there_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"nowhere\.txt"):
        ListedClips(tmp_path / "nowhere.txt").split(CORPUS, 0)


def test_audit_has_no_column_for_each_of_many_speakers(
    synthetic_ravdess: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_lightning.cross_validation.audit.MAX_CLASS_COLUMNS", 5)
    console = Console(record=True, width=200)
    audit(["--config=experiments/quickstart.yaml", f"--data.init_args.root={synthetic_ravdess}"], [], console)
    shown = console.export_text()
    assert "of each of 8 classes" in shown
    assert "fearful" not in shown
