import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_modules import crema_d
from data_modules import crema_d_tables as tables
from ser_lightning.data.protocols import ActorFolds
from ser_lightning.data.targets import ExistenceTargets, SoftTargets, existence_ratios
from ser_lightning.errors import CorpusError, CorpusWarning
from ser_lightning.types import Utterance


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / "AudioWAV" / f"{name}.wav").parent.mkdir(parents=True, exist_ok=True)
        (root / "AudioWAV" / f"{name}.wav").touch()
    if not (table := root / "VideoDemographics.csv").exists():
        table.write_text("ActorID,Age,Sex\n")
    return root


def find(root: Path) -> tuple[Utterance, ...]:
    return crema_d.find_utterances(root).utterances


def test_every_field_of_a_name_is_read(tmp_path: Path) -> None:
    (utterance,) = find(touch(tmp_path, "1001_IEO_FEA_HI"))
    assert utterance == Utterance(
        name="1001_IEO_FEA_HI",
        path=tmp_path / "AudioWAV" / "1001_IEO_FEA_HI.wav",
        speaker="1001",
        label="fearful",
        level="high",
    )


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("ANG", "angry"),
        ("DIS", "disgust"),
        ("FEA", "fearful"),
        ("HAP", "happy"),
        ("NEU", "neutral"),
        ("SAD", "sad"),
    ],
)
def test_emotion_codes_match_the_release_and_labels_are_classes(code: str, label: str) -> None:
    assert crema_d.parse_name(Path(f"1091_WSI_{code}_XX.wav")).label == label
    assert label in crema_d.CLASS_NAMES
    assert len(crema_d.CLASS_NAMES) == 6


@pytest.mark.parametrize(("code", "level"), [("LO", "low"), ("MD", "medium"), ("HI", "high"), ("XX", "unspecified")])
def test_levels_are_in_the_corpus_own_words(code: str, level: str) -> None:
    assert crema_d.parse_name(Path(f"1002_IEO_SAD_{code}.wav")).level == level


def test_the_twelve_sentences_are_known() -> None:
    sentences = ["IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI"]
    assert set(crema_d.SENTENCES) == set(sentences)
    assert all(crema_d.parse_name(Path(f"1003_{sentence}_NEU_XX.wav")) for sentence in sentences)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1000_IEO_ANG_XX", "the actor '1000' in the file name is unknown; known are 1001 to 1091"),
        ("1092_IEO_ANG_XX", "the actor '1092'"),
        ("1001_ABC_ANG_XX", "the sentence 'ABC'"),
        ("1001_IEO_SUR_XX", "the emotion 'SUR' in the file name is unknown; known are ANG, DIS, FEA, HAP, NEU, SAD"),
        ("1001_IEO_ANG_ZZ", "the level 'ZZ'"),
        ("1041_ITH_SAD_X", "the level 'X' in the file name is unknown; known are LO, MD, HI, XX"),
    ],
)
def test_an_unknown_value_is_named_with_its_file_and_field(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CorpusError, match=re.escape(f"{name}.wav: {message}")):
        find(touch(tmp_path, name))


def test_a_name_of_another_shape_is_rejected() -> None:
    with pytest.raises(CorpusError, match=r"noise\.wav.*CREMA-D"):
        crema_d.parse_name(Path("noise.wav"))


def test_the_clip_without_audio_is_left_out_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path, "1076_MTI_NEU_XX", "1076_MTI_SAD_XX")
    found = crema_d.find_utterances(tmp_path)
    assert [u.name for u in found.utterances] == ["1076_MTI_NEU_XX"]
    assert found.left_out == {"1076_MTI_SAD_XX": "no audio: every sample is zero"}


def test_a_copy_without_the_faulty_clip_leaves_nothing_out(tmp_path: Path) -> None:
    assert crema_d.find_utterances(touch(tmp_path, "1001_DFA_ANG_XX")).left_out == {}


def test_a_folder_of_the_faulty_clip_alone_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"faulty.*1076_MTI_SAD_XX"):
        find(touch(tmp_path, "1076_MTI_SAD_XX"))


def test_older_copies_name_of_a_clip_gives_the_newer_name(tmp_path: Path) -> None:
    (utterance,) = find(touch(tmp_path, "1040_ITH_SAD_X"))
    assert (utterance.name, utterance.level) == ("1040_ITH_SAD_XX", "unspecified")
    assert utterance.path.name == "1040_ITH_SAD_X.wav"


def test_a_clip_under_its_older_and_its_newer_name_counts_once(tmp_path: Path) -> None:
    (utterance,) = find(touch(tmp_path, "1040_ITH_SAD_X", "1040_ITH_SAD_XX"))
    assert utterance.path.name == "1040_ITH_SAD_XX.wav"


