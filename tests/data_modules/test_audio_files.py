"""A user's own recordings: the two layouts, and errors of other folders."""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_modules import audio_files
from data_modules.audio_files import AudioFiles, find_utterances
from data_modules.discovery import CorpusWarning
from ser_lightning.audio import AUDIO_ENDINGS
from ser_lightning.data.held_out import HeldOutClips
from ser_lightning.data.protocols import ActorFolds, LeaveOneSpeakerOut
from ser_lightning.errors import CorpusError, ProtocolError
from ser_lightning.features import LogMelFilterbank
from ser_lightning.inference.recordings import find_recordings
from ser_lightning.types import Utterance


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


TABLE = "path,speaker,label,gender,session\nb/1.wav,Bea,glad,female,s1\na/1.flac,Ali,cross,male,s1\n"


def test_every_column_of_the_table_is_read(tmp_path: Path) -> None:
    recordings(tmp_path, TABLE, "a/1.flac", "b/1.wav")
    found = find_utterances(tmp_path)
    assert found.utterances == (
        Utterance("a/1", tmp_path / "a/1.flac", "Ali", "cross", gender="male", session="s1"),
        Utterance("b/1", tmp_path / "b/1.wav", "Bea", "glad", gender="female", session="s1"),
    )
    assert found.left_out == {}


def test_columns_may_be_in_any_order_with_others_and_blanks(tmp_path: Path) -> None:
    recordings(tmp_path, "note, label ,path,speaker\nx, glad ,1.wav, Bea \n\n", "1.wav")
    assert find_utterances(tmp_path).utterances == (Utterance("1", tmp_path / "1.wav", "Bea", "glad"),)


def test_a_table_as_spreadsheets_save_it_is_read(tmp_path: Path) -> None:
    recordings(tmp_path, None, "Zoë, 1.wav")
    table = 'path,speaker,label\r\n"Zoë, 1.wav",Zoë,glad\r\n'
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    (utterance,) = find_utterances(tmp_path).utterances
    assert (utterance.name, utterance.speaker) == ("Zoë, 1", "Zoë")


def test_what_the_table_does_not_list_is_not_used(tmp_path: Path) -> None:
    recordings(tmp_path, "path,speaker,label\n1.wav,Bea,glad\n", "1.wav", "2.wav")
    assert names(tmp_path) == ["1"]


def test_another_table_has_paths_relative_to_the_root(tmp_path: Path) -> None:
    recordings(tmp_path / "audio", TABLE, "a/1.flac", "b/1.wav")
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
    recordings(tmp_path, "path,speaker,label\nglad/Bea/2.m4a,Bea,glad\n")
    assert names(tmp_path) == ["glad/Bea/2"]


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
        ("path,speaker,label\n1.wav\n", "line 2: speaker and label are empty"),
        ("path,speaker,label\n1.wav,Bea,glad\n9.wav,Bea,glad\n", "line 3: there is no file"),
        ("path,speaker,label\n/tmp/1.wav,Bea,glad\n", "the path /tmp/1.wav is not below"),
        ("path,speaker,label\n../1.wav,Bea,glad\n", "the path ../1.wav is not below"),
        ("path,speaker,label,gender\n1.wav,Bea,glad,f\n", "the gender 'f' is unknown; write female, male or nothing"),
        ("path,speaker,label\n1.wav,Bea,glad\n1.wav,Bea,sad\n", "more than once, such as 1 (.wav)"),
        ("path,speaker,label\n1.wav,Bea,glad\n1.flac,Bea,glad\n", "more than once, such as 1 (.flac, .wav)"),
    ],
)
def test_faults_of_a_table_are_named_with_their_line(tmp_path: Path, table: str, message: str) -> None:
    recordings(tmp_path, table, "1.wav", "1.flac")
    with pytest.raises(CorpusError, match=re.escape(message)) as error:
        find_utterances(tmp_path)
    assert str(tmp_path / "labels.csv") in str(error.value)


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
