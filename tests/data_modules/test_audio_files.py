"""A user's own recordings: the two layouts, and errors of other folders."""

import csv
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from data_modules import audio_files
from data_modules.audio_files import AudioFiles, find_utterances
from ser_lightning.audio import AUDIO_ENDINGS
from ser_lightning.data.held_out import HeldOutClips
from ser_lightning.data.protocols import ActorFolds, LeaveOneSpeakerOut, ListedFolds
from ser_lightning.errors import CorpusError, CorpusWarning, ProtocolError
from ser_lightning.features import LogMelFilterbank
from ser_lightning.inference.recordings import find_recordings
from ser_lightning.types import STAGES, Utterance


def recordings(root: Path, table: str | None = None, *files: str) -> Path:
    """A folder with empty ``files``, and with a table of labels if one is given."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    if table is not None:
        (root / "labels.csv").write_text(table, encoding="utf-8")
    return root


def names(root: Path, labels: Path | None = None) -> list[str]:
    return [utterance.name for utterance in find_utterances(root, labels).utterances]


SETS = ("Train", "dev", "TEST")
TABLE = "path,speaker,label,gender,session\nb/1.wav,Bea,glad,female,s1\na/1.flac,Ali,cross,male,s1\n"


def test_every_column_of_the_table_is_read(tmp_path: Path) -> None:
    recordings(tmp_path, TABLE, "a/1.flac", "b/1.wav")
    found = find_utterances(tmp_path)
    assert found.utterances == (
        Utterance("a/1", tmp_path / "a/1.flac", "Ali", "cross", gender="male", session="s1"),
        Utterance("b/1", tmp_path / "b/1.wav", "Bea", "glad", gender="female", session="s1"),
    )
    assert found.left_out == {}


def test_further_columns_group_utterances(tmp_path: Path) -> None:
    table = "path,speaker,label,Language,note\n1.wav,Bea,glad,de,x\n2.wav,Bea,glad,en,x\n3.wav,Bea,glad,,x\n"
    recordings(tmp_path, table, "1.wav", "2.wav", "3.wav")
    with pytest.warns(CorpusWarning, match="not read: note"):  # it tells no utterances apart
        first, second, third = find_utterances(tmp_path).utterances
    assert first.groups() == {"language": "de"}
    assert second.groups() == {"language": "en"}
    assert third.groups() == {}


def test_unread_columns_are_named(tmp_path: Path) -> None:
    recordings(tmp_path, "note, Label ,path,speaker,\nx, glad ,1.wav, Bea ,\n\n,,,,\n", "1.wav")
    with pytest.warns(CorpusWarning, match=r"labels\.csv: columns that are not read: note\."):
        assert find_utterances(tmp_path).utterances == (Utterance("1", tmp_path / "1.wav", "Bea", "glad"),)


def test_a_table_as_spreadsheets_save_it_is_read(tmp_path: Path) -> None:
    recordings(tmp_path, None, "Zoë, 1.wav")
    table = 'path,speaker,label\r\n"Zoë, 1.wav",Zoë,glad\r\n'
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    (utterance,) = find_utterances(tmp_path).utterances
    assert (utterance.name, utterance.speaker) == ("Zoë, 1", "Zoë")


def test_what_the_table_does_not_list_is_named(tmp_path: Path) -> None:
    recordings(tmp_path, "path,speaker,label\n1.wav,Bea,glad\n", "1.wav", "1.flac", "a/2.wav", "a/._2.wav", "notes.txt")
    with pytest.warns(CorpusWarning, match=r"1 audio files .* not used.*: a/2\.wav\."):
        assert names(tmp_path) == ["1"]


def test_another_table_has_paths_relative_to_the_root(tmp_path: Path) -> None:
    recordings(tmp_path / "audio", TABLE, "b/1.wav")
    other = tmp_path / "other.csv"
    other.write_text("path,speaker,label\nb/1.wav,Bea,calm\n")
    assert names(tmp_path / "audio", other) == ["b/1"]


def test_without_a_table_folders_say_label_and_speaker(tmp_path: Path) -> None:
    recordings(tmp_path, None, "glad/Bea/1.wav", "cross/Bea/1.wav", "cross/Ali/deeper/2.ogg", "cross/Ali/._2.wav")
    assert find_utterances(tmp_path).utterances == (
        Utterance("cross/Ali/deeper/2", tmp_path / "cross/Ali/deeper/2.ogg", "Ali", "cross"),
        Utterance("cross/Bea/1", tmp_path / "cross/Bea/1.wav", "Bea", "cross"),
        Utterance("glad/Bea/1", tmp_path / "glad/Bea/1.wav", "Bea", "glad"),
    )


def test_unsupported_recordings_are_named_without_a_table(tmp_path: Path) -> None:
    recordings(tmp_path, None, "glad/Bea/1.wav", "glad/Bea/1.m4a", "glad/Bea/2.m4a", "cross/Ali/1.wma")
    with pytest.warns(CorpusWarning, match=r"2 utterances .*: cross/Ali/1 \(\.wma\), glad/Bea/2 \(\.m4a\)"):
        assert names(tmp_path) == ["glad/Bea/1"]
    recordings(tmp_path, "path,speaker,label\nglad/Bea/2.m4a,Bea,glad\nglad/Bea/1.wav,Bea,glad\n")
    assert names(tmp_path) == ["glad/Bea/1", "glad/Bea/2"]


def test_a_table_folders_and_classify_accept_the_same_formats(tmp_path: Path) -> None:
    files = [f"glad/Bea/{ending[1:]}{ending}" for ending in AUDIO_ENDINGS]
    recordings(tmp_path, None, *files, *(f"glad/Bea/{ending[1:]}{ending.upper()}" for ending in (".txt", ".zip")))
    in_folders = {u.path for u in find_utterances(tmp_path).utterances}
    recordings(tmp_path, "path,speaker,label\n" + "".join(f"{file},Bea,glad\n" for file in files))
    in_table = {u.path for u in find_utterances(tmp_path).utterances}
    assert in_folders == in_table == {tmp_path / file for file in files} == set(find_recordings([tmp_path]))


def test_a_recording_outside_the_layout_is_named_with_both(tmp_path: Path) -> None:
    recordings(tmp_path, None, "glad/Bea/1.wav", "glad/2.wav", "3.wav")
    with pytest.raises(CorpusError) as error:
        find_utterances(tmp_path)
    for part in ("3.wav", "<label>/<speaker>", "glad/2.wav", "labels.csv", "path,speaker,label"):
        assert part in str(error.value)
    assert "glad/Bea/1.wav" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\n1.wav,glad\n", "the column speaker is missing; its first line is path,label."),
        ("file,who\n1.wav,Bea\n", "the column path, speaker, label is missing"),
        ("path;speaker;label\n1.wav;Bea;glad\n", "Separate columns by commas."),
        ("", "its first line is empty"),
        ("path,speaker,label\n", "lists no recording"),
        ("path,speaker,label\n1.wav,Bea,\n", "line 2: label is empty"),
        ("path,speaker,label\n1.wav,,\n", "line 2: speaker and label are empty"),
        ("path,speaker,label\n1.wav,\u200b,glad\n", "line 2: speaker is empty"),
        ("path,speaker,label\n1.wav,Bea\n", "line 2: 2 fields, the first line names 3"),
        ("path,speaker,text,label\n1.wav,Bea,well, no,glad\n", "line 2: 5 fields, the first line names 4; quote what"),
        ("path,speaker,label,\n1.wav,Bea,glad,sad\n", "line 2: 'sad' is in a column without a name"),
        ("path,speaker,label,Label\n1.wav,Bea,glad,sad\n", "line 1: the column label occurs twice"),
        ("path,speaker,label,start,end_time\n1.wav,Bea,glad,0,1\n", "the column start, end_time makes rows parts"),
        ('path,speaker,label\n1.wav,Bea,glad\n"2.wav,Bea,glad\n', "line 3: a quotation mark is not closed"),
        ('path,speaker,label\n"1.wav,Bea,glad\n' + "1.wav,Bea,glad\n" * 9000, "line 2: a quotation mark is not closed"),
        ('path,speaker,label\n1.wav,Bea,"glad\n1.flac,Bea,sad"\n', "line 2: the label has a line break"),
        ("path,speaker,label\n1.WAV,Bea,glad\n", "has 1.wav, which differs in letter case"),
        ("path,speaker,label\n1.wav,Bea,glad\n9.wav,Bea,glad\n", "line 3: there is no file"),
        ("path,speaker,label\n/tmp/1.wav,Bea,glad\n", "the path /tmp/1.wav is not below"),
        ("path,speaker,label\n../1.wav,Bea,glad\n", "the path ../1.wav is not below"),
        ("path,speaker,label,gender\n1.wav,Bea,glad,f\n", "the gender 'f' is unknown; write female, male or nothing"),
        ("path,speaker,label\n1.wav,Bea,glad\n1.wav,Bea,sad\n", "more than once, such as 1 ('1.wav')"),
        ("path,speaker,label\n1.wav,Bea,glad\n1.flac,Bea,glad\n", "more than once, such as 1 ('1.flac', '1.wav')"),
    ],
)
def test_faults_of_a_table_are_named_with_their_line(tmp_path: Path, table: str, message: str) -> None:
    recordings(tmp_path, table, "1.wav", "1.flac")
    with pytest.raises(CorpusError, match=re.escape(message)) as error:
        find_utterances(tmp_path)
    assert str(tmp_path / "labels.csv") in str(error.value)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_one_in_every_form_of_unicode(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    rows = ["é/jörg 1.wav,jörg,müde", "é/jörg 2.wav,\u200björg\u00a0,mü\u00adde"]
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", rows[1])
    recordings(tmp_path, None, *(unicodedata.normalize(form, row.split(",")[0]) for row in rows))
    (tmp_path / "labels.csv").write_text("\n".join(["path,speaker,label", rows[0], other]))
    found = find_utterances(tmp_path).utterances
    assert [(u.name, u.speaker, u.label) for u in found] == [(f"é/jörg {n}", "jörg", "müde") for n in (1, 2)]
    assert all(u.path.is_file() for u in found)


def test_folders_in_two_forms_of_unicode_are_one_speaker(tmp_path: Path) -> None:
    recordings(tmp_path, None, "froh/jörg/1.wav", unicodedata.normalize("NFD", "froh/jörg/2.wav"))
    assert {u.speaker for u in find_utterances(tmp_path).utterances} == {"jörg"}


def test_files_that_look_the_same_are_named_apart(tmp_path: Path) -> None:
    recordings(tmp_path, "path,speaker,label\né.wav,Bea,glad\n", "e\u0301.wav", "\u00e9\u200b.wav")
    with pytest.raises(CorpusError, match=r"'e\\u0301\.wav', '\\xe9\\u200b\.wav'; rename all but one"):
        find_utterances(tmp_path)


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (
            "path,speaker,label",
            ["1.wav,Bea,glad", "2.wav,bea,sad"],
            "speakers differ only in letter case: 'Bea' (1) and",
        ),
        (
            "path,speaker,label",
            ["1.wav,Bea,glad", "2.wav,Ali,Glad"],
            "labels differ only in letter case: 'Glad' (1) and",
        ),
        (
            "path,speaker,label,session",
            ["1.wav,Bea,a,S1", "2.wav,Ali,b,s1"],
            "sessions differ only in letter case: 'S1'",
        ),
        ("path,speaker,label", ["1.wav,STRASSE,glad", "2.wav,Straße,sad"], "'STRASSE' (1) and 'Straße' (1)"),
    ],
)
def test_names_that_differ_in_case_are_refused(tmp_path: Path, columns: str, rows: list[str], message: str) -> None:
    recordings(tmp_path, "\n".join([columns, *rows]), "1.wav", "2.wav")
    with pytest.raises(CorpusError, match=re.escape(message)):
        module(tmp_path)


def test_classes_in_yaml_are_compared_like_labels(tmp_path: Path) -> None:
    recordings(tmp_path, "path,speaker,label\n1.wav,Bea,müde\n2.wav,Ali,froh\n", "1.wav", "2.wav")
    assert module(tmp_path, classes=(unicodedata.normalize("NFD", "müde"), " froh")).class_names == ("müde", "froh")
    with pytest.raises(CorpusError, match="one letter case"):
        module(tmp_path, classes=("müde", "froh", "Froh"))


def test_a_split_column_is_kept_for_listed_folds(tmp_path: Path) -> None:
    rows = [
        f"{n}.wav,{speaker},{'ab'[n % 2]},{split}" for n, (speaker, split) in enumerate(zip("xyz", SETS, strict=True))
    ]
    recordings(tmp_path, "\n".join(["path,speaker,label,split", *rows]), "0.wav", "1.wav", "2.wav")
    data = module(tmp_path, protocol=ListedFolds())
    assert [split.speakers(stage) for split in (data.split(0),) for stage in STAGES] == [("x",), ("y",), ("z",)]
    assert module(tmp_path).num_folds() == 3


def test_all_faults_of_a_table_are_named_at_once_up_to_ten(tmp_path: Path) -> None:
    recordings(tmp_path, "path,speaker,label\n" + "".join(f"{n}.wav,Bea,glad\n" for n in range(12)), "0.wav")
    with pytest.raises(CorpusError) as error:
        find_utterances(tmp_path)
    assert str(error.value).count("there is no file") == 10
    assert str(error.value).endswith("and 1 more")


def test_a_missing_or_binary_table_is_rejected(tmp_path: Path) -> None:
    recordings(tmp_path, None, "1.wav")
    with pytest.raises(CorpusError, match=r"nothing\.csv cannot be read"):
        find_utterances(tmp_path, tmp_path / "nothing.csv")
    (tmp_path / "labels.csv").write_bytes("path,speaker,label\n1.wav,Zoë,glad\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="save it as CSV in UTF-8"):
        find_utterances(tmp_path)


def test_a_folder_that_is_missing_or_without_audio_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        find_utterances(tmp_path / "nowhere")
    (tmp_path / "jo\u0308rg").mkdir()
    with pytest.raises(CorpusError, match=r"'j\\xf6rg' was given, and 'jo\\u0308rg' is there"):
        find_utterances(tmp_path / "jörg")
    recordings(tmp_path, None, "talk.m4a")
    with pytest.raises(CorpusError, match=r"1 \.m4a: unpack archives, and convert"):
        find_utterances(tmp_path)
    with pytest.raises(CorpusError, match="nowhere is not a folder"):
        find_utterances(tmp_path / "nowhere", tmp_path / "labels.csv")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers, eight clips each."""
    root = tmp_path_factory.mktemp("synthetic") / "audio_files"
    assert audio_files.write_synthetic(root, speakers=3, seed=0, clips_per_speaker=8) == 24
    return root


