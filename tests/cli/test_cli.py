"""The ``ser`` command: errors, exit status, imports."""

import argparse
import errno
import getpass
import logging
import os
import re
import subprocess
import sys
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from ser_lightning.cli import __main__ as cli
from ser_lightning.cli.__main__ import main, parser, prepare_process, quiet_libraries
from ser_lightning.cli.training import LIGHTNING_COMMANDS
from ser_lightning.jobs.process import USER_ERROR


def test_help_names_every_command() -> None:
    text = parser().format_help()
    commands = {*LIGHTNING_COMMANDS, "run-fold", "smoke", "experiments", "cv", "table", "sweep", "prepare", "audit"}
    commands |= {"report", "attention", "embeddings", "classify", "export", "download", "synth"}
    listed = {line.split()[0] for line in text.split("COMMAND")[-1].splitlines() if re.match(r" {4}\w", line)}
    assert listed == commands


@pytest.mark.parametrize("command", ["cv", "run-fold", "smoke", "sweep", "fit"])
def test_help_shows_lightningclis_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: ser {command} ")
    assert re.search(r"^  --config FILE", said, re.MULTILINE)
    assert re.search(r"^  --KEY VALUE", said, re.MULTILINE)
    assert "__main__" not in said
    assert ("--trainer.max_epochs MAX_EPOCHS" in said) == (command == "fit")


def test_ser_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "COMMAND" in capsys.readouterr().out


def test_hints_that_nobody_can_act_on_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as shown:
        quiet_libraries()
        warnings.warn(
            "It is recommended to use `self.log('validation/UA', ..., sync_dist=True)` when logging on epoch level in "
            "distributed setting to accumulate the metric across devices.",
            stacklevel=1,
        )
    logging.getLogger("lightning.fabric.utilities.seed").info("[rank: 1] Seed set to 0")
    assert (shown, caplog.records) == ([], [])


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ser_lightning.cli.__main__ import parser; parser().format_help(); "
        "print([name for name in ('torch', 'sklearn', 'matplotlib', 'pandas', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_untrusted_module_is_rejected_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config=experiments/quickstart.yaml", "--model=unknown_system.Mine", "--print_config"]) == 1
    assert "--allow" in capsys.readouterr().err


def test_an_allowed_local_module_is_found_after_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tabnanny.py").write_text("raise RuntimeError('not the library')")
    (tmp_path / "my_system.py").write_text("here = True\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    prepare_process(argparse.Namespace(allow=["my_system"]))
    assert find_spec("my_system") is not None
    assert Path(str(getattr(find_spec("tabnanny"), "origin", ""))).parent != tmp_path


@pytest.mark.slow
def test_an_allowed_local_module_hides_no_library(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('this is not torch')")
    (tmp_path / "my_system.py").write_text(
        "from ser_lightning.systems import PooledLSTM\n\nclass Mine(PooledLSTM):\n    '''Ours.'''\n"
    )
    script = str(Path(sys.executable).with_name("ser"))  # not python -m, which puts the current folder first
    experiment = str(Path("experiments/quickstart.yaml").resolve())
    command = [script, "fit", "--config", experiment, "--model=my_system.Mine", "--print_config"]

    done = subprocess.run([*command, "--allow", "my_system"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "class_path: my_system.Mine" in done.stdout


def test_row_is_not_an_option_of_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "run", "experiments/huang2020/table1.yaml", "--row", "mean"]) == 1
    assert "--rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "way"),
    [
        (errno.EROFS, "Read-only file system; choose another folder"),
        (errno.ENOSPC, "No space left on device; free space there, or choose"),
        (errno.EDQUOT, "Disk quota exceeded; free space there, or choose"),
        (errno.EACCES, "Permission denied; change its permissions, or choose"),
        (errno.EIO, "Input/output error; set SER_TRACEBACK=1"),
    ],
)
def test_a_system_error_names_file_reason_and_way_out(
    code: int, way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code), "/place/file")

    monkeypatch.setattr(cli, "_run", refuse)
    assert main(["synth"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: /place/file: {way}")
    assert len(said.splitlines()) == 1
    monkeypatch.setenv("SER_TRACEBACK", "1")
    with pytest.raises(OSError, match="/place/file"):
        main(["synth"])


@pytest.mark.parametrize(
    "arguments", [["--version"], ["audit", "--config=nowhere.yaml"], ["fit", "-c", "nowhere.yaml"]]
)
def test_version_and_a_misspelt_file_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from ser_lightning.cli.__main__ import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'omegaconf', 'jsonargparse', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "nowhere.yaml: no such" in done.stderr or version("ser-lightning") in done.stdout


@pytest.mark.parametrize(("more", "status"), [([], 1), (["--end-with-parent"], USER_ERROR)])
def test_a_user_error_in_a_job_has_its_own_exit_status(more: list[str], status: int) -> None:
    command = [sys.executable, "-m", "ser_lightning.cli", "run-fold", "--config=nowhere.yaml", *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.wait() == status
        assert "error: nowhere.yaml" in process.stderr.read()


@pytest.mark.parametrize(
    "error", [TimeoutError(errno.ETIMEDOUT, "no answer"), KeyError("no answer"), RuntimeError("no answer\n" * 1000)]
)
def test_an_unexpected_error_is_one_line_or_a_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    monkeypatch.delenv("SER_TRACEBACK", raising=False)
    assert main(["synth"]) == 1
    said = capsys.readouterr().err
    assert re.match(rf"error: {type(error).__name__}: .*no answer.*SER_TRACEBACK=1", said)
    assert len(said.splitlines()) == 1
    monkeypatch.setenv("SER_TRACEBACK", "1")
    with pytest.raises(type(error), match="no answer"):
        main(["synth"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's full device")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "ser_lightning.cli", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output or a file cannot be written: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(cli.pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cli, "_run", lambda *_: 0)
    assert main(["synth"]) == 0
    assert getpass.getuser() == f"user-{os.getuid()}"
    assert Path.home().is_dir()


def test_a_full_disk_names_the_file(
    seed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as raised by a write: without a file name

    monkeypatch.setattr(os, "fsync", full)
    assert main(["report", str(seed_folder), f"--out={tmp_path / 'report'}"]) == 1
    error = capsys.readouterr().err
    assert f"error: {tmp_path / 'report'}" in error
    assert "No space left on device" in error
    assert not [path for path in (tmp_path / "report").rglob("*") if path.is_file()]


def test_an_unknown_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", "runs", "--fold=1"])
    assert stopped.value.code == 2
    assert "--fold=1" in capsys.readouterr().err
