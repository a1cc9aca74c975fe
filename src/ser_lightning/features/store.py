"""A store of extracted frames on disk."""
# Shapes: T frames, F features a frame.

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from filelock import Timeout
from torch import Tensor

from ser_lightning.audio import READING_VERSION
from ser_lightning.errors import ConfigurationError
from ser_lightning.features.digests import Digests
from ser_lightning.features.extraction import extract_file, extract_files, show_progress
from ser_lightning.features.extractor import FeatureExtractor
from ser_lightning.features.shards import Shards
from ser_lightning.files import locked, write_atomically

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Result of ``FeatureStore.prepare``.

    Attributes:
        extracted: Files whose frames were extracted now.
        reused: Files whose frames were stored already, or that are byte-identical to another file.
        seconds: Time taken.
        problems: Reason by file, for unusable files.
    """

    extracted: int
    reused: int
    seconds: float
    problems: dict[Path, str]


class FeatureStore:
    """The frames of one extractor, keyed by the content of the audio file.

    The folder ``<class>-<12 hexadecimal digits>`` is determined by the extractor's class, arguments and version, by
    how audio is read, and by the releases (major.minor) of the libraries, which ``extractor.json`` in it lists. The key
    of an audio file's frames is its SHA-256, so a changed file or argument triggers extraction, and a moved file does
    not. Any number of processes may read and prepare at once: one extracts, the others wait. Frames are written every
    ``flush_seconds`` or ``flush_bytes``, so a killed process loses no more than that. The folder may be deleted when no
    process uses it.

    Args:
        folder: Folder of the stores; several extractors share it.
        extractor: The feature extractor.
    """

    flush_seconds: ClassVar[float] = 10.0
    flush_bytes: ClassVar[int] = 64 << 20

    def __init__(self, folder: Path, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self._fingerprint = _fingerprint(extractor)
        digits = hashlib.sha256(json.dumps(self._fingerprint, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = folder / f"{type(extractor).__name__}-{digits}"
        self._shards = Shards(self.folder)
        self._digests = Digests(folder / "digests.json")
        self._digest_of: dict[Path, str] = {}

    def prepare(self, paths: Sequence[Path], workers: int = 1, progress: bool = True, device: str = "cpu") -> Prepared:
        """Extract and store the frames of those of ``paths`` that are not stored yet.

        Args:
            paths: Audio files.
            workers: Processes to extract with, started only for long jobs.
            progress: Show a bar with files per second and the time left.
            device: Torch's name of the device to extract on; one process does, if it is not the CPU.

        Returns:
            The numbers of extracted and reused files, and unusable files with reasons.

        Raises:
            ConfigurationError: If the folder cannot be written, a stored file is damaged, or a worker dies.
        """
        started = time.monotonic()
        unique = list(dict.fromkeys(paths))
        digest_of, problems = self._digests.compute(show_progress(unique, len(unique), "checking", progress))
        self._digest_of = self._digest_of | digest_of if self._digest_of else digest_of  # usually without a copy
        self._shards.refresh()
        extracted = 0
        # A store whose missing files are all unusable is complete.
        reasons = self._leading_reasons(digest_of)
        if all(digest in self._shards or digest in reasons for digest in digest_of.values()):
            with contextlib.suppress(OSError):  # a complete store may be on a read-only disk
                self._digests.save()
        else:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._digests.save()
                with _sole_writer(self.folder / "lock"):
                    self._shards.refresh()
                    self._shards.remove_unfinished()
                    self._explain_folder()
                    extracted = self._extract_missing(digest_of, reasons, workers, progress, device)
            except OSError as error:
                raise ConfigurationError(
                    f"cannot write features to {self.folder}: {error.strerror or error}. Free space, or set another "
                    f"feature folder"
                ) from error
        problems |= {path: reasons[digest] for path, digest in digest_of.items() if digest in reasons}
        reused = len(unique) - extracted - len(problems)
        return Prepared(extracted, reused, time.monotonic() - started, problems)

    def sounds(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Return a key for each of ``paths`` that has stored frames and has not changed since.

        Files that are byte-identical, or have equal frames because their samples are equal, share a key.
        """
        self._shards.refresh()
        digests = {path: digest for path, digest in self._digests.known(paths).items() if digest in self._shards}
        keys = self._shards.same_frames(set(digests.values()))
        return {path: keys[digest] for path, digest in digests.items()}

    def lengths(self, paths: Sequence[Path]) -> list[int]:
        """Return the number of frames of each of ``paths``, without reading them.

        Raises:
            ConfigurationError: If a file was not prepared.
        """
        return [self._shards.length(digest) for digest in self._stored(paths)]

    def load(self, paths: Sequence[Path]) -> list[Tensor]:
        """Return the frames [T, F] of each of ``paths``, as stored, memory-mapped and so shared by all processes.

        Raises:
            ConfigurationError: If a file was not prepared, or a shard is damaged.
        """
        digests = self._stored(paths)
        frames = self._shards.load(dict.fromkeys(digests))
        return [frames[digest] for digest in digests]

    def _explain_folder(self) -> None:
        explanation = self.folder / "extractor.json"
        if not explanation.exists():
            write_atomically(explanation, json.dumps(self._fingerprint, indent=2).encode())  # for people

    def _stored(self, paths: Sequence[Path]) -> list[str]:
        """Return the digests of ``paths``, all of which are stored."""
        unknown = [path for path in dict.fromkeys(paths) if path not in self._digest_of]
        if unknown:
            self._digest_of |= self._digests.compute(unknown)[0]
        if any(self._digest_of.get(path, "") not in self._shards for path in paths):
            self._shards.refresh()
        missing = [path for path in dict.fromkeys(paths) if self._digest_of.get(path, "") not in self._shards]
        if missing:
            raise ConfigurationError(
                f"{len(missing)} of {len(set(paths))} audio files have no features in {self.folder}, the first "
                f"{missing[0]}: prepare them first"
            )
        return [self._digest_of[path] for path in paths]

    def _missing(self, digest_of: Mapping[Path, str]) -> list[Path]:
        """Return a file for each digest that is not stored."""
        owners = {digest: path for path, digest in digest_of.items() if digest not in self._shards}
        return [path for path in digest_of if owners.get(digest_of[path]) == path]

    def _leading_reasons(self, digest_of: Mapping[Path, str]) -> dict[str, str]:
        """Return reasons by digest for missing files that are unusable, up to the first usable one."""
        reasons: dict[str, str] = {}
        for path in self._missing(digest_of):
            result = extract_file(self.extractor.eval(), path)
            if not isinstance(result, str):
                break
            reasons[digest_of[path]] = result
        return reasons

    def _extract_missing(
        self, digest_of: Mapping[Path, str], reasons: dict[str, str], workers: int, progress: bool, device: str
    ) -> int:
        """Extract and write missing files, add unusable ones to ``reasons``, and return the number extracted."""
        missing = [path for path in self._missing(digest_of) if digest_of[path] not in reasons]
        unwritten: dict[str, Tensor] = {}
        unwritten_bytes, written_at, extracted = 0, time.monotonic(), 0
        results = extract_files(self.extractor.eval(), missing, workers, device)
        try:
            for path, result in show_progress(results, len(missing), type(self.extractor).__name__, progress):
                if isinstance(result, str):
                    reasons[digest_of[path]] = result
                    continue
                unwritten[digest_of[path]] = result
                unwritten_bytes += result.nbytes
                extracted += 1
                if unwritten_bytes >= self.flush_bytes or time.monotonic() - written_at >= self.flush_seconds:
                    self._shards.add(unwritten)
                    unwritten, unwritten_bytes, written_at = {}, 0, time.monotonic()
        finally:
            if unwritten:  # also after Ctrl-C or a dead worker
                self._shards.add(unwritten)
        return extracted


def _fingerprint(extractor: FeatureExtractor) -> dict[str, object]:
    """Return everything that determines the frames of an audio file."""
    parts = [module for module in extractor.modules() if isinstance(module, FeatureExtractor)]
    libraries = {"soundfile", "torch", "torchaudio", *(library for part in parts for library in part.libraries)}
    return {
        "extractor": _plain(extractor.configuration(with_places=False)),
        "reading": READING_VERSION,
        "versions": {type(part).__qualname__: part.version for part in parts},
        "libraries": {name: _release(name) for name in sorted(libraries)},
        "sample_rate_hz": extractor.sample_rate_hz,
    }


@functools.cache
def _release(library: str) -> str:
    return ".".join(importlib.metadata.version(library).split(".")[:2])


def _plain(value: object) -> object:
    """Return ``value`` with integers as floats: 4000 and 4000.0 are the same argument."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@contextlib.contextmanager
def _sole_writer(path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, 0))
        except Timeout:
            _LOG.info("waiting for another process that prepares %s", path.parent)
            stack.enter_context(locked(path))
        yield
