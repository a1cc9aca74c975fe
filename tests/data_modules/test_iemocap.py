import inspect
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from data_modules import iemocap, ravdess
from data_modules.base import CorpusDataModule
from data_modules.emo_evaluation import CODES, WORDS, Attributes, Evaluation, read_evaluations
from data_modules.iemocap import IEMOCAP, find_utterances, write_synthetic
from data_modules.iemocap_release import COUNTS, IMPROVISED_COUNTS, ReleaseWarning, count_differences, read_release
from data_modules.iemocap_synthetic import LABELS, Turn, documents, majority, recordings
from ser_lightning.data.protocols import LeaveOneSpeakerOut
from ser_lightning.data.synthetic import STYLES
from ser_lightning.data.targets import existence_ratios
from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.features import LogMelFilterbank
from ser_lightning.types import Utterance

FIRST = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
BLOCK = """\
[1.5000 - 3.2500]\tSes02F_impro03_M007\tfru\t[2.5000, 3.0000, 3.5000]
C-E1:\tFrustration;\t()
C-E3:\tAnger; Frustration;\t(cold; he does (not) shout)
C-E4:\tNeutral;\t()
C-M2:\tSadness; Other;\t(weary)
A-E1:\tval 2; act 3; dom  4;\t()
A-E3:\tval 3; act ; dom  3;\t(val 5; act 5)
A-M2:\tval 1; act 2; dom  1;\t()
"""


def block(name: str = "Ses01F_impro01_F000", code: str = "neu", *votes: str) -> str:
    lines = [f"[0.5000 - 1.5000]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]"]
    return "\n".join([*lines, *(f"C-E{n}:\t{vote}\t()" for n, vote in enumerate(votes, start=2)), ""])


def annotate(root: Path, dialog: str, *blocks: str, audio: bool = True) -> Path:
    """Add a dialog to a copy of the release, with an empty file for the audio of each utterance."""
    session = root / f"Session{dialog[4]}"
    file = session / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join((FIRST, "", *blocks)))
    (session / "sentences" / "wav" / dialog).mkdir(parents=True)
    for match in re.finditer(rf"{dialog}_[FM]\d+", "".join(blocks)) if audio else ():
        (session / "sentences" / "wav" / dialog / f"{match[0]}.wav").touch()
    return file


def read(tmp_path: Path, content: str | bytes) -> list[Evaluation]:
    file = tmp_path / "Ses01F_impro01.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_evaluations(file)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Turn]]:
    """Two sessions, 24 clips of each speaker, and how they were made."""
    root = tmp_path_factory.mktemp("iemocap")
    assert write_synthetic(root, speakers=4, seed=7, clips_per_speaker=24) == 96
    return root, recordings(4, 7, 24)


def test_everything_in_a_block_is_read(tmp_path: Path) -> None:
    (evaluation,) = read(tmp_path, f"{FIRST}\n\n{BLOCK}")
    assert evaluation == Evaluation(
        name="Ses02F_impro03_M007",
        file=tmp_path / "Ses01F_impro01.txt",
        start_seconds=1.5,
        end_seconds=3.25,
        code="fru",
        means=Attributes(2.5, 3.0, 3.5),
        votes=(("frustrated",), ("angry", "frustrated"), ("neutral",)),
        self_assessments={"M2": ("sad", "other")},
        attributes={"E1": Attributes(2, 3, 4), "E3": Attributes(3, None, 3), "M2": Attributes(1, 2, 1)},
    )
    assert (evaluation.label, evaluation.dialog, evaluation.improvised) == ("frustrated", "Ses02F_impro03", True)


