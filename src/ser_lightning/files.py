"""Atomic file writes, locks, CSV files and folder walks."""

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.text import to_cell

if TYPE_CHECKING:
    import pandas as pd

UNFINISHED_PREFIX = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, as ``write_pieces_atomically``."""
    write_pieces_atomically(path, [content])


def write_pieces_atomically(path: Path, pieces: Iterable[bytes]) -> None:
    """Write the content ``pieces`` to ``path`` atomically.

    The bytes are written and synced to a hidden file in the same folder, which is then renamed. A killed process leaves
    at most a file that begins with ``UNFINISHED_PREFIX``, which nothing reads.

    Args:
        path: The file; its folder is created if missing.
        pieces: The whole file.

    Raises:
        OSError: If the folder cannot be written or the disk is full; it names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{UNFINISHED_PREFIX}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        # The error of a write has no file name, and that of an open has the hidden one.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)  # the rename changes the folder, which must be synced too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def csv_file(table: "pd.DataFrame", digits: int = 9) -> bytes:
    """Return ``table`` as a CSV file that no spreadsheet runs: see ``text.to_cell``.

    Args:
        table: Text and numbers; the index is not written.
        digits: Significant digits of numbers; 9 restore a float32.
    """
    cells = table.map(lambda cell: to_cell(cell) if isinstance(cell, str) else cell).rename(columns=to_cell)
    return cells.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n").encode()


@contextmanager
def locked(path: Path, seconds: float = -1) -> Iterator[None]:
    """Hold the lock of a file; the file is created if missing, and stays.

    Args:
        path: The file.
        seconds: How long to wait for another process; negative: until it is done.

    Raises:
        filelock.Timeout: If another process holds the lock.
        ConfigurationError: If the file system has no locks.
    """
    from filelock import FileLock

    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise ConfigurationError(
            f"{path.parent}: its file system has no locks ({error.strerror}), which keep two processes out of one "
            "folder; put runs and features on another one with --runs, --trainer.default_root_dir and "
            "--data.init_args.feature_folder, or mount this one with locks (docs/scaling.md)"
        ) from error
    try:
        yield
    finally:
        lock.release()


# Folders that file systems keep at the root of a disk, often unreadable.
_OF_FILE_SYSTEMS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})


def files_below(root: Path, *, only_readable: bool = False) -> Iterator[Path]:
    """Yield the files in and below ``root``, folder by folder, sorted within each.

    Links are followed and each real folder is read once. Hidden folders and those of the file system, such as
    lost+found, are skipped.

    Args:
        root: The folder to start from.
        only_readable: Skip unreadable folders.

    Raises:
        CorpusError: If ``root`` or a folder below it cannot be read, unless ``only_readable``.
    """

    def reject(error: OSError) -> None:
        raise CorpusError(
            f"{error.filename}: this folder cannot be read ({error.strerror}), so its files would be missing. "
            f"Make it readable, such as by `chmod -R u+rX`, or move it out of {root}."
        ) from error

    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=None if only_readable else reject, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in _OF_FILE_SYSTEMS)
        yield from (Path(folder, name) for name in sorted(files))
