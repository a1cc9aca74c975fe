"""Folds of published lists: EmoBox's folders of JSON lines, EMO-SUPERB's CSV, and others."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ser_lightning.data.protocols import ListedFolds
from ser_lightning.errors import CorpusWarning, ProtocolError
from ser_lightning.types import STAGES, Utterance

SPEAKERS = [f"{number:02d}" for number in range(1, 7)]


def corpus(speakers: Sequence[str] = SPEAKERS, folder: str = "audio") -> list[Utterance]:
    return [
        Utterance(f"{speaker}-{take}", Path(folder, f"Actor_{speaker}", f"{speaker}-{take}.wav"), speaker, "sad")
        for speaker in speakers
        for take in range(2)
    ]


def jsonl(path: Path, utterances: Sequence[Utterance], **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"key": f"set-{u.name}", "wav": f"downloads/{u.path}", "emo": "Sad", **more} for u in utterances]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def emobox(tmp_path: Path) -> Path:
    """Three folds of two test speakers each, without validation sets, as EmoBox publishes them."""
    utterances = corpus()
    for fold in range(3):
        tested = SPEAKERS[2 * fold : 2 * fold + 2]
        for name in ("train", "test"):
            some = [u for u in utterances if (u.speaker in tested) == (name == "test")]
            jsonl(tmp_path / f"fold_{fold + 1}" / f"mine_{name}_fold_{fold + 1}.jsonl", some)
    (tmp_path / "label_map.json").write_text("{}")
    return tmp_path


def test_folds_of_json_lines_get_a_validation_set_of_speakers(emobox: Path) -> None:
    utterances = corpus()
    protocol = ListedFolds(lists=emobox, validation_share=0.25)
    assert protocol.num_folds(utterances) == 3
    found = [protocol.split(utterances, fold) for fold in range(3)]
    assert [split.speakers("test") for split in found] == [("01", "02"), ("03", "04"), ("05", "06")]
    for split in found:
        assert len(split.speakers("validation")) == 1
        assert len(split.speakers("train")) == 3
        assert len(split.train) + len(split.validation) + len(split.test) == len(utterances)
    again = ListedFolds(lists=emobox, validation_share=0.25)
    assert [again.split(utterances[::-1], fold) for fold in range(3)] == found
    assert len({split.speakers("validation") for split in found}) > 1


def test_lists_that_share_speakers_are_rejected_unless_allowed(tmp_path: Path) -> None:
    utterances = corpus()
    jsonl(tmp_path / "fold_1" / "x_train_fold_1.jsonl", utterances[::2])
    jsonl(tmp_path / "fold_1" / "x_test_fold_1.jsonl", utterances[1::2])
    with pytest.raises(ProtocolError, match="fold 0 has speakers in more than one set: 01, 02"):
        ListedFolds(lists=tmp_path).split(utterances, 0)
    split = ListedFolds(lists=tmp_path, speakers_disjoint=False).split(utterances, 0)
    assert split.speakers("test") == tuple(SPEAKERS)


def test_a_csv_states_sets_and_folds(tmp_path: Path) -> None:
    names = ["Train", "Development", "Test"]
    rows = [f"{u.path.name},{u.speaker},{names[int(u.speaker) % 3]}" for u in corpus()]
    (tmp_path / "labels_consensus_1.csv").write_text("FileName,SpkrID,Split_Set\n" + "\n".join(rows))
    split = ListedFolds(lists=tmp_path / "labels_consensus_1.csv").split(corpus(), 0)
    assert [split.speakers(stage) for stage in STAGES] == [("03", "06"), ("01", "04"), ("02", "05")]
    rows = [f"{u.name},{fold},{names[(int(u.speaker) + fold) % 3]}" for u in corpus() for fold in (4, 7)]
    (tmp_path / "all.csv").write_text("utterance,fold,set\n" + "\n".join(rows))
    protocol = ListedFolds(lists=tmp_path / "all.csv")
    assert protocol.num_folds(corpus()) == 2
    assert protocol.split(corpus(), 0).speakers("train") == ("02", "05")  # (speaker + 4) % 3 == 0
    assert protocol.split(corpus(), 1).speakers("train") == ("02", "05")


def test_what_lists_and_corpus_do_not_share_is_a_warning(emobox: Path) -> None:
    protocol = ListedFolds(lists=emobox)
    more = [*corpus(), Utterance("07-0", Path("audio/07-0.wav"), "07", "sad")]
    with pytest.warns(CorpusWarning, match="1 of 13 utterances are in no set of fold 0"):
        split = protocol.split(more, 0)
    assert "07" not in {u.speaker for stage in STAGES for u in split.of(stage)}
    with pytest.warns(
        CorpusWarning, match=r"1 of 12 listed files are not in the corpus: downloads/audio/Actor_01/01-0"
    ):
        protocol.split(corpus()[1:], 0)
    with pytest.raises(ProtocolError, match=r"none of the 12 files of fold 0 .* the corpus has 90-0"):
        protocol.split(corpus(["90", "91", "92"]), 0)


def test_equal_file_names_are_told_apart_by_folder(tmp_path: Path) -> None:
    names = {"a/1": "train", "b/1": "validation", "c/1": "test"}
    utterances = [Utterance(name, Path(f"{name}.wav"), name[0], "sad") for name in names]
    rows = [f"{name}.wav,{stage}" for name, stage in names.items()]
    (tmp_path / "x.csv").write_text("path,set\n" + "\n".join(rows))
    split = ListedFolds(lists=tmp_path / "x.csv").split(utterances, 0)
    assert [split.speakers(stage) for stage in STAGES] == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "utterance,set\n01-0,train\n01-0,test\n", "line 3: 01-0 is in the test and the train set of fold 0"),
        ("x.csv", "utterance,set\n01-0,holdout\n", "line 2: the set 'holdout' is unknown"),
        ("x.csv", "utterance\n01-0\n", "line 2: no set; add a column `set`"),
        ("x.csv", "speaker,set\n01,train\n", "line 2: no file; name it in a column such as utterance"),
        ("x.csv", "utterance,set,fold\n01-0,train,one\n", "line 2: the fold 'one' is not a number"),
        ("test.jsonl", "[1]\n", "line 1: it is not a JSON object"),
        ("test.jsonl", "{\n", "cannot be read as a list"),
        ("x.txt", "", "holds no .csv or .jsonl file"),
    ],
)
def test_a_faulty_list_is_named_with_line_and_way_out(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ProtocolError, match=message):
        ListedFolds(lists=tmp_path).split(corpus(), 0)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"there is no .*gone; give a CSV or JSON lines file"):
        ListedFolds(lists=tmp_path / "gone").num_folds(corpus())
    with pytest.raises(ProtocolError, match="validation_share is 1"):
        ListedFolds(validation_share=1)