@pytest.mark.parametrize(
    ("name", "speaker", "gender", "session", "improvised", "dialog"),
    [
        ("Ses01F_impro01_F000", "Ses01F", "female", 1, True, "Ses01F_impro01"),
        ("Ses01F_impro01_M012", "Ses01M", "male", 1, True, "Ses01F_impro01"),
        ("Ses03M_impro05a_F003", "Ses03F", "female", 3, True, "Ses03M_impro05a"),
        ("Ses05M_script01_1b_M040", "Ses05M", "male", 5, False, "Ses05M_script01_1b"),
        ("Ses04F_script03_2_FXX1", "Ses04F", "female", 4, False, "Ses04F_script03_2"),
    ],
)
def test_who_speaks_is_in_the_names_last_part_and_not_in_its_dialogs(
    tmp_path: Path, name: str, speaker: str, gender: str, session: int, improvised: bool, dialog: str
) -> None:
    (e,) = read(tmp_path, block(name))
    assert (e.speaker, e.gender, e.session, e.improvised, e.dialog) == (speaker, gender, session, improvised, dialog)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", "  \t \n"),
        lambda text: text.replace("\n", "\n \t \n"),
        lambda text: text.replace("\t", "\t\t"),
        lambda text: text.replace("\t", "    "),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace(FIRST + "\n\n", ""),
        lambda text: text.replace("\n", "\n\t", 3),
        lambda text: text.replace("\n\n", "\n\nby hand\n% note\n"),
        lambda text: text.replace(";\t(", "; ("),
        lambda text: text.replace(";\t(", ";("),
        lambda text: text.replace(";\t()", ";"),
        lambda text: text.replace("Neutral;", "Neutral"),
        lambda text: text.replace("[2.5000, ", "[2.5000,"),
        lambda text: text.replace("1.5000 - 3.2500", " 1.5 -  3.25 "),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
    ],
)
def test_line_ends_white_space_and_blank_lines_do_not_matter(tmp_path: Path, change: Callable[[str], str]) -> None:
    text = f"{FIRST}\n\n{BLOCK}\n{block('Ses01F_impro01_F000', 'neu', 'Neutral;', 'Anger; Other;')}"
    changed = change(text)
    assert changed != text
    assert read(tmp_path, changed) == read(tmp_path, text)
    assert [len(e.votes) for e in read(tmp_path, text)] == [3, 2]


def test_remarks_may_be_in_any_encoding(tmp_path: Path) -> None:
    (evaluation,) = read(
        tmp_path, block("Ses01F_impro01_F000", "ang", "Anger;").encode() + b"C-E9:\tFear;\t(\x93\xe9\x94)"
    )
    assert evaluation.votes == (("angry",), ("fearful",))


def test_a_label_that_an_evaluator_repeats_counts_once_and_none_is_no_vote(tmp_path: Path) -> None:
    (evaluation,) = read(tmp_path, block("Ses01F_impro01_F000", "ang", "Anger; Anger;", ";", "sadness;"))
    assert evaluation.votes == (("angry",), (), ("sad",))


@pytest.mark.parametrize(("code", "label"), CODES.items())
def test_every_label_code_of_the_release_has_its_class(tmp_path: Path, code: str, label: str | None) -> None:
    assert read(tmp_path, block(code=code))[0].label == label


