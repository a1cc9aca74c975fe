"""Digests of audio files, remembered so that an unchanged file is not read again to learn that it is unchanged."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from ser_lightning.atomic_file import write_atomically
from ser_lightning.audio import audio_digest, why_unreadable
from ser_lightning.errors import AudioError, ConfigurationError


class Digests:
    """SHA-256 by path, size and time of modification, in one JSON file that all extractors of a store share.

    Args:
        path: The JSON file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, tuple[int, int, str]] = {}

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
                # The time is taken before the content, so that a change in between is seen the next time.
                status = path.stat()
                size, modified_ns, digest = known.get(key, (-1, -1, ""))
                if (size, modified_ns) != (status.st_size, status.st_mtime_ns):
                    digest = audio_digest(path)
                    self._found[key] = (status.st_size, status.st_mtime_ns, digest)
                digests[path] = digest
            except AudioError as error:
                problems |= error.problems
            except OSError as error:
                problems[path] = why_unreadable(path, error)
        return digests, problems

    def save(self) -> None:
        """Add what was computed to the JSON file, keeping what other processes added meanwhile.

        Raises:
            OSError: If it cannot be written.
        """
        if self._found:
            with FileLock(f"{self.path}.lock"):
                content = {"version": 1, "files": self._read() | self._found}
                write_atomically(self.path, json.dumps(content, indent=0).encode())
            self._found = {}

    def _read(self) -> dict[str, tuple[int, int, str]]:
        try:
            files = json.loads(self.path.read_bytes())["files"]
            return {name: (int(size), int(modified), str(digest)) for name, (size, modified, digest) in files.items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.path} is damaged or cannot be read ({error}). Delete it and run again: only the digests in it "
                f"are computed anew"
            ) from error
