import os
import re
import sys
from collections import Counter
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from data_modules import ravdess
from ser_lightning.audio import audio_digest
from ser_lightning.data import corpora
from ser_lightning.data.protocols import ActorFolds
from ser_lightning.data.synthetic import is_synthetic, write_marker
from ser_lightning.errors import CorpusError, CorpusWarning


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root: Path) -> list[str]:
    return [utterance.name for utterance in ravdess.find_utterances(root).utterances]


def test_every_field_of_a_name_is_read() -> None:
    path = Path("Actor_12/03-01-05-02-01-02-12.wav")
    utterance = ravdess.parse_name(path)
    assert utterance is not None
    assert utterance.name == "03-01-05-02-01-02-12"
    assert utterance.path == path
    assert utterance.speaker == "12"
    assert utterance.label == "angry"
    assert utterance.gender == "female"
    assert utterance.level == "strong"
    assert utterance.session is None


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("01", "neutral"),
        ("02", "calm"),
        ("03", "happy"),
        ("04", "sad"),
        ("05", "angry"),
        ("06", "fearful"),
        ("07", "disgust"),
        ("08", "surprised"),
    ],
)
def test_emotion_codes_give_the_order_of_classes(code: str, label: str) -> None:
    utterance = ravdess.parse_name(Path(f"03-01-{code}-01-01-01-07.flac"))
    assert utterance is not None
    assert (utterance.label, utterance.gender, utterance.level) == (label, "male", "normal")
    assert ravdess.CLASS_NAMES[int(code) - 1] == label


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("04-01-01-01-01-01-01", "the modality '04'"),
        ("03-03-01-01-01-01-01", "the channel '03'"),
        ("03-01-09-01-01-01-01", "the emotion '09' in the file name is unknown; known are 01, 02, 03, 04, 05, 06, 07"),
        ("03-01-00-01-01-01-01", "the emotion '00'"),
        ("03-01-05-03-01-01-01", "the intensity '03' in the file name is unknown; known are 01, 02"),
        ("03-01-05-01-03-01-01", "the statement '03'"),
        ("03-01-05-01-01-03-01", "the repetition '03'"),
        ("03-01-05-01-01-01-25", "the actor '25'"),
        ("03-01-05-01-01-01-00", "the actor '00'"),
        ("03-01-05-01-01-01-1", "the actor '1'"),
    ],
)
def test_an_unknown_value_is_named_with_its_file_and_field(tmp_path: Path, name: str, message: str) -> None:
    touch(tmp_path, f"{name}.wav")
    with pytest.raises(CorpusError, match=re.escape(f"{name}.wav: {message}")):
        ravdess.find_utterances(tmp_path)


def test_a_name_of_another_shape_is_rejected() -> None:
    with pytest.raises(CorpusError, match=r"noise\.wav.*RAVDESS"):
        ravdess.parse_name(Path("noise.wav"))


