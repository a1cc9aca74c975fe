"""The feature store's files of frames: immutable safetensors shards."""
# Shapes: T frames, F features a frame.

import hashlib
import math
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import UNFINISHED_PREFIX, write_atomically

_DTYPES = {"F16": torch.float16, "F32": torch.float32}


class _Entry(NamedTuple):
    """Frames of one name in a shard.

    Attributes:
        shape: T and F.
        checksum: Checksum of the frames; empty in older shards.
        start: Numbers before them in the file, its header included.
        dtype: Their type, which a shard's entries share.
    """

    shape: tuple[int, int]
    checksum: str
    start: int
    dtype: torch.dtype


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
        self._entries: dict[Path, dict[str, _Entry]] = {}
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
        self._entries = {shard: self._entries.get(shard) or _read_entries(shard) for shard in found}
        self._places = {name: shard for shard, entries in self._entries.items() for name in entries}

    def add(self, frames: Mapping[str, Tensor]) -> None:
        """Write ``frames``, each [T, F] under its name, as a new shard.

        Raises:
            OSError: If it cannot be written.
        """
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        write_atomically(shard, save(dict(frames), {name: _checksum(tensor) for name, tensor in frames.items()}))
        self._entries[shard] = _read_entries(shard)
        self._places |= dict.fromkeys(frames, shard)

    def remove_unfinished(self) -> None:
        """Delete unfinished files of dead processes; the caller must hold the folder's lock."""
        for unfinished in self.folder.glob(f"{UNFINISHED_PREFIX}*"):
            unfinished.unlink(missing_ok=True)

    def length(self, name: str) -> int:
        """Return T of ``name``."""
        return self._entry(name).shape[0]

    def _entry(self, name: str) -> _Entry:
        return self._entries[self._places[name]][name]

    def same_frames(self, names: Iterable[str]) -> dict[str, str]:
        """Return a key for each of ``names``; those with equal frames share it.

        Only frames of equal length and checksum are read and compared.

        Raises:
            ConfigurationError: If a shard is damaged, naming it.
        """
        marks = {name: self._entry(name)[:2] for name in names}
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
            entries = self._entries[shard]
            try:
                # One map of the whole shard: safetensors' get_tensor takes a fifth of a millisecond a name.
                dtype = entries[wanted[0]].dtype
                numbers = torch.from_file(str(shard), False, shard.stat().st_size // dtype.itemsize, dtype=dtype)
                found = {name: numbers[_span(entries[name])].view(entries[name].shape) for name in wanted}
            except (OSError, RuntimeError) as error:
                raise _damaged(shard, error) from error
            changed = [name for name in wanted if entries[name].checksum not in ("", _checksum(found[name]))]
            if changed:
                raise _damaged(shard, f"{len(changed)} of {len(wanted)} utterances differ from their checksums")
            frames |= found
        return frames


def _read_entries(shard: Path) -> dict[str, _Entry]:
    try:
        with safe_open(shard, framework="pt") as file:
            checksums = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            shapes = {name: tuple(found.get_shape()) for name, found in slices.items()}
            (dtype,) = {_DTYPES[found.get_dtype()] for found in slices.values()}
        start = shard.stat().st_size // dtype.itemsize - sum(math.prod(shape) for shape in shapes.values())
    except (SafetensorError, OSError, KeyError, ValueError) as error:  # the last two: of another type, or of several
        raise _damaged(shard, error) from error
    entries = {}
    for name, shape in shapes.items():  # in the file's order and without gaps, as the format requires
        entries[name] = _Entry(shape, checksums.get(name, ""), start, dtype)
        start += math.prod(shape)
    return entries


def _span(entry: _Entry) -> slice:
    return slice(entry.start, entry.start + math.prod(entry.shape))


def _checksum(frames: Tensor) -> str:
    return f"{zlib.crc32(frames.contiguous().numpy().data):08x}"


def _damaged(shard: Path, error: Exception | str) -> ConfigurationError:
    return ConfigurationError(
        f"stored features {shard} are damaged or cannot be read ({error}). Delete this file and run again: only its "
        f"utterances are extracted again"
    )
