"""A compact index file of a million clips, built once and shared by all processes."""
# Shapes: N clips, S speakers.

import hashlib
import logging
import os
import re
import shlex
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data_modules.discovery import first_few
from ser_lightning.audio import AUDIO_ENDINGS
from ser_lightning.errors import CorpusError
from ser_lightning.files import locked, write_atomically
from ser_lightning.text import identity
from ser_lightning.types import Utterance

_LOG = logging.getLogger(__name__)
_VERSION = "2"
_SPEAKER = re.compile(r"id\d{5}")
_DEPTH = 4  # of the release below the root: vox2/dev/aac, say
_WATCHED_FOLDERS = 1000


class ClipIndex:
    """All clips, ordered by speaker, video and clip.

    The paths are one memory-mapped array of bytes, which all processes of a machine share. Clip lengths are not in the
    index: reading them would take hours on a network disk.

    Args:
        folder: The folder of speakers.
        speakers: The speakers, sorted.
        first_clips: Position of each speaker's first clip, followed by the number of clips [S + 1].
        paths: Concatenated paths relative to ``folder``, in UTF-8.
        ends: End of each path in ``paths`` [N].
        digest: Digest of the clips' names, which are paths without extension.
    """

    def __init__(
        self,
        folder: Path,
        speakers: tuple[str, ...],
        first_clips: NDArray[np.int64],
        paths: NDArray[np.uint8],
        ends: NDArray[np.int64],
        digest: str,
    ) -> None:
        self.folder = folder
        self.speakers = speakers
        self.first_clips = first_clips
        self.paths = paths
        self.ends = ends
        self.digest = digest

    def __len__(self) -> int:
        """Return N."""
        return len(self.ends)

    def relative_path(self, clip: int) -> str:
        """Return ``<speaker>/<video>/<clip>.<extension>``."""
        start = int(self.ends[clip - 1]) if clip else 0
        return self.paths[start : int(self.ends[clip])].tobytes().decode()

    def path(self, clip: int) -> Path:
        """Return the path of a clip."""
        return self.folder / self.relative_path(clip)

    def speaker(self, clip: int) -> int:
        """Return the speaker of a clip, as position in ``speakers``."""
        return int(np.searchsorted(self.first_clips, clip, side="right")) - 1

    def clips_of(self, speaker: int) -> range:
        """Return the clips of a speaker, given as position in ``speakers``."""
        return range(int(self.first_clips[speaker]), int(self.first_clips[speaker + 1]))

    def name(self, clip: int) -> str:
        """Return ``<speaker>/<video>/<clip>``."""
        return identity(self.relative_path(clip).rpartition(".")[0])

    def utterance(self, clip: int) -> Utterance:
        """Return a clip as an utterance, labelled with its speaker."""
        path, name = self.path(clip), self.name(clip)
        speaker = name.partition("/")[0]
        return Utterance(name=name, path=path, speaker=speaker, label=speaker)

    def find(self, names: Sequence[str]) -> list[int | None]:
        """Return the clip of each of ``names``, with or without extension; None if there is none."""
        position = {speaker: index for index, speaker in enumerate(self.speakers)}
        by_speaker: dict[str, dict[str, int]] = {}
        found: list[int | None] = []
        for name in names:
            speaker, _, file = name.partition("/")
            if speaker in position and speaker not in by_speaker:
                by_speaker[speaker] = {self.name(clip): clip for clip in self.clips_of(position[speaker])}
            stem = f"{speaker}/{file.partition('.')[0]}"
            found.append(by_speaker.get(speaker, {}).get(stem))
        return found