def test_a_file_in_another_actors_folder_is_named_with_both(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_02/03-01-05-01-01-01-01.wav")
    with pytest.raises(CorpusError, match=r"03-01-05-01-01-01-01\.wav: .*actor 01.*Actor_02"):
        ravdess.find_utterances(tmp_path)


def test_song_and_video_in_the_same_tree_are_named_and_left_out(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Actor_01/03-01-05-01-01-01-01.wav",
        "Actor_01/03-02-05-01-01-01-01.wav",
        "Actor_01/01-01-05-01-01-01-01.wav",
        "Actor_01/02-02-05-01-01-01-01.wav",
        "Actor_01/02-01-05-01-01-01-01.mp4",
    )
    with pytest.warns(CorpusWarning, match=r"3 clips .* song or video and not used: 01-01-05-01-01-01-01, "):
        found = ravdess.find_utterances(tmp_path)
    assert [u.name for u in found.utterances] == ["03-01-05-01-01-01-01"]
    assert found.left_out == {}


def test_a_folder_of_song_alone_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_01/03-02-05-01-01-01-01.wav")
    with pytest.raises(CorpusError, match=r"1 clips .*song or video"):
        ravdess.find_utterances(tmp_path)


def test_of_a_repeated_tree_the_shallowest_files_are_taken(tmp_path: Path) -> None:
    again = "Audio_Speech_Actors_01-24"
    touch(
        tmp_path,
        "Speech/Actor_01/03-01-05-01-01-01-01.wav",
        f"Speech/{again}/Actor_01/03-01-05-01-01-01-01.wav",
        f"{again}/{again}/Actor_01/03-01-05-01-01-01-01.wav",
        f"{again}/{again}/Actor_01/03-01-04-01-01-01-01.wav",
    )
    found = ravdess.find_utterances(tmp_path).utterances
    assert [u.path.relative_to(tmp_path).as_posix() for u in found] == [
        f"{again}/{again}/Actor_01/03-01-04-01-01-01-01.wav",
        "Speech/Actor_01/03-01-05-01-01-01-01.wav",
    ]


def test_of_several_formats_wav_then_flac_then_ogg_is_taken(tmp_path: Path) -> None:
    first, second = "03-01-05-01-01-01-01", "03-01-05-01-01-02-01"
    touch(tmp_path, *(f"a/{first}.{e}" for e in ("ogg", "flac", "WAV")), *(f"a/{second}.{e}" for e in ("ogg", "flac")))
    touch(tmp_path, f"b/{second}.flac")
    found = ravdess.find_utterances(tmp_path).utterances
    assert [u.path.relative_to(tmp_path).as_posix() for u in found] == [f"a/{first}.WAV", f"a/{second}.flac"]


def test_hidden_files_and_other_formats_are_skipped(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Actor_01/03-01-05-01-01-01-01.wav",
        "Actor_01/._03-01-05-01-01-01-01.wav",
        "Actor_01/.foo.wav",
        ".cache/noise.wav",
        "README.md",
    )
    assert names(tmp_path) == ["03-01-05-01-01-01-01"]


def test_links_are_followed_and_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "Actor_01/03-01-05-01-01-01-01.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "speech").symlink_to(tmp_path / "disk")
    for circle in ("again", "and again"):  # two links would double the folders at each level
        (tmp_path / "disk" / circle).symlink_to(root)
    assert names(root) == ["03-01-05-01-01-01-01"]


def test_stray_audio_is_named_up_to_five(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_01/03-01-05-01-01-01-01.wav", "README.txt", *(f"Actor_01/noise{n}.wav" for n in range(7)))
    with pytest.raises(CorpusError, match="7 of the 8 audio files") as caught:
        ravdess.find_utterances(tmp_path)
    message = str(caught.value)
    assert [f"Actor_01/noise{n}.wav" in message for n in range(7)] == [True] * 5 + [False] * 2
    assert "and 2 more" in message
    assert "another corpus" not in message


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("AudioWAV/1001_DFA_ANG_XX.wav", "`data_modules.crema_d`."),
        ("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", "`data_modules.iemocap`."),
        ("calls/0001.wav", "Set `root` to the folder of RAVDESS."),
    ],
)
def test_the_folder_of_another_corpus_is_recognised(tmp_path: Path, file: str, advice: str) -> None:
    touch(tmp_path, file)
    with pytest.raises(CorpusError, match=rf"none of the 1 audio files.*{re.escape(file)}.*{re.escape(advice)}$"):
        ravdess.find_utterances(tmp_path)


def test_the_folder_of_a_plug_in_corpus_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = replace(ravdess.SOURCE, name_shape=re.compile(r"word_\d+"))
    monkeypatch.setitem(sys.modules, "my_corpus", SimpleNamespace(SOURCE=source))
    entry = EntryPoint("words", "my_corpus", corpora.GROUP)
    monkeypatch.setattr(corpora, "entry_points", lambda group: [entry])
    touch(tmp_path, "word_7.wav")
    with pytest.raises(CorpusError, match=r"word_7\.wav.*`my_corpus`"):
        ravdess.find_utterances(tmp_path)


