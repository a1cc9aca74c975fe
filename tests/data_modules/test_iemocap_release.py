"""IEMOCAP's files: finding the release, and comparing it with the known counts."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules import ravdess
from data_modules.emo_evaluation import Attributes, Evaluation
from data_modules.iemocap import find_utterances
from data_modules.iemocap_release import COUNTS, IMPROVISED_COUNTS, ReleaseWarning, count_differences, read_release
from ser_lightning.data.synthetic import write_marker
from ser_lightning.errors import CorpusError


@pytest.mark.parametrize("below", [".", "full_release", "a/b/full_release"])
def test_the_release_may_lie_deeper(tmp_path: Path, below: str, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path / below)
    assert len(find_utterances(tmp_path).utterances) == 10


def test_a_session_may_be_the_root_and_a_link(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path / "release")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "session1").symlink_to(tmp_path / "release" / "Session1", target_is_directory=True)
    assert len(find_utterances(tmp_path / "here").utterances) == 10
    assert len(find_utterances(tmp_path / "release" / "Session1").utterances) == 10


def test_a_copy_inside_the_release_counts_once(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path)
    every_label(tmp_path / "copy")
    assert {u.path.relative_to(tmp_path).parts[0] for u in find_utterances(tmp_path).utterances} == {"Session1"}


@pytest.mark.parametrize("name", ["Session_2", "session 2", "Ses02", "Session6", "extra/Session2", "old/two"])
def test_what_looks_like_a_session_and_is_not_used_is_named(
    tmp_path: Path, name: str, every_label: Callable[[Path], Path]
) -> None:
    every_label(tmp_path / "release")
    every_label(tmp_path / "moved")
    (tmp_path / "release" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "moved" / "Session1").rename(tmp_path / "release" / name)
    (tmp_path / "release" / "Session3").mkdir()  # empty
    for root in (tmp_path, tmp_path / "release"):
        with pytest.warns(ReleaseWarning, match=f"not used.*: {root}.*{name}\\. Name sessions"):
            assert len(find_utterances(root).utterances) == 10
    assert len(find_utterances(tmp_path / "release" / "Session1").utterances) == 10


def test_an_annotation_of_another_name_is_named(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    folder = every_label(tmp_path) / "Session1" / "dialog" / "EmoEvaluation"
    (folder / "ses01F_impro02.TXT").touch()
    (folder / "._Ses01F_impro02.txt").touch()
    with pytest.warns(ReleaseWarning, match=r"not used.*EmoEvaluation/ses01F_impro02\.TXT\. Name"):
        find_utterances(tmp_path)


def test_hidden_files_and_evaluators_own_files_do_not_count(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
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
def test_other_formats_are_found(
    tmp_path: Path, ending: str, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    annotate(tmp_path, "Ses01F_impro01", block(), audio=False)
    (tmp_path / f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000{ending}").touch()
    assert [u.path.suffix for u in find_utterances(tmp_path).utterances] == [ending]


def test_audio_without_annotation_is_named(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path)
    (tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_script01_1.txt").unlink()
    with pytest.raises(CorpusError, match=r"11 of the 22 .*_script01_1_M004\.wav and 6 more"):
        find_utterances(tmp_path)
    assert len(find_utterances(tmp_path, "improvised").utterances) == 5


def test_a_session_without_audio_folder_is_named(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path)
    (tmp_path / "Session3" / "dialog").mkdir(parents=True)
    with pytest.raises(CorpusError, match=r"Session3.*sentences/wav"):
        find_utterances(tmp_path)


def test_an_utterance_that_is_annotated_twice_is_rejected(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    annotate(tmp_path, "Ses01F_impro01", block())
    annotate(tmp_path, "Ses01F_impro02", block())
    with pytest.raises(CorpusError, match=r"F000.*twice.*_impro01\.txt.*_impro02\.txt"):
        read_release(tmp_path)


def test_a_root_that_is_not_there_or_empty_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"IEMOCAP.*missing does not exist"):
        find_utterances(tmp_path / "missing")
    with pytest.raises(CorpusError, match="no audio file"):
        find_utterances(tmp_path)


def test_the_folder_of_another_corpus_is_recognised(tmp_path: Path) -> None:
    ravdess.write_synthetic(tmp_path, speakers=1, seed=0, clips_per_speaker=1)
    with pytest.raises(CorpusError, match=r"none of the 1 audio files.*`data_modules\.ravdess`"):
        find_utterances(tmp_path)


def test_audio_outside_sessions_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "Ses01F_impro01_F000.wav").touch()
    with pytest.raises(CorpusError, match=r"1 audio files.*Session1 to Session5"):
        find_utterances(tmp_path)


def test_foreign_audio_in_a_session_is_named(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path)
    (tmp_path / "Session1/sentences/wav/noise.wav").touch()
    with pytest.raises(CorpusError, match=r"1 of the 23 .*IEMOCAP.*noise\.wav"):
        find_utterances(tmp_path)


def release(improvised: dict[str, int], everything: dict[str, int]) -> list[Evaluation]:
    """Annotation of a release with these label counts: 80 improvised and 71 scripted dialogs in five sessions."""
    scripted = {code: count - improvised.get(code, 0) for code, count in everything.items()}
    return [
        Evaluation(f"Ses0{n % dialogs % 5 + 1}F_{kind}{n % dialogs:02d}_F{n}", Path("a"), 0.0, 1.0, code, Attributes())
        for kind, dialogs, counts in (("impro", 80, improvised), ("script", 71, scripted))
        for n, code in enumerate(code for code, count in counts.items() for _ in range(count))
    ]


IMPROVISED = {**IMPROVISED_COUNTS, "xxx": 1500, "fru": 1004}


def test_the_known_counts_are_those_of_the_papers() -> None:
    assert sum(COUNTS.values()) == 10039
    assert sum(COUNTS[code] for code in ("neu", "hap", "exc", "sad", "ang")) == 5531
    assert sum(IMPROVISED_COUNTS.values()) == 2280
    assert sum(IMPROVISED.values()) == 4784


def test_a_whole_release_with_the_known_counts_passes() -> None:
    assert count_differences(release(IMPROVISED, dict(COUNTS))) == []


def test_a_whole_release_with_other_counts_is_warning_which() -> None:
    counts = {**COUNTS, "exc": 1040, "xxx": 2508}
    assert count_differences(release(IMPROVISED, counts)) == [
        "1040 with the label exc, not 1041",
        "2508 with the label xxx, not 2507",
    ]
    assert count_differences(release({**IMPROVISED, "sad": 607, "hap": 285}, dict(COUNTS))) == [
        "285 improvised with the label hap, not 284",
        "607 improvised with the label sad, not 608",
    ]


def test_five_sessions_are_checked_against_the_whole_release() -> None:
    everything = release(IMPROVISED, dict(COUNTS))
    missing = {everything[0].dialog, everything[-1].dialog}
    differences = count_differences(e for e in everything if e.dialog not in missing)
    assert differences[0] == "149 dialogs, not 151"
    assert re.fullmatch(r"\d{4} utterances, not 10039", differences[1])
    assert any("improvised, not 4784" in line for line in differences)


def test_improvised_dialogs_alone_have_their_counts_checked() -> None:
    improvised = [e for e in release(IMPROVISED, dict(COUNTS)) if e.improvised]
    assert count_differences(improvised) == []
    assert count_differences(improvised[1:]) == [
        "4783 improvised, not 4784",
        "1098 improvised with the label neu, not 1099",
    ]


def test_a_part_of_the_release_has_no_counts_to_differ_from() -> None:
    everything = release(IMPROVISED, dict(COUNTS))
    assert count_differences(e for e in everything if e.session != 3) == []
    assert count_differences(e for e in everything if not e.improvised) == []


@pytest.fixture
def five_sessions(tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]) -> Path:
    """All sessions, with one dialog of each kind."""
    for session in range(1, 6):
        for kind in ("impro01", "script01_1"):
            annotate(tmp_path, f"Ses0{session}F_{kind}", block(f"Ses0{session}F_{kind}_F000"))
    return tmp_path


def test_a_release_that_lacks_dialogs_gives_a_warning(five_sessions: Path) -> None:
    with pytest.warns(ReleaseWarning, match="10 dialogs, not 151; 10 utterances"):
        assert len(find_utterances(five_sessions).utterances) == 10


def test_a_synthetic_corpus_is_not_taken_for_the_release(five_sessions: Path) -> None:
    write_marker(five_sessions, "iemocap", seed=0, speakers=10)
    assert len(find_utterances(five_sessions).utterances) == 10


def test_unrated_utterances_are_named_in_a_warning(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    names = [f"Ses01F_impro01_F{n:03d}" for n in range(8)]
    unrated = [block(name).replace("C-E2", "C-F1") for name in names[:7]]
    annotate(tmp_path, "Ses01F_impro01", *unrated, block(names[7]))
    warning = rf"7 of the 8 .*\(C-E\): {', '.join(names[:5])} and 2 more"
    with pytest.warns(ReleaseWarning, match=warning):
        found = find_utterances(tmp_path).utterances
    assert [len(u.votes) for u in found] == [0] * 7 + [1]


def test_only_what_is_used_must_have_been_evaluated(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    unrated = block("Ses01F_impro01_F001", "fru").replace("C-E2", "C-F1")
    annotate(tmp_path, "Ses01F_impro01", block(), unrated)
    assert len(find_utterances(tmp_path).utterances) == 1


def test_a_folder_that_is_only_called_a_session_is_passed_over(
    tmp_path: Path, every_label: Callable[[Path], Path]
) -> None:
    every_label(tmp_path / "iemocap")
    (tmp_path / "zebra" / "Session1").mkdir(parents=True)
    (tmp_path / "another" / "Session1" / "dialog").mkdir(parents=True)
    assert [f.parent.name for f in {u.path.parents[3] for u in find_utterances(tmp_path).utterances}] == ["iemocap"]


def test_a_duplicate_session_is_rejected_with_both_paths(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path / "iemocap")
    every_label(tmp_path / "iemocap_old")
    both = "session 1 .*2 times: .*/iemocap/Session1, .*/iemocap_old/Session1"
    with pytest.raises(CorpusError, match=both):
        find_utterances(tmp_path)


def test_a_session_that_is_there_by_a_link_too_is_there_once(
    tmp_path: Path, every_label: Callable[[Path], Path]
) -> None:
    every_label(tmp_path / "iemocap")
    (tmp_path / "latest").symlink_to(tmp_path / "iemocap", target_is_directory=True)
    assert {u.path.parents[4].name for u in find_utterances(tmp_path).utterances} == {"iemocap"}


def test_unreadable_folders_above_sessions_are_skipped(
    tmp_path: Path, every_label: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    every_label(tmp_path / "a" / "iemocap")
    (tmp_path / "lost+found").mkdir()
    listdir = os.listdir

    def refuse(folder: str | Path) -> list[str]:  # root may read every folder
        if Path(folder).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    assert len(find_utterances(tmp_path).utterances) == 10