def module(root: Path, **options: Any) -> AudioFiles:
    return AudioFiles(root, LogMelFilterbank(), **options)


def test_the_synthetic_twin_has_a_table_of_what_it_holds(synthetic: Path) -> None:
    with (synthetic / "labels.csv").open(newline="") as file:
        listed = {row["path"] for row in csv.DictReader(file)}
    assert listed == {path.relative_to(synthetic).as_posix() for path in synthetic.rglob("*.wav")}
    data = module(synthetic)
    assert data.corpus_name == "audio_files-synthetic"
    assert data.class_names == ("angry", "happy", "neutral", "sad")
    assert Counter(u.label for u in data.utterances) == dict.fromkeys(data.class_names, 6)
    assert {u.gender for u in data.utterances} == {"female", "male"}


def test_rewriting_the_synthetic_corpus_changes_nothing(synthetic: Path) -> None:
    before = (synthetic / "labels.csv").read_bytes()
    assert audio_files.write_synthetic(synthetic, speakers=3, seed=0, clips_per_speaker=8) == 0
    assert (synthetic / "labels.csv").read_bytes() == before


def test_every_speaker_is_left_out_once_by_default(synthetic: Path) -> None:
    data = module(synthetic)
    assert isinstance(data.protocol, LeaveOneSpeakerOut)
    tested = [data.split(fold).speakers("test") for fold in range(data.num_folds())]
    assert tested == [("speaker_01",), ("speaker_02",), ("speaker_03",)]
    assert module(synthetic, protocol=ActorFolds("even", 3)).num_folds() == 3


