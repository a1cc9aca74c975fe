import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import Timeout

from ser_lightning.data.synthetic import MARKER, is_synthetic
from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.files import csv_file, files_below, locked


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make folders unreadable, also for root."""
    locked: set[str] = set()
    scan = os.scandir

    def guarded(folder: Any) -> Iterator[os.DirEntry[str]]:
        if os.fspath(folder) in locked:
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    return lambda folder: locked.add(str(folder))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for file in ("b/2.wav", "b/1.wav", "a/3.wav", "4.wav", "lost+found/5.wav", ".hidden/6.wav"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def test_files_are_sorted_without_hidden_and_system_folders(root: Path) -> None:
    assert [str(path.relative_to(root)) for path in files_below(root)] == ["4.wav", "a/3.wav", "b/1.wav", "b/2.wav"]


def test_a_folder_that_cannot_be_read_is_named_with_the_way_out(root: Path, lock: Callable[[Path], None]) -> None:
    lock(root / "b")
    with pytest.raises(CorpusError, match=rf"{root}/b: .*Permission denied.*chmod"):
        list(files_below(root))
    assert [path.name for path in files_below(root, only_readable=True)] == ["4.wav", "3.wav"]


def test_an_unreadable_lost_and_found_is_skipped(root: Path, lock: Callable[[Path], None]) -> None:
    lock(root / "lost+found")
    assert len(list(files_below(root))) == 4


def test_a_root_that_cannot_be_read_is_named(root: Path, lock: Callable[[Path], None]) -> None:
    lock(root)
    with pytest.raises(CorpusError, match=f"{root}: "):
        list(files_below(root))


def test_a_synthetic_corpus_behind_a_link_is_synthetic(tmp_path: Path, lock: Callable[[Path], None]) -> None:
    (tmp_path / "made" / "deep").mkdir(parents=True)
    (tmp_path / "made" / "deep" / MARKER).touch()
    root = tmp_path / "root"
    root.mkdir()
    assert not is_synthetic(root)
    (root / "link").symlink_to(tmp_path / "made")
    assert is_synthetic(root)
    (root / "locked").mkdir()
    lock(root / "locked")  # an unreadable folder has no entry
    assert is_synthetic(root)


def test_a_csv_file_quotes_what_a_spreadsheet_would_run() -> None:
    table = pd.DataFrame({"=speaker": ["@a", "b,c"], "UA": [-0.123456789012, 1.0]})
    assert csv_file(table) == b"'=speaker,UA\n'@a,-0.123456789\n\"b,c\",1\n"
    assert csv_file(table, digits=2) == b"'=speaker,UA\n'@a,-0.12\n\"b,c\",1\n"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ConfigurationError, match=rf"{tmp_path}: .*no locks.*--runs"), locked(tmp_path / "lock"):
        pass


def test_a_lock_is_held_and_released(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(Timeout), locked(tmp_path / "lock", 0):
        pass
    with locked(tmp_path / "lock", 0):
        pass