def find_release(root: Path) -> Path:
    """Return the folder of speakers: ``root``, or one below it, such as ``dev/aac``.

    Raises:
        CorpusError: If ``root`` is missing, or has no folder of speakers, or several.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise CorpusError(f"VoxCeleb2: the folder {root} {what}; set `root` to the folder of the speakers.")
    level = [root]
    for _ in range(_DEPTH):
        found, below = [], []
        for folder in level:
            subfolders = [e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")]
            if any(map(_SPEAKER.fullmatch, subfolders)):
                found.append(folder)
            else:
                below += [folder / name for name in sorted(subfolders)]
        if len(found) > 1:
            raise CorpusError(
                f"VoxCeleb2: {root} has several folders of speakers: {', '.join(map(str, found))}. Set `root` to one "
                "of them; the release's training set is dev."
            )
        if found:
            return found[0]
        level = below
    raise CorpusError(
        f"VoxCeleb2: {root} has no folder of a speaker, such as id00012, in it or below; set `root` to the folder of "
        "the speakers, dev/aac in the release."
    )


def open_index(root: Path, cache: Path, progress: bool = True) -> tuple[ClipIndex, bool]:
    """Return the index of the clips below ``root``, from ``cache`` if it is up to date.

    It is rebuilt if the ctime of the speakers' folders, or of ``_WATCHED_FOLDERS`` video folders, has changed, which
    tar and rsync cannot set back. Changes to a few clips can go unnoticed; delete the file, whose name is logged, to
    rebuild the index. Of several processes one builds it and the others wait.

    Args:
        root: The corpus folder.
        cache: Folder for the index.
        progress: Show a progress bar.

    Returns:
        The index, and whether it was built now.

    Raises:
        CorpusError: If there is no readable clip.
    """
    folder = find_release(root)
    file = cache / "index.safetensors"
    if index := _read(file, folder):
        return index, False
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        if index := _read(file, folder):
            return index, False
        write_atomically(file, _build(folder, progress))
    index = _read(file, folder)
    if index is None:
        raise CorpusError(f"VoxCeleb2: {folder} changed while it was read; run again when writing has finished.")
    _LOG.info("%s: %d clips of %d speakers; index in %s", folder, len(index), len(index.speakers), file)
    return index, True


def _build(folder: Path, progress: bool) -> bytes:
    paths, ends, first_clips = bytearray(), array("q"), array("q")
    speakers: list[str] = []
    unread: Counter[str] = Counter()
    unused = sorted(e.name for e in os.scandir(folder) if _is_unused(e, _SPEAKER.fullmatch(e.name) and e.is_dir()))
    digest = hashlib.sha256()
    names = sorted(e.name for e in os.scandir(folder) if _SPEAKER.fullmatch(e.name) and e.is_dir())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[files]}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not progress)
    with bar:
        task = bar.add_task("looking for clips: speakers", total=len(names), files="")
        for name in names:
            first = len(ends)
            for path in _clips_of(folder, name, unread, unused):
                paths += path.encode()
                digest.update(path.rpartition(".")[0].encode() + b"\n")
                ends.append(len(paths))
            if len(ends) > first:
                speakers.append(name)
                first_clips.append(first)
            else:
                unused.append(name)
            elapsed = bar.tasks[task].elapsed
            bar.update(
                task, advance=1, files=f"{len(ends)} files, {len(ends) / elapsed:.0f} files/s" if elapsed else ""
            )
    _report_unread(folder, unread, len(ends))
    if unused:
        _LOG.warning(
            "VoxCeleb2: %d folders or files in %s are not used, because they are not <speaker>/<video>/<clip> or hold "
            "no clip: %s",
            *(len(unused), folder, first_few(unused)),
        )
    first_clips.append(len(ends))
    index = ClipIndex(
        folder,
        tuple(speakers),
        np.frombuffer(first_clips, np.int64),
        np.frombuffer(paths, np.uint8),
        np.frombuffer(ends, np.int64),
        digest.hexdigest()[:12],
    )
    metadata = {"version": _VERSION, "times": _times(index), "digest": index.digest, "speakers": "\n".join(speakers)}
    tensors: dict[str, NDArray[Any]] = {"paths": index.paths, "ends": index.ends, "first_clips": index.first_clips}
    return save({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}, metadata)


def _is_unused(entry: os.DirEntry[str], has_its_place: object) -> bool:
    """Whether a folder or an audio file is where the release has none."""
    is_audio = os.path.splitext(entry.name)[1].lower() in AUDIO_ENDINGS
    return not (has_its_place or entry.name.startswith(".")) and (is_audio or entry.is_dir())


def _clips_of(folder: Path, speaker: str, unread: Counter[str], unused: list[str]) -> Iterator[str]:
    """Yield the clips of a speaker in order, each once.

    Args:
        folder: The folder of speakers.
        speaker: The speaker.
        unread: Counts unsupported clips by extension.
        unused: Gets folders and audio files in other places.
    """
    entries = list(os.scandir(folder / speaker))
    unused += sorted(f"{speaker}/{e.name}" for e in entries if _is_unused(e, e.is_dir()))
    for video in sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")):
        best: dict[str, str] = {}
        others: dict[str, str] = {}
        for entry in os.scandir(folder / speaker / video):
            stem, ending = os.path.splitext(entry.name)
            if entry.name.startswith("."):
                continue
            if ending.lower() not in AUDIO_ENDINGS:
                if entry.is_dir():
                    unused.append(f"{speaker}/{video}/{entry.name}")
                    continue
                others[stem] = ending.lower()
            elif stem not in best or _rank(ending) < _rank(best[stem]):
                best[stem] = ending
        unread.update(ending for stem, ending in others.items() if stem not in best)
        yield from (f"{speaker}/{video}/{stem}{best[stem]}" for stem in sorted(best))


def _rank(ending: str) -> int:
    return AUDIO_ENDINGS.index(ending.lower())


def _report_unread(folder: Path, unread: Counter[str], found: int) -> None:
    """Reject a tree without readable clips, and warn of unsupported ones."""
    convert = (
        f"find {shlex.quote(str(folder))} -name '*.m4a' -print0 | xargs -0 -P 8 -I FILE sh -c "
        '\'ffmpeg -nostdin -v error -n -i "$1" -ac 1 -ar 16000 "${1%.m4a}.flac"\' sh FILE'
    )
    if unread[".m4a"]:
        message = (
            f"VoxCeleb2: {folder} has {unread['.m4a']} clips as .m4a, which libsndfile does not read, and {found} "
            f"readable clips ({' '.join(AUDIO_ENDINGS)}). Convert them: {convert}"
        )
        if not found:
            raise CorpusError(message)
        _LOG.warning(message)
    if not found:
        raise CorpusError(
            f"VoxCeleb2: {folder} has folders of speakers, but no clip <speaker>/<video>/<clip> with the extension "
            f"{' '.join(AUDIO_ENDINGS)}; unpack the release again."
        )


def _times(index: ClipIndex) -> str:
    """Return a digest of the change times (ctime) of the speakers' folders and some video folders."""
    clips = np.unique(np.linspace(0, len(index) - 1, _WATCHED_FOLDERS).astype(np.int64))
    videos = dict.fromkeys(index.relative_path(int(clip)).rpartition("/")[0] for clip in clips)
    times = [(e.name, e.stat().st_ctime_ns) for e in os.scandir(index.folder) if _SPEAKER.fullmatch(e.name)]
    for video in videos:
        try:
            times.append((video, (index.folder / video).stat().st_ctime_ns))
        except OSError:
            times.append((video, -1))
    return hashlib.sha256(repr(sorted(times)).encode()).hexdigest()


def _read(file: Path, folder: Path) -> ClipIndex | None:
    """Return the index in ``file``, or None if it is missing or damaged, or ``folder`` has changed."""
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata()
            if metadata["version"] != _VERSION:
                return None
            index = ClipIndex(
                folder,
                tuple(metadata["speakers"].split("\n")),
                content.get_tensor("first_clips").numpy(),
                content.get_tensor("paths").numpy(),
                content.get_tensor("ends").numpy(),
                metadata["digest"],
            )
    except (FileNotFoundError, SafetensorError, KeyError, TypeError):
        return None
    return index if _times(index) == metadata["times"] else None
