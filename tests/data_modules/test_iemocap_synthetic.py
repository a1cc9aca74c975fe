"""A synthetic IEMOCAP: the release's layout, and the constructed labels."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_modules.iemocap import write_synthetic
from data_modules.iemocap_release import COUNTS, DIALOGS, read_release
from data_modules.iemocap_synthetic import LABELS, Turn, documents, majority, recordings
from ser_lightning.errors import CorpusError

FIRST = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"


def test_reading_a_synthetic_corpus_gives_back_its_construction(spoken_iemocap: tuple[Path, list[Turn]]) -> None:
    root, turns = spoken_iemocap
    there = read_release(root)
    assert there.evaluations == {t.evaluation.name: replace(t.evaluation, file=root / t.evaluation.file) for t in turns}
    assert there.audio == {t.evaluation.name: root / t.clip.file for t in turns}


def test_a_synthetic_corpus_has_every_feature_of_the_release(spoken_iemocap: tuple[Path, list[Turn]]) -> None:
    root, turns = spoken_iemocap
    evaluations = [t.evaluation for t in turns]
    assert {e.speaker for e in evaluations} == {"Ses01F", "Ses01M", "Ses02F", "Ses02M"}
    speakers = {
        dialog: {e.speaker[-1] for e in evaluations if e.dialog == dialog} for dialog in {e.dialog for e in evaluations}
    }
    assert set(map(frozenset, speakers.values())) == {frozenset("FM")}
    assert {"Ses01F_impro01", "Ses01M_impro01", "Ses01F_script01_1"} <= set(speakers)
    assert {name.rsplit("_", 1)[1] for name in (e.name for e in evaluations)} >= {"F000", "M001", "FXX0", "MXX0"}
    assert any(len(vote) > 1 for e in evaluations for vote in e.votes)
    assert any(e.attributes[name].activation is None for e in evaluations for name in e.attributes)
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.txt")}
    improvised, scripted = (files[f"Session1/dialog/EmoEvaluation/Ses01F_{d}.txt"] for d in ("impro01", "script01_1"))
    assert scripted.count(b"\r\n") == scripted.count(b"\n") > 0 == improvised.count(b"\r")
    assert improvised.splitlines()[:2] == [FIRST.encode(), b""]
    number = r"\d+\.\d{4}"
    for pattern in (
        rf"\[{number} - {number}\]\tSes01F_impro01_F000\tneu\t\[{number}, {number}, {number}\]",
        r"C-E[1-6]:\t(\w+; ?)+\t\(.*\)",
        r"C-F1:\t(\w+; ?)+\t\(.*\)",
        r"A-E3:\tval \d; act \d; dom  \d;\t\(.*\)",
        r"A-F1:\tval \d; act ; dom  \d;\t\(.*\)",
    ):
        assert re.search(rf"^{pattern}$", improvised.decode("latin-1"), re.MULTILINE), pattern
    folder = "Session1/dialog/EmoEvaluation/"
    assert f"{folder}._Ses01F_impro01.txt" in files
    for file, pattern in (
        ("Attribute/Ses01F_impro01_e3_atr.txt", r"Ses01F_impro01_F000 :val \d; :act \d; :dom  \d; \(\)"),
        ("Self-evaluation/Ses01F_impro01_f1_cat.txt", r"Ses01F_impro01_F000 :(\w+( state)?; ?)+ \(\)"),
        ("Self-evaluation/Ses01F_impro01_m1_atr.txt", r"Ses01F_impro01_M000 :val \d; :act; :dom  \d; \(\)"),
    ):
        assert re.fullmatch(pattern, files[folder + file].decode().splitlines()[0]), file
    heard = [files[file].decode() for file in files if re.search(r"Categorical/Ses01F_impro01_e[1-6]_cat\.txt", file)]
    assert len(heard) in {3, 4}
    assert all("Ses01F_impro01_F000 :" in own for own in heard[:3])


def test_the_label_follows_from_the_votes(spoken_iemocap: tuple[Path, list[Turn]]) -> None:
    for evaluation in read_release(spoken_iemocap[0]).evaluations.values():
        counts = Counter(emotion for vote in evaluation.votes for emotion in vote)
        most = [emotion for emotion, count in counts.items() if count == max(counts.values())]
        agreed = len(most) == 1 and counts[most[0]] >= 2
        assert evaluation.label == (most[0] if agreed else None), evaluation
    numbers = Counter(len(t.evaluation.votes) for t in recordings(10, 0))
    assert set(numbers) == {3, 4}
    assert 0.8 < numbers[3] / numbers.total() < 1


def release_dialogs() -> set[str]:
    """The 151 dialogs of the release."""
    scripted = ("script01_1", "script01_2", "script01_3", "script02_1", "script02_2", "script03_1", "script03_2")
    numbers = {1: 7, 2: 8, 3: 8, 4: 8, 5: 8}
    names = {
        f"Ses0{session}{letter}_{part}"
        for session, count in numbers.items()
        for letter in "FM"
        for part in (*scripted, *(f"impro{n:02d}" for n in range(1, count + 1)))
    }
    names -= {"Ses03M_impro05", "Ses03M_impro08"}
    names |= {"Ses03M_impro05a", "Ses03M_impro05b", "Ses03M_impro08a", "Ses03M_impro08b", "Ses05M_script01_1b"}
    assert len(names) == DIALOGS
    return names


@pytest.mark.parametrize("clips", [12, None])
def test_synthetic_dialogs_have_names_of_the_release(clips: int | None) -> None:
    dialogs = {t.evaluation.dialog for t in recordings(10, 0, clips)}
    assert dialogs <= release_dialogs()
    assert {"Ses03M_impro05a", "Ses05M_script01_1b"} <= dialogs
    assert len(dialogs) == 5 * 2 * (2 if clips else 10)


def test_who_evaluates_is_drawn_for_each_dialog() -> None:
    blocks = {file.stem: text.decode("latin-1") for file, text in documents(recordings(10, 0)).items()}
    crews = [tuple(sorted(set(re.findall(r"C-(E\d)", blocks[dialog])))) for dialog in release_dialogs() & set(blocks)]
    assert {evaluator for crew in crews for evaluator in crew} == {f"E{n}" for n in range(1, 7)}
    assert {len(crew) for crew in crews} == {3, 4}
    assert len(set(crews)) > 10


@pytest.mark.parametrize(
    ("votes", "code"),
    [
        ((("sad",), ("sad",), ("neutral",)), "sad"),
        ((("sad", "neutral"), ("sad",), ("neutral",)), "xxx"),
        ((("sad",), ("neutral",), ("angry",)), "xxx"),
        ((("excited", "happy"), ("excited",), ("other",)), "exc"),
        ((("sad",),), "xxx"),
    ],
)
def test_a_majority_is_two_evaluators_and_alone(votes: tuple[tuple[str, ...], ...], code: str) -> None:
    assert majority(votes) == code


def test_a_whole_synthetic_corpus_has_the_stated_proportions() -> None:
    turns = recordings(2, 0)
    for improvised in (True, False):
        for speaker in ("Ses01F", "Ses01M"):
            mine = [t.evaluation for t in turns if t.evaluation.speaker == speaker]
            assert Counter(e.code for e in mine if e.improvised == improvised) == LABELS
    assert sum(LABELS.values()) == 50
    total = sum(COUNTS.values())
    assert all(abs(count / 50 - COUNTS[code] / total) < 0.04 for code, count in LABELS.items())


def test_the_smallest_useful_corpus_has_four_classes_per_speaker() -> None:
    for improvised in (True, False):
        turns = [t.evaluation for t in recordings(4, 0, 8) if t.evaluation.improvised == improvised]
        assert Counter((e.speaker, e.code) for e in turns) == {
            (speaker, code): 1
            for speaker in ("Ses01F", "Ses01M", "Ses02F", "Ses02M")
            for code in ("neu", "hap", "sad", "ang")
        }


def test_what_disagreeing_evaluators_hear_is_played_more_weakly(spoken_iemocap: tuple[Path, list[Turn]]) -> None:
    def agreement(turn: Turn) -> int:
        return sum(turn.clip.emotion in vote for vote in turn.evaluation.votes)

    by_agreement = {agreement(t): t.clip.intensity for t in sorted(spoken_iemocap[1], key=agreement)}
    assert list(by_agreement.values()) == sorted(set(by_agreement.values()))
    assert all(t.clip.emotion == t.evaluation.label for t in spoken_iemocap[1] if t.evaluation.label)


def test_votes_depend_on_the_seed_not_on_the_number_of_clips() -> None:
    votes = [[t.evaluation.votes for t in recordings(2, seed, 40)] for seed in (0, 0, 1)]
    assert votes[0] == votes[1] != votes[2]
    few = {t.evaluation.name: t for t in recordings(2, 0, 8)}
    many = {t.evaluation.name: t for t in recordings(4, 0, 40)}
    assert {name: many[name].evaluation.votes for name in few} == {name: t.evaluation.votes for name, t in few.items()}


def test_an_interrupted_corpus_is_completed_with_annotation(tmp_path: Path) -> None:
    assert write_synthetic(tmp_path, 2, seed=0, clips_per_speaker=2) == 4
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path) for path in before} > set(documents(recordings(2, 0, 2)))
    for path in before:
        if path.name != "SYNTHETIC.json":
            path.unlink()
    assert write_synthetic(tmp_path, 2, seed=0, clips_per_speaker=2) == 4
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert write_synthetic(tmp_path, 2, seed=0, clips_per_speaker=2) == 0


@pytest.mark.parametrize(
    ("speakers", "clips", "message"),
    [
        (3, None, "3 speakers do not fit iemocap; choose 2, 4, 6, 8 or 10"),
        (0, None, "0 speakers"),
        (12, None, "12 speakers"),
        (2, 0, "0 clips per speaker do not fit iemocap; choose 1 to 100"),
        (2, 101, "101 clips"),
    ],
)
def test_numbers_that_the_release_does_not_have_are_rejected(
    tmp_path: Path, speakers: int, clips: int | None, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        write_synthetic(tmp_path, speakers, seed=0, clips_per_speaker=clips)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_annotation_is_rejected(tmp_path: Path) -> None:
    write_synthetic(tmp_path, 2, seed=0, clips_per_speaker=2)
    file = tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    file.write_bytes(file.read_bytes().replace(b"C-E", b"C-F"))
    with pytest.raises(CorpusError, match=r"impro01\.txt"):
        write_synthetic(tmp_path, 2, seed=0, clips_per_speaker=2)
