"""The audit counts labelled and unlabelled utterances separately."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from data_modules.audio_files import AudioFiles
from data_modules.crema_d import FAULTY, CremaD, write_synthetic
from data_modules.iemocap_synthetic import Turn, recordings
from ser_lightning.audio import read_audio
from ser_lightning.cross_validation.audit import audit, prepare, usage
from ser_lightning.cross_validation.cross_validate import cross_validate
from ser_lightning.cross_validation.planner import RunOptions, plan_experiment
from ser_lightning.features import LogMelFilterbank

EMOTIONS = ("neutral", "happy", "sad", "angry")


@pytest.mark.parametrize("others", ["leave_out", "keep"])
def test_unlabelled_utterances_and_hours_have_a_column(others: str, synthetic_iemocap: Path) -> None:
    console = Console(record=True, width=250)
    files = ["--config=experiments/ando2019/soft.yaml", "--config=experiments/ando2019/iemocap.yaml"]
    root = f"--data.init_args.root={synthetic_iemocap}"
    assert audit([*files, root, f"--data.init_args.others={others}"], [], console) == 0
    shown = console.export_text()
    row = [cell.strip() for cell in next(line for line in shown.splitlines() if "│ test" in line).split("│")[1:-1]]
    tested = [t for t in recordings(4, 0, 16) if t.evaluation.improvised and t.evaluation.speaker == "Ses01F"]
    counts = [sum(t.evaluation.label == emotion for t in tested) for emotion in EMOTIONS]
    scored = [t for t in tested if t.evaluation.label in EMOTIONS]
    unlabelled = [t for t in tested if t.evaluation.label not in EMOTIONS]
    assert len(scored) == sum(counts) < len(tested)

    def hours(turns: list[Turn]) -> str:
        return f"{sum(len(read_audio(synthetic_iemocap / t.clip.file, 16000)) for t in turns) / 16000 / 3600:.2f}"

    assert row[2:9] == ["test", str(len(scored)), *map(str, counts), hours(scored)]
    assert ("without label" in shown) == (others == "keep")
    if others == "keep":
        assert row[9] == f"{len(unlabelled)} ({hours(unlabelled)} hours)"


def rows_behind(text: str, first: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in text.splitlines()
        if (line.split("│")[1:] or [""])[0].strip() == first
    ]


def test_existing_emotions_are_shown_next_to_the_papers(synthetic_iemocap: Path) -> None:
    console = Console(record=True, width=250)
    files = ["--config=experiments/ando2019/mlee.yaml", "--config=experiments/ando2019/iemocap.yaml"]
    shared = [*files, f"--data.init_args.root={synthetic_iemocap}", "--data.init_args.others=keep"]
    assert audit(shared, [], console) == 0
    shown = console.export_text()
    turns = [t.evaluation for t in recordings(4, 0, 16) if t.evaluation.improvised]
    expected = [
        f"{100 * sum(any(emotion in vote for vote in t.votes) for t in turns) / len(turns):.1f}" for emotion in EMOTIONS
    ]
    assert rows_behind(shown, "all") == [["all", *expected]]
    papers = rows_behind(shown, "Ando et al. 2019, table 1")
    assert [row[1:] for row in papers] == [["58.2", "15.4", "30.5", "15.9"], ["45.2", "24.0", "19.8", "17.8"]]
    console = Console(record=True, width=250)
    assert audit([*shared, "--data.init_args.dialogs=all"], [], console) == 0
    assert "table 1" not in console.export_text(), "the paper's are of improvised dialogs"


def test_votes_and_ages_of_crema_d_are_audited(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "crema_d", speakers=10, seed=0, clips_per_speaker=6)
    files = ["--config=experiments/ando2019/mlee.yaml", "--config=experiments/ando2019/crema_d.yaml"]
    protocol = '--data.init_args.protocol={"class_path": "ActorFolds", "init_args": {"blocks": "even", "num_folds": 3}}'
    console = Console(record=True, width=250)
    assert audit([*files, f"--data.init_args.root={tmp_path / 'crema_d'}", protocol], [], console) == 0
    shown = console.export_text()
    assert " age " in shown
    assert "21 to 2" in shown
    assert len(rows_behind(shown, "dominant")) == 1
    assert rows_behind(shown, "all") == [], "clips without a dominant emotion are left out"


@pytest.fixture
def odd_ravdess(synthetic_ravdess: Path, tmp_path: Path) -> Path:
    """A corpus in a folder whose name looks like markup; five of its files are empty."""
    root = tmp_path / "a [v1]" / "[" / "x]"
    shutil.copytree(synthetic_ravdess, root)
    for path in sorted(root.rglob("*.wav"))[:5]:
        soundfile.write(path, [], 16000)
    return root


def of_ravdess(root: Path, features: Path) -> list[str]:
    return [
        "--config=experiments/quickstart.yaml",
        f"--data.init_args.root={root}",
        f"--data.init_args.feature_folder={features}",
        "--data.init_args.on_bad_audio=skip",
    ]


def test_one_line_counts_used_files_and_unused_ones_are_named(odd_ravdess: Path, tmp_path: Path) -> None:
    given = of_ravdess(odd_ravdess, tmp_path / "features")
    named = [path.name for path in sorted(odd_ravdess.rglob("*.wav"))[:3]]
    said: dict[str, str] = {}
    for name in ("audit", "prepare", "cv"):
        console = Console(record=True, width=2000)
        if name == "cv":
            first = RunOptions(runs=tmp_path / "runs [v1]", folds="0")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("ser_lightning.cross_validation.cross_validate.run_jobs", lambda jobs, *_: {})
                patch.setattr("ser_lightning.cross_validation.cross_validate.write_summaries", lambda *_: ({}, {}))
                patch.setattr("ser_lightning.cross_validation.cross_validate.log_summary_runs", lambda *_: None)
                assert cross_validate(given, first, console) == 0
        else:
            assert {"audit": audit, "prepare": prepare}[name](given, [], console) == 0
        said[name] = console.export_text()
        (line,) = [line for line in said[name].splitlines() if "utterances found" in line]
        assert line.startswith(f"96 utterances found, 5 skipped as unusable ({named[0]}: "), line
        assert line.endswith("; and 2 more), 91 used")
        assert all(file in line for file in named)
    for name in ("audit", "prepare"):
        skipped = [line for line in said[name].splitlines() if line.startswith("skipped: ")]
        assert len(skipped) == 5
        assert all(line.startswith(f"skipped: {odd_ravdess}") for line in skipped)


def test_faulty_files_of_the_release_are_named(tmp_path: Path) -> None:
    write_synthetic(tmp_path, speakers=2, seed=0, clips_per_speaker=6)
    clip = next(tmp_path.rglob("*.wav"))
    shutil.copy(clip, clip.with_name("1076_MTI_SAD_XX.wav"))
    data = CremaD(tmp_path, LogMelFilterbank())
    assert usage(data) == f"13 utterances found, 1 left out (1076_MTI_SAD_XX: {FAULTY['1076_MTI_SAD_XX']}), 12 used"


def own_corpus(root: Path, rows: list[tuple[str, ...]], columns: str = "path,speaker,label") -> Path:
    """Recordings of which those with equal digits in their names are copies."""
    for name, *_ in rows:
        noise = np.random.default_rng(int("".join(filter(str.isdigit, name)))).normal(size=4000)
        soundfile.write(root / name, (1000 * noise).astype("int16"), 16000)
    (root / "labels.csv").write_text("\n".join([columns, *map(",".join, rows)]))
    return root


def check(command: Callable[..., int], root: Path, *options: str) -> tuple[int, list[str]]:
    own = ["--config=experiments/own_corpus.yaml", f"--data.init_args.root={root}"]
    console = Console(record=True, width=250)
    status = command([*own, f"--data.init_args.feature_folder={root}/features", *options], [], console)
    return status, console.export_text().splitlines()


ROWS = [("1.wav", "x", "a"), ("2.wav", "x", "b"), ("3.wav", "y", "a"), ("4.wav", "y", "b"), ("5.wav", "z", "a")]


def test_the_same_audio_in_two_sets_is_named_and_fails(tmp_path: Path) -> None:
    root = own_corpus(tmp_path, [*ROWS, ("z4.flac", "z", "a"), ("copy4.wav", "z", "b")])
    pairs = "same audio: 4 = copy4 = z4: speakers y, z; labels a, b; in two sets of fold 0, 1, 2"
    first = check(audit, root)
    prepared, lines = check(prepare, root)
    assert prepared == 0
    assert "same audio: 4 = copy4 = z4: speakers y, z; labels a, b" in lines
    assert "3 pairs of utterances have the same audio" in lines
    with_stored = check(audit, root)
    planned = check(lambda arguments, _, console: len(plan_experiment(arguments, RunOptions(runs=root), console)), root)
    assert "3 pairs of utterances have the same audio, in two sets of fold 0, 1, 2; ser audit names them" in planned[1]
    (root / "z4.flac").write_bytes((root / "z4.flac").read_bytes() + b"ID3 tag")  # decoded again, with the same samples
    for status, lines in (first, with_stored, check(audit, root)):
        assert status == 1
        assert pairs in lines
        assert "3 pairs of utterances have the same audio, in two sets of fold 0, 1, 2" in lines


def test_the_same_audio_in_one_set_is_named_and_passes(tmp_path: Path) -> None:
    root = own_corpus(tmp_path, [*ROWS, ("z1.wav", "x", "b"), ("z3.wav", "y", "a")])
    status, lines = check(audit, root)
    assert status == 0
    assert [line for line in lines if line.startswith("same audio")] == ["same audio: 1 = z1: labels a, b"]
    assert "2 pairs of utterances have the same audio, in two sets of no fold" in lines


def test_known_pairs_of_a_release_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AudioFiles, "known_same_audio", (("4", "z4"),))
    status, lines = check(audit, own_corpus(tmp_path, [*ROWS, ("z4.wav", "z", "b")]))
    assert status == 0
    assert "same audio (known of the release): 4 = z4: speakers y, z; in two sets of fold 0, 1, 2" in lines


def test_classes_that_cannot_be_learnt_are_named(tmp_path: Path) -> None:
    status, lines = check(audit, own_corpus(tmp_path, [*ROWS, ("6.wav", "z", "c"), ("7.wav", "z", "c")]))
    assert status == 0
    assert "c is tested and never trained on in fold 2 (2 utterances)." in lines
    assert "All utterances of c are of one speaker, z." in lines
    assert "b is tested and never trained on in fold 0 (1 utterance)." in lines  # fold 0 trains on z
    assert not any(line.startswith("a is") or "of a are" in line for line in lines)


def test_a_split_column_that_is_not_used_is_named(tmp_path: Path) -> None:
    rows = [(*row, {"x": "train", "y": "dev", "z": "test"}[row[1]]) for row in ROWS]
    root = own_corpus(tmp_path, rows, "path,speaker,label,split")
    said = "split column is not used: the protocol is leave one speaker out"
    assert any(said in line for line in check(audit, root)[1])
    status, lines = check(audit, root, "--data.init_args.protocol=ListedFolds")
    assert status == 0
    assert any("listed folds" in line for line in lines)
    assert not any(said in line for line in lines)


def test_brackets_in_speakers_and_classes_are_shown(tmp_path: Path) -> None:
    lines = ["path,speaker,label"]
    for speaker in ("[a]", "[/b]", "[red]c"):
        for label in ("[angry]", "[/calm]"):
            path = tmp_path / f"{speaker.strip('[]/')[-1]}{label.strip('[]/')}.wav"
            soundfile.write(path, [0.1, -0.1] * (4000 + len(lines)), 16000)
            lines.append(f"{path.name},{speaker},{label}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    console = Console(record=True, width=250)
    own = ["--config=experiments/own_corpus.yaml", f"--data.init_args.root={tmp_path}"]
    own += ['--data.init_args.classes=["[angry]", "[/calm]"]']
    protocol = ["--data.init_args.protocol=ser_lightning.data.protocols.RandomFolds"]
    protocol += ["--data.init_args.protocol.num_folds=2"]
    assert audit([*own, *protocol], [], console) == 1
    shown = console.export_text()
    for spelt in ("[angry]", "[/calm]", "[a]", "[/b]", "[red]c"):
        assert spelt in shown