def test_two_corpora_in_one_folder_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_01/03-01-05-01-01-01-01.wav")
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_SAD_XX.wav")
    with pytest.raises(CorpusError, match=r"2 of the 3 .*1001_DFA_ANG_XX\.wav.*`data_modules\.crema_d`"):
        ravdess.find_utterances(tmp_path)


def test_one_stray_clip_of_another_corpus_makes_no_other_corpus(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Actor_0{n}/03-01-05-01-01-01-0{n}.wav" for n in (1, 2)), "Actor_01/1001_DFA_ANG_XX.wav")
    with pytest.raises(CorpusError, match=r"1 of the 3 .*Move it out") as caught:
        ravdess.find_utterances(tmp_path)
    assert "data_modules" not in str(caught.value)


def test_up_to_ten_invalid_names_are_listed(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"03-01-{code:02d}-01-01-01-01.wav" for code in range(9, 21)), "Actor_01/03-01-05-01-01-01-02.wav"
    )
    with pytest.raises(CorpusError, match=r"^13 file names") as caught:
        ravdess.find_utterances(tmp_path)
    assert "actor 02, its folder Actor_01" in str(caught.value)
    assert str(caught.value).count("the emotion") == 9
    assert str(caught.value).endswith("\n  and 3 more")


def whole_release(root: Path) -> Path:
    return touch(root, *(str(clip.file) for actor in ravdess.ACTORS for clip in ravdess._clips(actor)))


def test_a_whole_release_is_found_without_a_warning(tmp_path: Path) -> None:
    assert len(names(whole_release(tmp_path))) == ravdess.CLIPS


def test_an_incomplete_release_is_warned_of_with_its_actors(tmp_path: Path) -> None:
    whole_release(tmp_path)
    for clip in sorted((tmp_path / "Actor_05").iterdir())[8:]:
        clip.unlink()
    next((tmp_path / "Actor_07").iterdir()).unlink()
    with pytest.warns(
        CorpusWarning,
        match=r"24 actors.* 1387 .* 1440 .*05 \(8\), 07 \(59\)\.",
    ):
        assert len(names(tmp_path)) == 1387


def test_synthetic_or_partial_releases_are_not_warned_of(tmp_path: Path) -> None:
    some = touch(tmp_path / "some", *(f"Actor_{a}/03-01-05-01-01-01-{a}.wav" for a in ravdess.ACTORS[:23]))
    assert len(names(some)) == 23
    made = touch(tmp_path / "made", *(f"Actor_{a}/03-01-05-01-01-01-{a}.wav" for a in ravdess.ACTORS))
    write_marker(made, "ravdess", seed=0, speakers=24, clips_per_speaker=1)
    assert len(names(made)) == 24


def test_speech_only_in_lossy_formats_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/03-01-05-01-01-01-01.mp3", "Actor_01/jingle.mp3")
    touch(tmp_path, "Actor_01/03-02-05-01-01-01-01.mp3", "Actor_01/02-01-05-01-01-01-01.mp4", "Actor_01/._x.mp3")
    assert len(names(tmp_path)) == 1
    touch(tmp_path, "Actor_01/03-01-04-01-01-01-01.MP3")
    with pytest.warns(CorpusWarning, match=r"1 utterance .*: 03-01-04-01-01-01-01 \(\.MP3\).*ffmpeg"):
        assert len(names(tmp_path)) == 1


def test_a_path_that_is_not_utf_8_is_rejected_with_the_way_out(tmp_path: Path) -> None:
    folder = os.fsdecode(b"donn\xe9es")
    touch(tmp_path, f"{folder}/03-01-05-01-01-01-01.wav")
    with pytest.raises(CorpusError, match=r"1 of 1 .*UTF-8.*/donn\\xe9es/.*convmv"):
        names(tmp_path)