def test_utterances_are_ordered_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "1040_ITH_SAD_X", "1040_ITH_NEU_XX", "1040_TIE_NEU_XX", "1001_DFA_ANG_XX")
    names = [u.name for u in find(tmp_path)]
    assert names == sorted(names)
    assert len(names) == 4


def test_other_folders_of_the_release_do_not_count(tmp_path: Path) -> None:
    touch(tmp_path, "1001_DFA_ANG_XX")
    touch(tmp_path, "1040_ITH_SAD_X")
    others = ("AudioMP3/1001_DFA_ANG_XX.mp3", "AudioMP3/1040_ITH_SAD_XX.mp3", "VideoFlash/1001_DFA_HAP_XX.flv")
    for other in others:
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).touch()
    assert [u.path.parent.name for u in find(tmp_path)] == ["AudioWAV"] * 2
    assert [u.path.suffix for u in find(tmp_path / "AudioMP3")] == [".mp3"] * 2


@pytest.mark.parametrize("ending", ["mp3", "m4a"])
def test_clips_only_in_lossy_or_unsupported_formats_are_named(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, "1001_DFA_ANG_XX")
    for emotion in ("DIS", "FEA", "HAP", "NEU", "SAD", "ANG"):
        for level in ("LO", "HI"):
            (tmp_path / "AudioWAV" / f"1001_IEO_{emotion}_{level}.{ending}").touch()
    with pytest.warns(CorpusWarning, match=rf"12 .*: 1001_IEO_ANG_HI.*{ending}.* and 7 more"):
        assert len(find(tmp_path)) == 1


@pytest.mark.parametrize("below", ["", "AudioWAV"])
def test_sex_and_age_are_read_from_the_root_or_its_parent(tmp_path: Path, below: str) -> None:
    touch(tmp_path, "1001_DFA_ANG_XX", "1002_DFA_ANG_XX", "1003_DFA_ANG_XX", "1004_DFA_ANG_XX")
    (tmp_path / "VideoDemographics.csv").write_text(
        '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","a","b"\n1002,21,"Female","a","b"\n1003,"","","",""\n'
    )
    stated = [(u.gender, u.age) for u in find(tmp_path / below)]
    assert stated == [("male", 51), ("female", 21), (None, None), (None, None)]


def test_genders_are_read_next_to_the_clips_from_far_above(tmp_path: Path) -> None:
    touch(tmp_path / "data" / "CREMA-D", "1001_DFA_ANG_XX")
    (tmp_path / "data" / "CREMA-D" / "VideoDemographics.csv").write_text("ActorID,Sex,Age\n1001,Male,51\n")
    assert [u.gender for u in find(tmp_path)] == ["male"]


def test_demographics_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "1001_DFA_ANG_XX")
    (tmp_path / "VideoDemographics.csv").write_bytes("ActorID,Sex,Race\n1001,Male,wei\xdf\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"VideoDemographics\.csv.*UTF-8.*sex and age"):
        find(tmp_path)


def test_demographics_without_their_columns_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "1001_DFA_ANG_XX")
    (tmp_path / "VideoDemographics.csv").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CorpusError, match=r"VideoDemographics\.csv.*ActorID, Sex, Age.*git-lfs"):
        find(tmp_path)


def test_without_demographics_a_warning_says_what_is_lost(tmp_path: Path) -> None:
    (touch(tmp_path, "1001_DFA_ANG_XX") / "VideoDemographics.csv").unlink()
    with pytest.warns(CorpusWarning, match=r"VideoDemographics\.csv.*sex and age.*audit"):
        assert [(u.gender, u.age) for u in find(tmp_path)] == [(None, None)]


def voted(root: Path, *rows: str) -> Path:
    path = root / "processedResults" / "tabulatedVotes.csv"
    path.parent.mkdir()
    path.write_text("\n".join([",A,D,F,H,N,S,fileName,numResponses", *rows]) + "\n")
    return root


def as_perceived(root: Path, others: crema_d.Others = "leave_out") -> list[tuple[str, str | None, int]]:
    found = crema_d.find_utterances(root, "perceived", others).utterances
    return [(u.name, u.label, len(u.votes)) for u in found]


HEARD = (
    "100001,0,1,0,0,9,0,1001_DFA_ANG_XX,10",  # neutral, though the actor played anger
    "100002,3,0,0,3,2,0,1001_DFA_HAP_XX,8",  # a tie
    "100003,0,0,0,0,2,7,1001_DFA_SAD_XX,9",
    "200001,10,0,0,0,0,0,1001_DFA_ANG_XX,10",  # the face alone
    "300001,10,0,0,0,0,0,1001_DFA_ANG_XX,10",
)