def test_two_speakers_are_too_few_to_leave_one_out(tmp_path: Path) -> None:
    recordings(tmp_path, None, "glad/Bea/1.wav", "cross/Ali/1.wav")
    with pytest.raises(ProtocolError, match="at least 3 speakers"):
        module(tmp_path).num_folds()


def test_classes_may_be_reordered_and_may_not_occur(synthetic: Path) -> None:
    given = ("sad", "neutral", "calm", "happy", "angry")
    assert module(synthetic, classes=given).class_names == given


def test_a_label_that_the_given_classes_lack_is_named(synthetic: Path) -> None:
    with pytest.raises(CorpusError, match=r"happy \(6\), neutral \(6\).*angry, sad"):
        module(synthetic, classes=("angry", "sad"))


@pytest.mark.parametrize("classes", [("angry",), ("angry", "angry", "happy", "neutral", "sad")])
def test_classes_are_two_or_more_and_each_once(synthetic: Path, classes: tuple[str, ...]) -> None:
    with pytest.raises(CorpusError, match="at least two"):
        module(synthetic, classes=classes)


def test_one_label_makes_no_classes(tmp_path: Path) -> None:
    recordings(tmp_path, None, "glad/Bea/1.wav", "glad/Ali/1.wav")
    with pytest.raises(CorpusError, match="are glad; at least two"):
        module(tmp_path)


def test_speakers_can_be_the_classes(synthetic: Path) -> None:
    data = module(synthetic, recognise="speaker")
    assert data.class_names == ("speaker_01", "speaker_02", "speaker_03")
    assert isinstance(data.protocol, HeldOutClips)


def test_batches_are_made_of_recordings(synthetic: Path, feature_folder: Path) -> None:
    data = module(synthetic, feature_folder=feature_folder, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape[0] == 4
    assert set(batch.labels.tolist()) <= set(range(4))