def test_codes_words_and_counts_are_of_the_same_ten_emotions() -> None:
    assert set(CODES.values()) - {None} == set(WORDS.values())
    assert set(iemocap.EMOTIONS) - {"other"} == set(STYLES) - {"calm"}
    assert set(COUNTS) == set(CODES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "[0.5 - 1.5]\tSes01F_impro01_F001\tbor\t[1, 2, 3]",
            "the label 'bor' is unknown; known are neu, hap, sad, ang",
        ),
        ("[0.5 - 1.5]\tSes01F_impro01_X001\tneu\t[1, 2, 3]", "the utterance name 'Ses01F_impro01_X001' is unknown"),
        ("[0.5 - 1.5]\tSes06F_impro01_F001\tneu\t[1, 2, 3]", "the utterance name 'Ses06F_impro01_F001' is unknown"),
        ("[0.5 - 1.5]\tSes01F_impro01_F001\t[1, 2, 3]", "cannot read '[0.5 - 1.5]"),
        ("[0.5 - 1.5]\tSes01F_impro01_F001\tneu\t[1, 2]", "cannot read '[0.5 - 1.5]"),
        ("0.5 - 1.5]\tSes01F_impro01_F001\tneu\t[1, 2, 3]", "cannot read '0.5 - 1.5]"),
        ("C-E3:\tBoredom;\t()", "the category 'Boredom' is unknown; known are Neutral, Happiness, Sadness, Anger"),
        ("C-E3:\tNeutral; Boredom;\t()", "the category 'Boredom' is unknown"),
        ("C-M1:\tBoredom;\t()", "the category 'Boredom' is unknown"),
        ("C-X3:\tNeutral;\t()", "cannot read 'C-X3:"),
        ("C-E3\tNeutral;\t()", "cannot read 'C-E3"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_file_number_and_value(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(CorpusError, match=re.escape(f"Ses01F_impro01.txt, line 5: {message}")):
        read(tmp_path, f"{FIRST}\n\n{block('Ses01F_impro01_F000', 'neu', 'Neutral;')}{line}\n")


def test_a_vote_for_no_utterance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"line 2: cannot read 'C-E3:.*before the first utterance"):
        read(tmp_path, f"{FIRST}\nC-E3:\tNeutral;\t()\n")


def test_an_utterance_is_found_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    annotate(tmp_path, "Ses02F_impro03", block("Ses02F_impro03_M007", "ang", "Anger;", "Anger; Excited; Happiness;"))
    (utterance,) = find_utterances(tmp_path).utterances
    assert utterance == Utterance(
        name="Ses02F_impro03_M007",
        path=tmp_path / "Session2/sentences/wav/Ses02F_impro03/Ses02F_impro03_M007.wav",
        speaker="Ses02M",
        label="angry",
        gender="male",
        session="Ses02",
        votes=(("angry",), ("angry", "happy")),
    )
    (unmerged,) = find_utterances(tmp_path, merge_excited=False).utterances
    assert unmerged.votes == (("angry",), ("angry", "excited", "happy"))


def every_label(root: Path) -> Path:
    """One utterance of each label, improvised by the woman and scripted for the man."""
    for dialog, letter in (("Ses01F_impro01", "F"), ("Ses01F_script01_1", "M")):
        names = [f"{dialog}_{letter}{n:03d}" for n in range(len(CODES))]
        annotate(root, dialog, *(block(name, code) for name, code in zip(names, CODES, strict=True)))
    return root


@pytest.mark.parametrize(
    ("dialogs", "speakers"),
    [("all", {"Ses01F": 11, "Ses01M": 11}), ("improvised", {"Ses01F": 11}), ("scripted", {"Ses01M": 11})],
)
def test_dialogs_choose_utterances(tmp_path: Path, dialogs: iemocap.Dialogs, speakers: dict[str, int]) -> None:
    found = find_utterances(every_label(tmp_path), dialogs, others="keep").utterances
    assert Counter(u.speaker for u in found) == speakers
    assert [u.name for u in found] == sorted(u.name for u in found)


@pytest.mark.parametrize(
    ("classes", "merge", "labels"),
    [
        (iemocap.CLASS_NAMES, True, {"neutral": 1, "happy": 2, "sad": 1, "angry": 1}),
        (iemocap.CLASS_NAMES, False, {"neutral": 1, "happy": 1, "sad": 1, "angry": 1}),
        (("excited", "frustrated"), False, {"excited": 1, "frustrated": 1}),
        (("fearful", "sad"), True, {"fearful": 1, "sad": 1}),
    ],
)
def test_classes_choose_labels_and_others_are_left_out_or_kept_without(
    tmp_path: Path, classes: tuple[str, ...], merge: bool, labels: dict[str, int]
) -> None:
    every_label(tmp_path)
    found = find_utterances(tmp_path, "improvised", classes, merge).utterances
    assert Counter(u.label for u in found) == labels
    kept = find_utterances(tmp_path, "improvised", classes, merge, others="keep").utterances
    assert Counter(u.label for u in kept if u.label) == labels
    assert len(kept) == len(CODES)
    assert [u for u in kept if u.label] == list(found)


@pytest.mark.parametrize("below", [".", "full_release", "a/b/full_release"])
def test_the_release_may_lie_deeper(tmp_path: Path, below: str) -> None:
    every_label(tmp_path / below)
    assert len(find_utterances(tmp_path).utterances) == 10


def test_a_session_may_be_the_root_and_a_link(tmp_path: Path) -> None:
    every_label(tmp_path / "release")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "session1").symlink_to(tmp_path / "release" / "Session1", target_is_directory=True)
    assert len(find_utterances(tmp_path / "here").utterances) == 10
    assert len(find_utterances(tmp_path / "release" / "Session1").utterances) == 10


