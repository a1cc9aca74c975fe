"""The machinery of ``tools.stress``: it notices what is lost, and what a full disk does."""

import builtins
import errno
import io
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureStore, LogMelFilterbank
from ser_lightning.plain_files import read_yaml
from tools.damage import OF_BYTES, OF_TEXT, damaged
from tools.damaged_audio import encoded, tone
from tools.stress.__main__ import PROGRAMS
from tools.stress.child import Conditions, Disk
from tools.stress.commands import Command, Commands, Ended, all_end, kill_all, processes_in
from tools.stress.material import CHECKPOINT, EXPERIMENT, FEATURES, FOLD, RUNS, Material, results
from tools.stress.program import Bench

InstallDisk = Callable[[int, bool], Disk]


@pytest.fixture
def install_disk(monkeypatch: pytest.MonkeyPatch) -> InstallDisk:
    """Install a disk until the end of the test; the last one installed is on top."""
    for owner, name in ((builtins, "open"), (io, "open"), (os, "mkdir"), (os, "open")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # to be restored

    def install(full_at: int, lasting: bool) -> Disk:
        disk = Disk(full_at, lasting)
        disk.install()
        return disk

    return install


def test_a_disk_is_full_at_the_chosen_write(tmp_path: Path, install_disk: InstallDisk) -> None:
    install_disk(4, False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "first").write_text("x")
    with pytest.raises(OSError, match="second") as caught:
        (tmp_path / "second").write_text("x")
    assert caught.value.errno == errno.ENOSPC
    (tmp_path / "third").write_bytes(b"x\r\n")
    assert (tmp_path / "third").read_bytes() == b"x\r\n"


def test_a_store_outlives_a_disk_full_at_any_write(tmp_path: Path, install_disk: InstallDisk) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(encoded(tone(), "WAV", "FLOAT"))
    FeatureStore(tmp_path / "calm", LogMelFilterbank()).prepare([clip], progress=False)
    (calm,) = FeatureStore(tmp_path / "calm", LogMelFilterbank()).load([clip])
    at = hit = 0
    while hit == at:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        disk = install_disk(at, False)
        try:
            FeatureStore(folder, LogMelFilterbank()).prepare([clip], progress=False)
        except ConfigurationError as error:
            assert str(folder) in str(error)  # noqa: PT017  # the last write but one is not reached
        hit += disk.uses >= at
        store = FeatureStore(folder, LogMelFilterbank())
        store.prepare([clip], progress=False)
        assert torch.equal(store.load([clip])[0], calm)
        names = ("digests.json", f"{store.folder.name}/extractor.json")
        assert all((folder / name).stat().st_size == (tmp_path / "calm" / name).stat().st_size for name in names[1:])
    assert at > 5


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (Ended(0, "done", 1.0), ""),
        (Ended(1, "error: there is no x", 1.0), ""),
        (Ended(2, "usage: ser", 1.0), ""),
        (Ended(None, "", 20.0), "still running"),
        (Ended(-11, "", 1.0), "SIGSEGV"),
        (Ended(1, "Traceback (most recent call last):\nKeyError: 'x'", 1.0), "KeyError"),
        (Ended(1, "error: KeyError: 'x'; set SER_TRACEBACK=1 in the environment", 1.0), "unexpected"),
        (Ended(1, "done", 1.0), "without an error"),
        (Ended(0, "done", 1.0, peak_mib=3000), "3000 MiB"),
    ],
)
def test_only_a_result_or_a_clear_error_is_right(ended: Ended, fault: str) -> None:
    assert fault in ended.fault()
    assert bool(fault) == bool(ended.fault())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_all_processes_of_a_folder_are_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, time; os.fork(); time.sleep(60)"]
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True) as process:
        while len(processes_in(tmp_path)) < 2:
            assert process.poll() is None
        kill_all(tmp_path)
        process.wait()
        assert all_end(tmp_path)


def test_damaged_yaml_is_a_value_or_one_line(repository: Path, tmp_path: Path) -> None:
    content = (repository / "experiments" / "quickstart.yaml").read_bytes()
    for seed in range(60):
        name, after = damaged(OF_TEXT, random.Random(seed), content)
        assert (name, after) == damaged(OF_TEXT, random.Random(seed), content)
        try:
            (tmp_path / "x.yaml").write_bytes(after)
            read_yaml(tmp_path / "x.yaml")
        except ValueError as error:
            assert "\n" not in str(error), name  # noqa: PT017  # some damages are harmless


def test_every_damage_takes_one_byte() -> None:
    for name, damage in {**OF_TEXT, **OF_BYTES}.items():
        assert isinstance(damage(random.Random(0), bytearray(b"x")), bytes), name


class FakeCommands(Commands):
    """Commands that write what a function says, and end with status 0."""

    def __init__(self, write: Callable[[Path], None]) -> None:
        self.write = write
        self.slowest_seconds = self.peak_mib = 0.0

    def start(self, arguments: Iterable[str], folder: Path, conditions: Conditions = Conditions()) -> Command:  # noqa: B008
        self.write(folder)
        return FakeCommand()


class FakeCommand(Command):
    def __init__(self) -> None:
        pass

    def wait(self, calm_seconds: float = 0.0) -> Ended:
        return Ended(0, "", 0.0)


@pytest.fixture
def material(tmp_path: Path) -> Material:
    folder = tmp_path / "calm"
    files = {
        **dict.fromkeys((EXPERIMENT, "audio_files.yaml", "table.yaml", "sweep.yaml"), "x: 1\n"),
        **dict.fromkeys((CHECKPOINT, f"{FOLD}/predictions.csv", f"{RUNS}/fold-00/predictions.csv"), "1,2\n"),
        **dict.fromkeys(("emotions.csv", f"{FEATURES}/digests.json", "report/ua.csv", "trials/sweep.db"), "1,2\n"),
        **dict.fromkeys(("other/1.wav", "recordings/a/1.wav", "recordings/labels.csv"), "path,label\n"),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    names = ("synth", "store", "fold", "table", "sweep", "report", "classify")
    return Material(folder, dict.fromkeys(names, 0.01), dict.fromkeys(names, 2))


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("name", ["full-disk", "kills"])
def test_a_lost_result_fails_a_program(name: str, lost: bool, material: Material, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        for part in (FOLD, RUNS, "trials", "report", "other", "emotions.csv"):
            if (material.folder / part).is_dir():
                shutil.copytree(material.folder / part, folder / part, dirs_exist_ok=True, copy_function=copy_new)
            else:
                copy_new(str(material.folder / part), str(folder / part))
        if lost:
            for file in [*folder.rglob("*.csv"), *folder.rglob("other/*")]:
                if not file.is_symlink() and not file.parent.is_symlink():
                    file.write_text("1,3\n")

    bench = Bench(material, FakeCommands(write), tmp_path, seed=0)
    program = PROGRAMS[name]
    for _, number in zip(range(8), program.numbers(bench), strict=False):
        attempt = program.attempt(bench, number)
        if "store" in attempt.kind or "prepare" in attempt.kind or "sweep" in attempt.kind:
            continue  # the fakes have no frames and no trials
        assert bool(attempt.failure) == lost, attempt


def copy_new(source: str, target: str) -> None:
    if not Path(target).exists():
        shutil.copy(source, target)


def test_results_ignore_times(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"seconds": 1.5, "epochs": 2}')
    assert results(tmp_path) == {"run.json": {"epochs": 2}}
