"""The audit counts labelled and unlabelled utterances separately."""

import shutil
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from data_modules.crema_d import FAULTY, CremaD, write_synthetic
from data_modules.iemocap_synthetic import Turn, recordings
from ser_lightning.audio import read_audio
from ser_lightning.cross_validation.audit import audit, prepare, usage
from ser_lightning.cross_validation.cross_validate import cross_validate
from ser_lightning.cross_validation.planner import RunOptions
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


def test_brackets_in_speakers_and_classes_are_shown(tmp_path: Path) -> None:
    lines = ["path,speaker,label"]
    for speaker in ("[a]", "[/b]", "[red]c"):
        for label in ("[angry]", "[/calm]"):
            path = tmp_path / f"{speaker.strip('[]/')[-1]}{label.strip('[]/')}.wav"
            soundfile.write(path, [0.1, -0.1] * 4000, 16000)
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