def test_a_copy_inside_the_release_counts_once(tmp_path: Path) -> None:
    every_label(tmp_path)
    every_label(tmp_path / "copy")
    assert {u.path.relative_to(tmp_path).parts[0] for u in find_utterances(tmp_path).utterances} == {"Session1"}


def test_hidden_files_and_evaluators_own_files_do_not_count(tmp_path: Path) -> None:
    annotate(tmp_path, "Ses01F_impro01", block())
    folder = tmp_path / "Session1/dialog/EmoEvaluation"
    (folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07[")
    (folder / "Categorical").mkdir()
    (folder / "Categorical" / "Ses01F_impro01_e2_cat.txt").write_text("[Ses01F_impro01_F001 :Neutral state; ()\n")
    (tmp_path / "Session1/sentences/wav/Ses01F_impro01/._Ses01F_impro01_F000.wav").touch()
    (tmp_path / "Session1/dialog/wav").mkdir()
    (tmp_path / "Session1/dialog/wav/Ses01F_impro01.wav").touch()
    assert [u.name for u in find_utterances(tmp_path).utterances] == ["Ses01F_impro01_F000"]


@pytest.mark.parametrize("ending", [".flac", ".ogg", ".WAV"])
def test_other_formats_are_found(tmp_path: Path, ending: str) -> None:
    annotate(tmp_path, "Ses01F_impro01", block(), audio=False)
    (tmp_path / f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000{ending}").touch()
    assert [u.path.suffix for u in find_utterances(tmp_path).utterances] == [ending]


def test_every_used_label_without_audio_is_named_or_left_out_with_the_reason(tmp_path: Path) -> None:
    names = [f"Ses01F_impro01_F{n:03d}" for n in range(8)]
    file = annotate(tmp_path, "Ses01F_impro01", *map(block, names), audio=False)
    (tmp_path / f"Session1/sentences/wav/Ses01F_impro01/{names[0]}.flac").touch()
    with pytest.raises(
        CorpusError, match=rf"7 of the 8 utterances .* have no audio: {', '.join(names[1:])}\. Unpack .*: skip leaves"
    ):
        find_utterances(tmp_path)
    found = find_utterances(tmp_path, on_bad_audio="skip")
    assert [u.name for u in found.utterances] == names[:1]
    assert found.left_out == dict.fromkeys(names[1:], f"labelled in {file}, but has no audio")
    data = module(tmp_path, on_bad_audio="skip")
    assert data.utterances == found.utterances
    assert data.left_out == found.left_out


def test_where_no_used_label_has_audio_there_is_nothing_to_skip_to(tmp_path: Path) -> None:
    annotate(tmp_path, "Ses01F_impro01", block(), audio=False)
    (tmp_path / "Session1/sentences/wav/Ses01F_script01_1_F000.wav").touch()
    with pytest.raises(CorpusError, match=r"1 of the 1 utterances .* have no audio: Ses01F_impro01_F000"):
        find_utterances(tmp_path, "improvised", on_bad_audio="skip")


def test_audio_may_be_missing_of_what_is_not_used(tmp_path: Path) -> None:
    every_label(tmp_path)
    for file in (tmp_path / "Session1/sentences/wav/Ses01F_script01_1").iterdir():
        file.unlink()
    (tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F010.wav").unlink()  # xxx
    assert len(find_utterances(tmp_path, "improvised").utterances) == 5
    with pytest.raises(CorpusError, match="5 of the 10 utterances"):
        find_utterances(tmp_path)
    with pytest.raises(CorpusError, match=r"1 of the 11 utterances .*: Ses01F_impro01_F010"):
        find_utterances(tmp_path, "improvised", others="keep")


def test_audio_without_annotation_is_named(tmp_path: Path) -> None:
    every_label(tmp_path)
    (tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_script01_1.txt").unlink()
    with pytest.raises(CorpusError, match=r"11 of the 22 audio files .*_script01_1_M004\.wav and 6 more\. Add the"):
        find_utterances(tmp_path)
    assert len(find_utterances(tmp_path, "improvised").utterances) == 5


def test_a_session_without_audio_folder_is_named(tmp_path: Path) -> None:
    every_label(tmp_path)
    (tmp_path / "Session3" / "dialog").mkdir(parents=True)
    with pytest.raises(CorpusError, match=r"Session3 has no sentences/wav.*move the session out"):
        find_utterances(tmp_path)


def test_an_utterance_that_is_annotated_twice_is_refused(tmp_path: Path) -> None:
    annotate(tmp_path, "Ses01F_impro01", block())
    annotate(tmp_path, "Ses01F_impro02", block())
    with pytest.raises(CorpusError, match=r"F000 is annotated twice, in .*_impro01\.txt and .*_impro02\.txt"):
        read_release(tmp_path)


def test_classes_that_nobody_agreed_on_are_refused(tmp_path: Path) -> None:
    annotate(tmp_path, "Ses01F_impro01", block())
    with pytest.raises(CorpusError, match=r"1 utterances, 0 of them in the dialogs .*\(scripted\).*angry or sad"):
        find_utterances(tmp_path, "scripted", ("angry", "sad"))


def test_a_root_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"IEMOCAP: the folder .*missing does not exist"):
        find_utterances(tmp_path / "missing")
    with pytest.raises(CorpusError, match="holds no audio file"):
        find_utterances(tmp_path)


def test_the_folder_of_another_corpus_is_recognised(tmp_path: Path) -> None:
    ravdess.write_synthetic(tmp_path, speakers=1, seed=0, clips_per_speaker=1)
    with pytest.raises(CorpusError, match=r"none of the 1 audio files.*`data_modules\.ravdess`"):
        find_utterances(tmp_path)


def test_audio_that_lies_in_no_session_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Ses01F_impro01_F000.wav").touch()
    with pytest.raises(CorpusError, match="1 audio files, but none of the folders Session1 to Session5"):
        find_utterances(tmp_path)


def test_foreign_audio_in_a_session_is_named(tmp_path: Path) -> None:
    every_label(tmp_path)
    (tmp_path / "Session1/sentences/wav/noise.wav").touch()
    with pytest.raises(CorpusError, match=r"1 of the 23 audio files .* not named as in IEMOCAP .*noise\.wav"):
        find_utterances(tmp_path)


def release(improvised: dict[str, int], everything: dict[str, int]) -> list[Evaluation]:
    """Annotation of a release with these label counts, one dialog of each kind."""
    codes = [*improvised.items(), *((code, count - improvised.get(code, 0)) for code, count in everything.items())]
    kinds = ["impro01"] * len(improvised) + ["script01_1"] * len(everything)
    return [
        Evaluation(f"Ses01F_{kind}_F{place}x{n}", Path("a"), 0.0, 1.0, code, Attributes())
        for place, (kind, (code, count)) in enumerate(zip(kinds, codes, strict=True))
        for n in range(count)
    ]


IMPROVISED = {**IMPROVISED_COUNTS, "xxx": 1500, "fru": 1004}


def test_the_known_counts_are_those_of_the_papers() -> None:
    assert sum(COUNTS.values()) == 10039
    assert sum(COUNTS[code] for code in ("neu", "hap", "exc", "sad", "ang")) == 5531
    assert sum(IMPROVISED_COUNTS.values()) == 2280
    assert sum(IMPROVISED.values()) == 4784


def test_a_whole_release_with_the_known_counts_passes() -> None:
    assert count_differences(release(IMPROVISED, dict(COUNTS))) == []


def test_a_whole_release_with_other_counts_is_told_which() -> None:
    counts = {**COUNTS, "exc": 1040, "xxx": 2508}
    assert count_differences(release(IMPROVISED, counts)) == [
        "1040 with the label exc, not 1041",
        "2508 with the label xxx, not 2507",
    ]
    assert count_differences(release({**IMPROVISED, "sad": 607, "hap": 285}, dict(COUNTS))) == [
        "285 improvised with the label hap, not 284",
        "607 improvised with the label sad, not 608",
    ]


def test_a_part_of_the_release_has_no_counts_to_differ_from() -> None:
    assert count_differences(release(IMPROVISED, dict(COUNTS))[:-1]) == []


def test_as_many_dialogs_as_the_release_has_are_taken_for_the_whole_of_it(tmp_path: Path) -> None:
    for session in range(1, 6):
        for part in range(31 if session == 1 else 30):
            annotate(tmp_path, f"Ses0{session}F_impro{part:02d}", block(f"Ses0{session}F_impro{part:02d}_F000"))
    with pytest.warns(ReleaseWarning, match="151 utterances, not 10039; 151 with the label neu, not 1708"):
        assert len(find_utterances(tmp_path).utterances) == 151


def test_reading_a_synthetic_corpus_gives_back_its_construction(synthetic: tuple[Path, list[Turn]]) -> None:
    root, turns = synthetic
    there = read_release(root)
    assert there.evaluations == {t.evaluation.name: replace(t.evaluation, file=root / t.evaluation.file) for t in turns}
    assert there.audio == {t.evaluation.name: root / t.clip.file for t in turns}


def test_a_synthetic_corpus_has_every_feature_of_the_release(synthetic: tuple[Path, list[Turn]]) -> None:
    root, turns = synthetic
    evaluations = [t.evaluation for t in turns]
    assert {e.speaker for e in evaluations} == {"Ses01F", "Ses01M", "Ses02F", "Ses02M"}
    speakers = {
        dialog: {e.speaker[-1] for e in evaluations if e.dialog == dialog} for dialog in {e.dialog for e in evaluations}
    }
    assert set(map(frozenset, speakers.values())) == {frozenset("FM")}
    assert {"Ses01F_impro01", "Ses01M_impro02a", "Ses01F_script01_1"} <= set(speakers)
    assert any(len(vote) > 1 for e in evaluations for vote in e.votes)
    assert any(e.attributes[name].activation is None for e in evaluations for name in e.attributes)
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.txt")}
    improvised, scripted = (files[f"Session1/dialog/EmoEvaluation/Ses01F_{d}.txt"] for d in ("impro01", "script01_1"))
    assert scripted.count(b"\r\n") == scripted.count(b"\n") > 0 == improvised.count(b"\r")
    assert improvised.splitlines()[:2] == [FIRST.encode(), b""]
    number = r"\d+\.\d{4}"
    for pattern in (
        rf"\[{number} - {number}\]\tSes01F_impro01_F000\tneu\t\[{number}, {number}, {number}\]",
        r"C-E2:\t(\w+; ?)+\t\(.*\)",
        r"C-F1:\t(\w+; ?)+\t\(.*\)",
        r"A-E3:\tval \d; act \d; dom  \d;\t\(.*\)",
        r"A-F1:\tval \d; act ; dom  \d;\t\(.*\)",
    ):
        assert re.search(rf"^{pattern}$", improvised.decode("latin-1"), re.MULTILINE), pattern
    assert {"Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt"} <= set(files)
    assert {"Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt"} <= set(files)


def test_the_label_follows_from_the_votes(synthetic: tuple[Path, list[Turn]]) -> None:
    for evaluation in read_release(synthetic[0]).evaluations.values():
        counts = Counter(emotion for vote in evaluation.votes for emotion in vote)
        most = [emotion for emotion, count in counts.items() if count == max(counts.values())]
        agreed = len(most) == 1 and counts[most[0]] >= 2
        assert evaluation.label == (most[0] if agreed else None), evaluation
        assert len(evaluation.votes) == 3


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


def test_a_whole_synthetic_corpus_has_the_stated_proportions_in_either_kind_of_dialog() -> None:
    turns = recordings(2, 0)
    for improvised in (True, False):
        for speaker in ("Ses01F", "Ses01M"):
            mine = [t.evaluation for t in turns if t.evaluation.speaker == speaker]
            assert Counter(e.code for e in mine if e.improvised == improvised) == LABELS
    assert sum(LABELS.values()) == 50
    total = sum(COUNTS.values())
    assert all(abs(count / 50 - COUNTS[code] / total) < 0.04 for code, count in LABELS.items())


def test_the_smallest_useful_corpus_has_four_classes_of_every_speaker_in_either_kind_of_dialog() -> None:
    for improvised in (True, False):
        turns = [t.evaluation for t in recordings(4, 0, 8) if t.evaluation.improvised == improvised]
        assert Counter((e.speaker, e.code) for e in turns) == {
            (speaker, code): 1
            for speaker in ("Ses01F", "Ses01M", "Ses02F", "Ses02M")
            for code in ("neu", "hap", "sad", "ang")
        }


def test_what_disagreeing_evaluators_hear_is_played_more_weakly(synthetic: tuple[Path, list[Turn]]) -> None:
    def agreement(turn: Turn) -> int:
        return sum(turn.clip.emotion in vote for vote in turn.evaluation.votes)

    by_agreement = {agreement(t): t.clip.intensity for t in sorted(synthetic[1], key=agreement)}
    assert list(by_agreement.values()) == sorted(set(by_agreement.values()))
    assert all(t.clip.emotion == t.evaluation.label for t in synthetic[1] if t.evaluation.label)


def test_another_seed_gives_other_votes_and_fewer_clips_the_same_ones() -> None:
    votes = [[t.evaluation.votes for t in recordings(2, seed, 40)] for seed in (0, 0, 1)]
    assert votes[0] == votes[1] != votes[2]
    few = {t.evaluation.name: t for t in recordings(2, 0, 8)}
    many = {t.evaluation.name: t for t in recordings(4, 0, 40)}
    assert {name: many[name].evaluation.votes for name in few} == {name: t.evaluation.votes for name, t in few.items()}


def test_an_interrupted_synthetic_corpus_is_completed_with_its_annotation(tmp_path: Path) -> None:
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
def test_numbers_that_the_release_does_not_have_are_refused(
    tmp_path: Path, speakers: int, clips: int | None, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        write_synthetic(tmp_path, speakers, seed=0, clips_per_speaker=clips)
    assert list(tmp_path.iterdir()) == []


def module(root: Path, **options: object) -> IEMOCAP:
    parser = ArgumentParser()
    parser.add_subclass_arguments(IEMOCAP, "data")
    extractor = {"class_path": "ser_lightning.features.LogMelFilterbank"}
    values = {"root": str(root), "extractor": extractor, "feature_folder": str(root / ".features"), **options}
    parsed = parser.parse_object({"data": {"class_path": "data_modules.iemocap.IEMOCAP", "init_args": values}})
    made = parser.instantiate_classes(parsed).data
    assert isinstance(made, IEMOCAP)
    return made


def test_the_data_module_is_built_from_a_configuration_and_validates_on_the_partner(
    synthetic: tuple[Path, list[Turn]],
) -> None:
    data = module(synthetic[0], classes=["neutral", "happy", "sad", "angry"], dialogs="improvised", merge_excited=False)
    assert data.class_names == ("neutral", "happy", "sad", "angry")
    assert isinstance(data.protocol, LeaveOneSpeakerOut)
    assert isinstance(data.extractor, LogMelFilterbank)
    assert data.corpus_name == "iemocap-synthetic"
    assert data.num_folds() == 4
    split = data.split(2)
    assert (split.speakers("test"), split.speakers("validation")) == (("Ses02F",), ("Ses02M",))
    assert split.speakers("train") == ("Ses01F", "Ses01M")
    codes = Counter(t.evaluation.code for t in synthetic[1] if t.evaluation.improvised)
    assert Counter(u.label for u in data.utterances) == {
        CODES[code]: codes[code] for code in ("neu", "hap", "sad", "ang")
    }
    assert len(module(synthetic[0], dialogs="improvised", others="keep").utterances) == 48


@pytest.mark.parametrize("targets", ["HardTargets", "SoftTargets", "ExistenceTargets"])
def test_targets_choose_what_is_learned_from_and_never_what_is_scored(
    synthetic: tuple[Path, list[Turn]], targets: str
) -> None:
    options = {
        "classes": ["neutral", "happy", "sad", "angry"],
        "dialogs": "improvised",
        "merge_excited": False,
        "targets": {"class_path": f"ser_lightning.data.targets.{targets}"},
    }
    dominant, everything = (module(synthetic[0], others=others, **options) for others in ("leave_out", "keep"))
    evaluations = [t.evaluation for t in synthetic[1] if t.evaluation.improvised and t.evaluation.session == 2]
    names = {e.name for e in evaluations}
    voted = {e.name for e in evaluations if {v for vote in e.votes for v in vote} & set(dominant.class_names)}
    agreed = {e.name for e in evaluations if e.label in dominant.class_names}
    assert agreed < voted < names
    learned = {"HardTargets": agreed, "SoftTargets": voted, "ExistenceTargets": names}[targets]
    assert {u.name for u in dominant.set_utterances("train")} == agreed
    assert {u.name for u in everything.set_utterances("train")} == learned
    for stage in ("validation", "test"):
        assert dominant.set_utterances(stage) == everything.set_utterances(stage)


def test_the_constructor_takes_everything_that_other_corpora_take() -> None:
    mine, base = (inspect.signature(kind).parameters for kind in (IEMOCAP, CorpusDataModule))
    assert {name: mine[name].default for name in base} == {name: base[name].default for name in base}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["angry", "bored"], "unknown 'bored'; choose from neutral, happy, sad, angry, excited"),
        (["angry"], r"\['angry'\]; choose two or more"),
        (["angry", "sad", "angry"], r".* choose two or more, each once"),
        (["angry", "excited"], "'excited', which is counted as happy; set merge_excited to false"),
    ],
)
def test_classes_that_make_no_sense_are_refused(tmp_path: Path, classes: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"data.init_args.classes holds {message}"):
        IEMOCAP(tmp_path, LogMelFilterbank(), classes=tuple(classes))


@pytest.fixture(scope="module")
def licensed_root() -> Path:
    """The corpus on disk, in the folder named by SER_IEMOCAP_ROOT; else a skipped test."""
    if not (folder := os.environ.get("SER_IEMOCAP_ROOT")):
        pytest.skip("IEMOCAP is licensed; name its folder in SER_IEMOCAP_ROOT")
    return Path(folder)


@pytest.mark.corpus
def test_the_release_has_the_papers_counts_and_existence_table(licensed_root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReleaseWarning)
        four = find_utterances(licensed_root).utterances
    assert Counter(u.label for u in four) == {"angry": 1103, "happy": 595 + 1041, "sad": 1084, "neutral": 1708}
    order = ("neutral", "happy", "sad", "angry")
    improvised = find_utterances(licensed_root, "improvised", order, merge_excited=False, others="keep").utterances
    assert len(improvised) == 4784
    ratios = existence_ratios(improvised, order)
    percent = {name: [round(100 * ratio, 1) for ratio in table.values()] for name, table in ratios.items()}
    assert percent == {"dominant": [58.2, 15.4, 30.5, 15.9], "all": [45.2, 24.0, 19.8, 17.8]}
