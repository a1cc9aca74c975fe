"""``ser classify``: tables, CSV and JSON on standard output or in a file, what went wrong on standard error."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_lightning.cli.__main__ import main
from ser_lightning.inference.classification import Classifier, Unusable
from ser_lightning.inference.tables import CSVWriter

pytestmark = pytest.mark.usefixtures("small_pictures")

Save = Callable[..., Path]
NAMES = ("neutral", "happy", "sad", "angry")


@pytest.fixture(scope="module")
def checkpoint(save: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoint") / "best.ckpt", "huang_weighted")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings, one of them of 65 s, and a note."""
    noise = np.random.default_rng(0)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "short.wav", 0.1 * noise.normal(size=(48000, 2)), 48000)
    soundfile.write(tmp_path / "in" / "sub" / "long.flac", 0.1 * noise.normal(size=8000 * 65), 8000)
    (tmp_path / "in" / "notes.txt").write_text("hello")
    return tmp_path / "in"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["classify", *map(str, arguments), "--device=cpu"])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_table_shows_file_emotion_probability_and_duration(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, checkpoint, folder)
    head, short, long = out.splitlines()
    assert (status, err) == (0, "")
    assert head.split() == ["file", "emotion", "probability", "duration"]
    file, emotion, probability, *duration = short.split()
    assert str(folder / "short.wav").endswith(file.removeprefix("..."))
    assert emotion in NAMES
    assert 25 < float(probability.removesuffix("%")) < 100
    assert duration == ["1.00", "s"]
    assert long.endswith("65.00 s   mean of 17 windows of 4 s")


def test_unusable_files_give_status_1_and_a_line_each(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, checkpoint, folder / "notes.txt", folder / "short.wav", folder / "gone.wav")
    assert status == 1
    assert len(out.splitlines()) == 2
    assert err.splitlines() == [
        f"{folder / 'notes.txt'}: cannot be decoded: Format not recognised",
        f"{folder / 'gone.wav'}: missing: there is no such file",
        "2 of 3 files could not be classified",
    ]


def test_file_names_that_a_spreadsheet_would_run_are_quoted() -> None:
    stream = io.StringIO()
    CSVWriter(stream, ("=angry", "sad"), by_window=False).write(Unusable(Path("=1+1.wav"), "@silent"))
    assert stream.getvalue().splitlines()[1] == "'=1+1.wav,,,,,,,'@silent"


def test_csv_and_json_agree(checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, checkpoint, folder, folder / "notes.txt", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    to_file, printed, _ = run(capsys, checkpoint, folder, folder / "notes.txt", "--out", tmp_path / "new" / "out.json")
    objects = json.loads((tmp_path / "new" / "out.json").read_text())
    assert (status, to_file, printed) == (1, 1, f"{tmp_path / 'new' / 'out.json'}\n")
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "out.json"]
    names = [str(folder / name) for name in ("short.wav", "sub/long.flac", "notes.txt")]
    assert [row["file"] for row in rows] == [one["file"] for one in objects] == names
    for row, one in zip(rows[:2], objects[:2], strict=True):
        assert row["emotion"] == one["emotion"] == max(one["probabilities"], key=one["probabilities"].get)
        assert {name: float(row[f"probability_{name}"]) for name in NAMES} == one["probabilities"]
        assert float(row["probability"]) == one["probability"] == one["probabilities"][one["emotion"]]
        assert float(row["seconds"]) == one["seconds"]
        assert not row["error"]
    assert [row["windows"] for row in rows] == ["", "17", ""]
    assert objects[1]["averaged_over_windows"] == 17
    assert rows[2]["error"] == objects[2]["error"] == "cannot be decoded: Format not recognised"