def test_a_missing_folder_a_file_and_an_empty_folder_each_say_so(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere.*`root`"):
        ravdess.find_utterances(tmp_path / "nowhere")
    touch(tmp_path, "speech.zip", "film/01-01-05-01-01-01-01.mp4")
    with pytest.raises(CorpusError, match=r"speech\.zip is a file"):
        ravdess.find_utterances(tmp_path / "speech.zip")
    with pytest.raises(CorpusError, match=r"no audio file.*1 \.zip, 1 \.mp4: unpack"):
        ravdess.find_utterances(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"no audio file \(\.wav \.flac .*`root`"):
        ravdess.find_utterances(tmp_path / "empty")


def test_a_whole_synthetic_release_has_the_real_ones_counts(tmp_path: Path) -> None:
    assert ravdess.write_synthetic(tmp_path, speakers=2, seed=0) == 120
    found = ravdess.find_utterances(tmp_path).utterances
    assert Counter(u.speaker for u in found) == {"01": 60, "02": 60}
    assert Counter(u.label for u in found) == {name: 8 if name == "neutral" else 16 for name in ravdess.CLASS_NAMES}
    assert {u.level for u in found if u.label == "neutral"} == {"normal"}
    assert {(u.speaker, u.gender) for u in found} == {("01", "male"), ("02", "female")}
    assert {u.path.parent.relative_to(tmp_path).as_posix() for u in found} == {"Actor_01", "Actor_02"}
    assert is_synthetic(tmp_path)
    assert soundfile.info(found[0].path).samplerate == 16000


def test_a_small_synthetic_release_goes_through_the_actor_folds(tmp_path: Path) -> None:
    ravdess.write_synthetic(tmp_path, speakers=4, seed=0, clips_per_speaker=8)
    found = ravdess.find_utterances(tmp_path).utterances
    assert Counter((u.speaker, u.label) for u in found) == {
        (f"0{speaker}", label): 1 for speaker in range(1, 5) for label in ravdess.CLASS_NAMES
    }
    assert ActorFolds("even", 4).split(found, 3).speakers("test") == ("01",)


@pytest.mark.parametrize(("speakers", "clips", "most"), [(25, None, "1 to 24"), (2, 61, "1 to 60")])
def test_more_than_the_release_holds_is_rejected(tmp_path: Path, speakers: int, clips: int | None, most: str) -> None:
    with pytest.raises(CorpusError, match=most):
        ravdess.write_synthetic(tmp_path, speakers, seed=0, clips_per_speaker=clips)


def test_the_papers_blocks_hold_every_actor_once(tmp_path: Path) -> None:
    blocks = ActorFolds(ravdess.PAPER_BLOCKS).speaker_blocks(
        ravdess.find_utterances(whole_release(tmp_path)).utterances
    )
    assert [len(block) for block in blocks] == [2, 3, 2, 3, 2, 2, 3, 2, 3, 2]
    assert [speaker for block in blocks for speaker in block] == list(ravdess.ACTORS)


@pytest.mark.corpus
def test_the_real_release_has_its_known_counts(ravdess_root: Path) -> None:
    found = ravdess.find_utterances(ravdess_root)
    assert len(found.utterances) == 1440
    assert found.left_out == {}
    assert Counter(u.label for u in found.utterances) == {
        name: 96 if name == "neutral" else 192 for name in ravdess.CLASS_NAMES
    }
    assert Counter(u.speaker for u in found.utterances) == dict.fromkeys(ravdess.ACTORS, 60)
    assert Counter(u.gender for u in found.utterances) == {"male": 720, "female": 720}


@pytest.mark.corpus
def test_the_known_pairs_are_all_equal_files_of_the_release(ravdess_root: Path) -> None:
    named: dict[str, list[str]] = {}
    for utterance in ravdess.find_utterances(ravdess_root).utterances:
        named.setdefault(audio_digest(utterance.path), []).append(utterance.name)
    assert tuple(tuple(names) for names in named.values() if len(names) > 1) == ravdess.SAME_AUDIO