def test_perceived_labels_are_most_votes_for_the_voice_alone(tmp_path: Path) -> None:
    voted(touch(tmp_path, "1001_DFA_ANG_XX", "1001_DFA_HAP_XX", "1001_DFA_SAD_XX"), *HEARD)
    assert as_perceived(tmp_path) == [("1001_DFA_ANG_XX", "neutral", 10), ("1001_DFA_SAD_XX", "sad", 9)]
    assert as_perceived(tmp_path, "keep")[1] == ("1001_DFA_HAP_XX", None, 8)
    assert as_perceived(tmp_path / "AudioWAV") == as_perceived(tmp_path)
    intended = find(tmp_path)
    assert [(u.label, u.votes) for u in intended] == [("angry", ()), ("happy", ()), ("sad", ())]


def test_votes_become_soft_and_existence_targets(tmp_path: Path) -> None:
    voted(touch(tmp_path, "1001_DFA_SAD_XX"), *HEARD)
    (sad,) = crema_d.find_utterances(tmp_path, "perceived").utterances
    assert ExistenceTargets().of(sad, crema_d.CLASS_NAMES) == [0, 0, 0, 0, 1, 1]
    assert SoftTargets(alpha=0.5).of(sad, crema_d.CLASS_NAMES) == [0.5 / 12] * 4 + [2.5 / 12, 7.5 / 12]


def test_missing_votes_are_named_with_the_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "1001_DFA_ANG_XX", "1002_DFA_ANG_XX")
    with pytest.raises(CorpusError, match=r"tabulatedVotes\.csv.*labels: intended"):
        as_perceived(tmp_path)
    with pytest.raises(CorpusError, match=r"1 of 2 clips: 1002_DFA_ANG_XX.*labels: intended"):
        as_perceived(voted(tmp_path, *HEARD))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("100004,0,1,x,0,9,0,1001_DFA_ANG_XX,10", r"line 2: F is 'x'"),
        ("100004,0,1,0,0,9,0,1001_DFA_ANG_XX,12", r"line 2: numResponses is 12.*are 10"),
        ("100004,0,1,0,0,9,0,1001_DFA_ANG_XX,10\n100005,0,1,0,0,9,0,1001_DFA_ANG_XX,10", r"line 3: .* twice"),
        ("200004,0,1,0,0,9,0,1001_DFA_ANG_XX,10", r"voice alone"),
        ("100004,0,3,0,0,3,0,1001_DFA_ANG_XX,6", r"do not agree"),
    ],
)
def test_damaged_votes_are_named_with_line_and_value(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        as_perceived(voted(touch(tmp_path, "1001_DFA_ANG_XX"), row))


@pytest.mark.corpus
def test_the_releases_votes_have_the_published_counts(tmp_path: Path, crema_d_tables: Path) -> None:
    votes = tables.read_votes(crema_d_tables / "tabulatedVotes.csv")
    assert Counter(map(tables.perceived, votes.values())) == {
        "neutral": 3897,
        "angry": 986,
        "fearful": 645,
        "disgust": 547,
        "sad": 370,
        "happy": 353,
        None: 644,
    }
    for name in ("tabulatedVotes.csv", "VideoDemographics.csv"):
        shutil.copyfile(crema_d_tables / name, tmp_path / name)
    found = crema_d.find_utterances(touch(tmp_path, *votes), "perceived", "keep").utterances
    assert len(found) == 7441  # without the clip that has no audio, which listeners heard as neutral
    assert Counter(u.label for u in found)["neutral"] == 3896
    intended = {u.name: u.label for u in find(tmp_path)}
    assert sum(u.label == intended[u.name] for u in found) / len(found) == pytest.approx(0.416, abs=5e-4)
    ratios = existence_ratios(found, crema_d.CLASS_NAMES)["all"]
    percent = {name: round(100 * ratio, 1) for name, ratio in ratios.items()}
    assert percent == {"angry": 40.7, "disgust": 55.1, "fearful": 46.2, "happy": 25.7, "neutral": 85.7, "sad": 43.1}
    assert Counter(u.gender for u in {u.speaker: u for u in found}.values()) == {"male": 48, "female": 43}
    assert (min(u.age or 0 for u in found), max(u.age or 0 for u in found)) == (20, 74)


def test_synthetic_votes_are_perceived_mostly_as_intended(tmp_path: Path) -> None:
    crema_d.write_synthetic(tmp_path, speakers=2, seed=0, clips_per_speaker=12)
    found = crema_d.find_utterances(tmp_path, "perceived", "keep").utterances
    assert len(found) == 24
    assert all(8 <= len(u.votes) <= 11 for u in found)
    intended = {u.name: u.label for u in find(tmp_path)}
    assert sum(u.label == intended[u.name] for u in found) > 18


def test_the_folder_of_another_corpus_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "03-01-05-02-01-01-01.wav").touch()
    with pytest.raises(CorpusError, match=r"none of the 1 audio files.*`data_modules\.ravdess`"):
        find(tmp_path)


