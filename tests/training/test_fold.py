"""The lifecycle of a fold: all entry points write the same files, one process at a time."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from ser_lightning.cli.__main__ import main
from ser_lightning.training import fold as lifecycle
from ser_lightning.training.callbacks import EpochSeed

pytestmark = pytest.mark.usefixtures("small_pictures")

Arguments = Callable[..., list[str]]


@pytest.fixture
def at_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every training the same duration, which checkpoints hold too."""
    monkeypatch.setattr(Timer, "time_elapsed", lambda timer, stage="train": 1.5)
    monkeypatch.setattr(lifecycle, "code_version", lambda: "1.0")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes by its name in ``folder``."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("at_no_time")
def test_fit_and_test_leave_what_run_fold_leaves(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    given = arguments(folder, "--trainer.logger=false")
    assert main(["run-fold", *given]) == 0
    whole = contents(folder.rename(tmp_path / "whole"))
    assert main(["fit", *given]) == 0
    assert f"next: ser test --config {folder}/config.yaml --ckpt_path best" in capsys.readouterr().out
    fitted = contents(folder)
    assert main(["test", *given, "--ckpt_path=best"]) == 0
    assert f"{folder}/predictions.csv: predictions; next: ser report {folder}" in capsys.readouterr().out
    assert contents(folder) == whole
    assert set(whole) - set(fitted) == {"predictions.csv", "scores.json", "confusion.png", "assignment.csv"}
    assert set(whole) > {
        *("config.yaml", "split_hash", "metrics.csv", "run.json", "validation_predictions.csv"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/best.md"),
    }
    # A second fit starts from scratch and deletes the test's results.
    assert main(["fit", *given]) == 0
    assert contents(folder) == fitted
    # run-fold adds the test.
    assert main(["run-fold", *given]) == 0
    assert contents(folder) == whole


def test_a_foreign_checkpoint_is_tested_without_facts_or_card(tmp_path: Path, arguments: Arguments) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    quick = ("--trainer.logger=false", "--trainer.max_epochs=1")
    assert main(["fit", *arguments(own, *quick)]) == 0
    assert main(["test", *arguments(other, *quick), f"--ckpt_path={own}/checkpoints/best.ckpt"]) == 0
    assert {path.name for path in other.iterdir()} == {
        *("config.yaml", "split_hash", ".lock", "predictions.csv", "scores.json", "confusion.png", "assignment.csv"),
    }


def test_a_dry_run_writes_nothing(tmp_path: Path, arguments: Arguments) -> None:
    for command in ("fit", "run-fold"):
        assert main([command, *arguments(tmp_path / "dry", "--trainer.fast_dev_run=true")]) == 0
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("command", "by_signal", "status", "word"),
    [
        ("run-fold", True, 143, "terminated"),
        pytest.param("fit", False, 130, "interrupted", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_training_says_so_and_resumes(
    command: str,
    by_signal: bool,
    status: int,
    word: str,
    tmp_path: Path,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin_epoch, on_sigterm = EpochSeed.on_train_epoch_start, signal.getsignal(signal.SIGTERM)

    def stop_in_the_second(seed: EpochSeed, trainer: Trainer, system: LightningModule) -> None:
        if trainer.current_epoch == 1:
            if by_signal:
                signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt  # Ctrl-C, which a test in the background ignores
        begin_epoch(seed, trainer, system)

    monkeypatch.setattr(EpochSeed, "on_train_epoch_start", stop_in_the_second)
    given = arguments(tmp_path, "--trainer.logger=false")
    assert main([command, *given]) == status
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"{word}; what was finished is kept")
    assert signal.getsignal(signal.SIGTERM) == on_sigterm
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "run.json").exists()
    monkeypatch.undo()
    assert main(["run-fold", *given]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["epochs"] == 2


@pytest.mark.parametrize("command", ["run-fold", "fit", "test"])
def test_a_folder_locked_by_another_process_is_rejected(
    command: str,
    tmp_path: Path,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # `test` reads its checkpoint before it acquires the lock.
    monkeypatch.setattr(lifecycle, "read_checkpoint", lambda *_: {})
    monkeypatch.setattr(lifecycle, "check_same_extractor", lambda *_: None)
    monkeypatch.setattr(lifecycle.ExperimentCLI, "check_checkpoint", lambda *_: None)
    more = ["--ckpt_path=best"] if command == "test" else []
    with FileLock(tmp_path / ".lock"):
        assert main([command, *arguments(tmp_path, "--trainer.logger=false"), *more]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_facts_are_written_after_the_validation_sets_predictions(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    present: list[set[str]] = []
    write = lifecycle.write_atomically

    def look(path: Path, content: bytes) -> None:
        present.append({entry.name for entry in path.parent.iterdir()})
        write(path, content)

    monkeypatch.setattr(lifecycle, "write_atomically", look)
    assert (
        main(["run-fold", "--no-test", *arguments(tmp_path, "--trainer.logger=false", "--trainer.max_epochs=1")]) == 0
    )
    assert len(present) == 1
    assert "validation_predictions.csv" in present[0]
    assert json.loads((tmp_path / "run.json").read_text())["epochs"] == 1
    assert not (tmp_path / "predictions.csv").exists()
