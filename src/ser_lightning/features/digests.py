"""Digests of audio files, which are the keys of their stored frames."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ser_lightning.audio import audio_digest, why_unreadable
from ser_lightning.errors import AudioError, ConfigurationError
from ser_lightning.files import locked, write_pieces_atomically
from ser_lightning.plain_files import read_json

_HEADER = '{"version": 3, "files": {'
_END = "}}"
_DIGITS = 64  # of a digest
_MOST_BYTES = 1 << 30  # digests of some million files


def _state(path: Path) -> str:
    """Return what changes with the content of ``path``: size, modification time, ctime and inode.

    Size and modification time are not enough: tar, rsync and image layers set both as they were. They cannot set the
    ctime. The inode tells files apart on file systems whose ctime is coarse or copied from the modification time.

    Raises:
        OSError: If it cannot be reached.
    """
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


class Digests:
    """SHA-256 by path and state of the file, in one JSON file that all extractors of a store share.

    The state is size, modification time, ctime and inode. It also changes when a file is moved, copied, or gets other
    permissions, and when a container or another machine mounts it under other inodes. This costs reading the file again
    (about 1 s per GB, 3 s for all of RAVDESS), and no extraction.

    The JSON file has a line for each audio file, so that it is read and written line by line: a JSON library would need
    a kilobyte of memory for each.

    Args:
        path: The JSON file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unsaved: dict[Path, str] = {}  # state and digest

    def compute(self, paths: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
        """Return digests, and reasons for those of ``paths`` that cannot be read.

        Raises:
            ConfigurationError: If the JSON file is damaged, naming it.
        """
        stored = dict(self._entries())
        digests: dict[Path, str] = {}
        problems: dict[Path, str] = {}
        for path in paths:
            try:
                # The state before the content, so that a change in between is noticed next time.
                state = _state(path)
                # Popped, so that memory does not hold every digest twice.
                known = self._unsaved.get(path) or stored.pop(os.path.abspath(path), "")
                if known[:-_DIGITS] != f"{state} ":
                    known = self._unsaved[path] = f"{state} {audio_digest(path)}"
                digests[path] = known[-_DIGITS:]
            except AudioError as error:
                problems |= error.problems
            except OSError as error:
                problems[path] = why_unreadable(path, error)
        return digests, problems

    def known(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return the stored digests of those of ``paths`` that have not changed since."""
        stored = dict(self._entries())
        digests: dict[Path, str] = {}
        for path in paths:
            with contextlib.suppress(OSError):
                known = self._unsaved.get(path) or stored.pop(os.path.abspath(path), "")
                if known[:-_DIGITS] == f"{_state(path)} ":
                    digests[path] = known[-_DIGITS:]
        return digests

    def save(self) -> None:
        """Add new digests to the JSON file, keeping those that other processes added meanwhile.

        Raises:
            OSError: If it cannot be written.
        """
        if self._unsaved:
            with locked(Path(f"{self.path}.lock")):
                write_pieces_atomically(self.path, self._lines())
            self._unsaved = {}

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of the JSON file with the new digests."""
        yield f"{_HEADER}\n".encode()
        separator, replaced = "", None
        for name, known in self._entries():
            if replaced is None:
                replaced = set(map(os.path.abspath, self._unsaved))
            if name not in replaced:
                yield f"{separator}{json.dumps(name)}: {json.dumps(known)}".encode()
                separator = ",\n"
        for path, known in self._unsaved.items():
            yield f"{separator}{json.dumps(os.path.abspath(path))}: {json.dumps(known)}".encode()
            separator = ",\n"
        yield f"\n{_END}\n".encode()

    def _entries(self) -> Iterator[tuple[str, str]]:
        """Yield path, and state and digest, of each file in the JSON file; none if an older version wrote it.

        Raises:
            ConfigurationError: If it is damaged, naming it.
        """
        try:
            with self.path.open(encoding="utf-8") as lines:
                if next(lines, "").rstrip() == _HEADER:
                    for line in lines:
                        if (entry := line.rstrip()) == _END:
                            return
                        ((name, known),) = json.loads(f"{{{entry.removesuffix(',')}}}").items()
                        yield name, str(known)
                    raise ValueError("its end is missing")
            if read_json(self.path, _MOST_BYTES)["version"] > 2:
                raise ValueError("it was changed")
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.path} is damaged or cannot be read ({error}). Delete it and run again: only its digests are "
                f"computed again"
            ) from error