def test_a_whole_synthetic_release_has_real_counts_and_genders(tmp_path: Path) -> None:
    assert crema_d.write_synthetic(tmp_path, speakers=1, seed=0) == 82
    assert Counter(u.label for u in find(tmp_path)) == {
        label: 12 if label == "neutral" else 14 for label in crema_d.CLASS_NAMES
    }
    levels = Counter((u.name.split("_")[1], u.level) for u in find(tmp_path))
    assert {key: count for key, count in levels.items() if key[0] == "IEO"} == {
        ("IEO", "low"): 5,
        ("IEO", "medium"): 5,
        ("IEO", "high"): 5,
        ("IEO", "unspecified"): 1,
    }
    assert {level for sentence, level in levels if sentence != "IEO"} == {"unspecified"}
    assert {(u.speaker, u.gender, u.path.parent.name) for u in find(tmp_path)} == {("1001", "male", "AudioWAV")}


def test_a_small_synthetic_release_is_balanced_and_written_once(tmp_path: Path) -> None:
    assert crema_d.write_synthetic(tmp_path, speakers=3, seed=0, clips_per_speaker=6) == 18
    assert crema_d.write_synthetic(tmp_path, speakers=3, seed=0, clips_per_speaker=6) == 0
    assert Counter((u.speaker, u.label) for u in find(tmp_path)) == {
        (actor, label): 1 for actor in ("1001", "1002", "1003") for label in crema_d.CLASS_NAMES
    }
    with (tmp_path / "VideoDemographics.csv").open(newline="") as file:
        assert [(row["ActorID"], row["Sex"]) for row in csv.DictReader(file)] == [
            ("1001", "Male"),
            ("1002", "Female"),
            ("1003", "Male"),
        ]


@pytest.mark.parametrize(("speakers", "clips", "most"), [(92, None, "1 to 91"), (2, 83, "1 to 82")])
def test_more_than_the_release_holds_is_rejected(tmp_path: Path, speakers: int, clips: int | None, most: str) -> None:
    with pytest.raises(CorpusError, match=most):
        crema_d.write_synthetic(tmp_path, speakers, seed=0, clips_per_speaker=clips)
    assert list(tmp_path.iterdir()) == []


def release(root: Path, without: int) -> Path:
    """A copy of all actors and as many clips as the release has, minus a number of arbitrary ones."""
    names = [clip.file.stem for actor in crema_d.ACTORS for clip in crema_d._clips(actor)]
    missing = {name for name in names if "_WSI_" in name and name.startswith("100")}  # 9 actors, 6 clips each
    assert len(names) == 91 * 82
    kept = [name for name in names if name not in sorted(missing)[: 20 + without]]
    return touch(root, *kept)


@pytest.mark.slow
def test_a_whole_release_is_found_without_a_warning(tmp_path: Path) -> None:
    found = crema_d.find_utterances(release(tmp_path, without=0))
    assert (len(found.utterances), len(found.left_out)) == (7441, 1)
    (tmp_path / "AudioWAV" / "1076_MTI_SAD_XX.wav").unlink()  # the empty clip
    assert len(find(tmp_path)) == 7441


def test_an_incomplete_release_is_warned_of_with_its_actors(tmp_path: Path) -> None:
    release(tmp_path, without=1)
    with pytest.warns(CorpusWarning, match=r"91 actors.* 7440 .* 7441 .*1001 \(76\), 1002"):
        assert len(find(tmp_path)) == 7440


def test_the_papers_blocks_hold_every_actor_once(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{actor}_DFA_ANG_XX" for actor in crema_d.ACTORS))
    with pytest.warns(CorpusWarning):
        blocks = ActorFolds(crema_d.PAPER_BLOCKS).speaker_blocks(find(tmp_path))
    assert [len(block) for block in blocks] == [9] * 9 + [10]
    assert (blocks[0][0], blocks[1][0], blocks[8][-1], blocks[9]) == (
        "1001",
        "1010",
        "1081",
        tuple(str(actor) for actor in range(1082, 1092)),
    )
