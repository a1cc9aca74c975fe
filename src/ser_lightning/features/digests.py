"""Digests of audio files, which are the keys of their stored frames."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ser_lightning.audio import audio_digest, why_unreadable
from ser_lightning.errors import AudioError, ConfigurationError
from ser_lightning.files import locked, write_atomically
from ser_lightning.plain_files import read_json

_VERSION = 2
_MOST_BYTES = 1 << 30  # digests of some million files


class _State(NamedTuple):
    """What changes with a file's content.

    Size and modification time are not enough: tar, rsync and image layers set both as they were. They cannot set the
    ctime. The inode tells files apart on file systems whose ctime is coarse or copied from the modification time.
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "_State":
        """Return the state of ``path``.

        Raises:
            OSError: If it cannot be reached.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Digests:
    """SHA-256 by path and state of the file, in one JSON file that all extractors of a store share.

    The state is size, modification time, ctime and inode. It also changes when a file is moved, copied, or gets other
    permissions, and when a container or another machine mounts it under other inodes. This costs reading the file again
    (about 1 s per GB, 3 s for all of RAVDESS), and no extraction.

    Args:
        path: The JSON file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, tuple[_State, str]] = {}

    def compute(self, paths: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
        """Return digests, and reasons for those of ``paths`` that cannot be read.

        Raises:
            ConfigurationError: If the JSON file is damaged, naming it.
        """
        known = self._read() | self._found
        digests: dict[Path, str] = {}
        problems: dict[Path, str] = {}
        for path in paths:
            key = os.path.abspath(path)
            try:
                # The state before the content, so that a change in between is noticed next time.
                state = _State.of(path)
                known_state, digest = known.get(key, (None, ""))
                if known_state != state:
                    digest = audio_digest(path)
                    self._found[key] = (state, digest)
                digests[path] = digest
            except AudioError as error:
                problems |= error.problems
            except OSError as error:
                problems[path] = why_unreadable(path, error)
        return digests, problems

    def known(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return the stored digests of those of ``paths`` that have not changed since."""
        found = self._read() | self._found
        digests: dict[Path, str] = {}
        for path in paths:
            with contextlib.suppress(OSError):
                state, digest = found.get(os.path.abspath(path), (None, ""))
                if state == _State.of(path):
                    digests[path] = digest
        return digests

    def save(self) -> None:
        """Add new digests to the JSON file, keeping those that other processes added meanwhile.

        Raises:
            OSError: If it cannot be written.
        """
        if self._found:
            with locked(Path(f"{self.path}.lock")):
                files = {name: [*state, digest] for name, (state, digest) in (self._read() | self._found).items()}
                write_atomically(self.path, json.dumps({"version": _VERSION, "files": files}, indent=0).encode())
            self._found = {}

    def _read(self) -> dict[str, tuple[_State, str]]:
        try:
            content = read_json(self.path, _MOST_BYTES)
            if content["version"] < _VERSION:  # without ctime and inode
                return {}
            return {
                name: (_State(*map(int, state)), str(digest)) for name, (*state, digest) in content["files"].items()
            }
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.path} is damaged or cannot be read ({error}). Delete it and run again: only its digests are "
                f"computed again"
            ) from error