def test_windows_give_rows_over_time_and_a_picture(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--window", 20, "--hop", 15)
    status, out, err = run(capsys, checkpoint, folder, *asked, "--csv", "--plot", tmp_path / "p.png")
    assert (status, err) == (0, "")
    *lines, picture = out.splitlines()
    rows = list(csv.DictReader(lines))
    times = [(float(row["start_seconds"]), float(row["end_seconds"])) for row in rows]
    assert times == [(0, 1), (0, 20), (15, 35), (30, 50), (45, 65)]
    assert picture == str(tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    objects = json.loads(run(capsys, checkpoint, folder, *asked, "--json")[1])
    windows = [window for one in objects for window in one["windows"]]
    assert [(w["start_seconds"], w["end_seconds"]) for w in windows] == times
    assert [w["emotion"] for w in windows] == [row["emotion"] for row in rows]
    table = run(capsys, checkpoint, folder, *asked)[1].splitlines()
    assert [line.split()[-2:] for line in table[1:]] == [[f"{start:.2f}", f"{end:.2f}"] for start, end in times]


def test_options_that_contradict_are_rejected(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [folder / "short.wav"] * 12
    for more, words in (
        (("--plot", tmp_path / "p.png"), "add --window"),
        (("--hop", 1), "--window"),
        (("--window", 1, "--hop", 2), "window is 1 s and the hop 2 s"),
        (("--window", 0.001), "--window 0.001 is shorter than a frame"),
        ((*many, "--window", 1, "--plot", tmp_path / "p.png"), "at most 12 recordings"),
    ):
        status, out, err = run(capsys, checkpoint, folder, *more)
        assert (status, out) == (1, "")
        assert words in err
        assert err.count("\n") == 1
    assert not (tmp_path / "p.png").exists()


def test_windows_that_a_system_would_trim_are_rejected(
    save: Save, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trims = save(tmp_path / "best.ckpt", "zhou_padded")
    assert run(capsys, trims, folder)[1].splitlines()[2].endswith("65.00 s   mean of 44 windows of 1.5 s")
    assert run(capsys, trims, folder / "short.wav", "--window", 1.5)[0] == 0
    status, out, err = run(capsys, trims, folder, "--window", 4, "--hop", 1, "--out", tmp_path / "out.csv")
    assert (status, out) == (1, "")
    assert err.startswith("error: --window 4:")
    assert "first 1.5 s" in err
    assert "max_frames" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_an_output_folder_is_rejected_before_classifying(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(Classifier, "classify_all", lambda *_: pytest.fail("classified"))
    status, out, err = run(capsys, checkpoint, folder, "--window", 20, option, folder)
    assert (status, out, err) == (1, "", f"error: {option} {folder} is a folder; give the name of a file\n")


def test_an_output_below_a_file_is_rejected(checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "notes.txt" / "out.csv"
    status, _, err = run(capsys, checkpoint, folder, "--out", out)
    assert status == 1
    assert err.startswith(f"error: --out {out} cannot be written: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "last"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: --out {} cannot be written: No space left"),
        (PermissionError(errno.EACCES, "no", "elsewhere"), 1, "error: elsewhere: no; change its permissions"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_results_are_kept_when_the_rest_fails(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, last: str,
) -> None:  # fmt: skip
    whole = Classifier.classify_all

    def cut(*arguments: Any) -> Iterator[Any]:
        yield next(whole(*arguments))
        raise error

    monkeypatch.setattr(Classifier, "classify_all", cut)
    file = tmp_path / "new" / "out.csv"
    found, out, err = run(capsys, checkpoint, folder, "--csv", "--out", file)
    assert (found, out) == (status, "")
    (kept,) = file.parent.iterdir()
    assert err.splitlines()[0].endswith(str(kept))
    assert err.splitlines()[1].startswith(last.format(file))
    assert "resume" not in err
    rows = list(csv.DictReader(io.StringIO(kept.read_text())))
    assert [row["file"] for row in rows] == [str(folder / "short.wav")]


def test_training_on_synthetic_speech_is_noted(
    save: Save, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(tmp_path / "best.ckpt", corpus="ravdess-synthetic")
    status, _, err = run(capsys, checkpoint, folder)
    assert status == 0
    assert "trained on synthetic speech" in err


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error(checkpoint: Path, folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ser_lightning.cli", "classify", checkpoint, folder, "--device=cpu"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_classify_agrees_with_the_test_of_the_fold(
    arguments: Callable[..., list[str]], synthetic_ravdess: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run-fold", *arguments(tmp_path / "run", "--trainer.logger=false")]) == 0
    tested = {
        row["utterance"]: row for row in csv.DictReader((tmp_path / "run" / "predictions.csv").read_text().splitlines())
    }
    capsys.readouterr()
    status, out, _ = run(capsys, tmp_path / "run" / "checkpoints" / "best.ckpt", synthetic_ravdess, "--csv")
    classified = {Path(row["file"]).stem: row for row in csv.DictReader(io.StringIO(out))}
    assert status == 0
    assert len(classified) == 96
    assert tested.keys() < classified.keys()
    for name, row in tested.items():
        assert classified[name]["emotion"] == row["predicted"]
        for column in (key for key in row if key.startswith("probability_")):
            assert float(classified[name][column]) == pytest.approx(float(row[column]), abs=1e-5)
