"""Files of the feature store: immutable safetensors shards, and digests of the audio files."""
# Shapes: T frames, F features a frame.

import contextlib
import hashlib
import json
import os
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ser_lightning.audio import audio_digest, why_unreadable
from ser_lightning.errors import AudioError, ConfigurationError
from ser_lightning.files import UNFINISHED_PREFIX, write_atomically


class Shards:
    """The shards of one folder, each a safetensors file of frames [T, F] by name.

    A shard's header is its index and holds a checksum of each name's frames, which is checked on every load (0.7 s per
    GB). Shards are immutable and have unique names, so concurrent writers do not conflict. A damaged shard is an error,
    because it points to a failing disk or copy.

    Args:
        folder: Folder of the shards; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[Path, dict[str, tuple[int, str]]] = {}
        self._places: dict[str, Path] = {}

    def __contains__(self, name: str) -> bool:
        """Whether frames of ``name`` were stored at the last ``refresh``."""
        return name in self._places

    def refresh(self) -> None:
        """Update the index with shards that any process added or deleted.

        Raises:
            ConfigurationError: If a shard is damaged, naming it.
        """
        found = sorted(self.folder.glob("*.safetensors"))
        self._names = {shard: self._names.get(shard) or _read_names(shard) for shard in found}
        self._places = {name: shard for shard, names in self._names.items() for name in names}

    def add(self, frames: Mapping[str, Tensor]) -> None:
        """Write ``frames``, each [T, F] under its name, as a new shard.

        Raises:
            OSError: If it cannot be written.
        """
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        checksums = {name: _checksum(tensor) for name, tensor in frames.items()}
        write_atomically(shard, save(dict(frames), checksums))
        self._names[shard] = {name: (len(tensor), checksums[name]) for name, tensor in frames.items()}
        self._places |= dict.fromkeys(frames, shard)

    def remove_unfinished(self) -> None:
        """Delete unfinished files of dead processes; the caller must hold the folder's lock."""
        for unfinished in self.folder.glob(f"{UNFINISHED_PREFIX}*"):
            unfinished.unlink(missing_ok=True)

    def length(self, name: str) -> int:
        """Return T of ``name``."""
        return self._names[self._places[name]][name][0]

    def same_frames(self, names: Iterable[str]) -> dict[str, str]:
        """Return a key for each of ``names``; those with equal frames share it.

        Only frames of equal length and checksum are read and compared.

        Raises:
            ConfigurationError: If a shard is damaged, naming it.
        """
        marks = {name: self._names[self._places[name]][name] for name in names}
        counts = Counter(marks.values())
        frames = self.load(name for name, mark in marks.items() if counts[mark] > 1)
        digests = {name: hashlib.sha256(tensor.numpy().data).hexdigest() for name, tensor in frames.items()}
        return {name: digests.get(name, name) for name in marks}

    def load(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the frames [T, F] of ``names``, memory-mapped.

        Raises:
            ConfigurationError: If a shard is damaged, naming it.
        """
        by_shard: dict[Path, list[str]] = {}
        for name in names:
            by_shard.setdefault(self._places[name], []).append(name)
        frames: dict[str, Tensor] = {}
        for shard, wanted in by_shard.items():
            try:
                with safe_open(shard, framework="pt") as file:
                    checksums = file.metadata() or {}  # none in older shards
                    found = {name: file.get_tensor(name) for name in wanted}
            except (SafetensorError, OSError) as error:
                raise _damaged(shard, error) from error
            changed = [name for name in wanted if checksums.get(name, "") not in ("", _checksum(found[name]))]
            if changed:
                raise _damaged(shard, f"{len(changed)} of {len(wanted)} utterances differ from their checksums")
            frames |= found
        return frames


def _read_names(shard: Path) -> dict[str, tuple[int, str]]:
    try:
        with safe_open(shard, framework="pt") as file:
            checksums = file.metadata() or {}
            names = file.keys()  # the file is not a mapping
            return {name: (int(file.get_slice(name).get_shape()[0]), checksums.get(name, "")) for name in names}
    except (SafetensorError, OSError) as error:
        raise _damaged(shard, error) from error


def _checksum(frames: Tensor) -> str:
    return f"{zlib.crc32(frames.contiguous().numpy().data):08x}"


def _damaged(shard: Path, error: Exception | str) -> ConfigurationError:
    return ConfigurationError(
        f"stored features {shard} are damaged or cannot be read ({error}). Delete this file and run again: only its "
        f"utterances are extracted again"
    )


class Digests:
    """SHA-256 by path, size and modification time, in one JSON file that all extractors of a store share.

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
                # stat before the content, so that a change in between is noticed next time.
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

    def known(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return the stored digests of those of ``paths`` that have not changed since."""
        found = self._read() | self._found
        digests: dict[Path, str] = {}
        for path in paths:
            with contextlib.suppress(OSError):
                status = path.stat()
                size, modified_ns, digest = found.get(os.path.abspath(path), (-1, -1, ""))
                if (size, modified_ns) == (status.st_size, status.st_mtime_ns):
                    digests[path] = digest
        return digests

    def save(self) -> None:
        """Add new digests to the JSON file, keeping those that other processes added meanwhile.

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
                f"{self.path} is damaged or cannot be read ({error}). Delete it and run again: only its digests are "
                f"computed again"
            ) from error
