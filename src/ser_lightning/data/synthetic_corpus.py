"""Write a synthetic corpus in the file layout of a real one."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from ser_lightning.data.synthetic import (
    MARKER,
    Gender,
    Voice,
    generator,
    is_synthetic,
    marker_content,
    synthesise,
    write_clip,
    write_marker,
)
from ser_lightning.errors import CorpusError
from ser_lightning.files import write_atomically
from ser_lightning.plain_files import read_json


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip to write.

    Attributes:
        file: Path relative to the corpus folder.
        speaker: The speaker.
        gender: Gender of the speaker.
        emotion: Key of `STYLES`.
        intensity: Intensity of the emotion; 1 is usual.
        sentence: Index of the sentence, 0 or more.
    """

    file: Path
    speaker: str
    gender: Gender
    emotion: str
    intensity: float
    sentence: int


def write_corpus(
    folder: Path,
    corpus: str,
    clips: Sequence[Sequence[Clip]],
    speakers: int,
    seed: int,
    clips_per_speaker: int | None = None,
    progress: bool = False,
    documents: Mapping[Path, bytes] | None = None,
) -> int:
    """Write the first ``speakers`` of a corpus, resuming an interrupted call.

    Args:
        folder: Target folder: empty, missing, or with (part of) the same synthetic corpus.
        corpus: Name of the corpus, for the marker.
        clips: All clips of each speaker.
        speakers: Number of speakers to write.
        seed: Seed of voices and clips.
        clips_per_speaker: Number of clips, balanced over emotions as far as possible; all if None.
        progress: Whether to show a progress bar.
        documents: Contents of other files, such as annotation, by path relative to the corpus folder.

    Returns:
        Number of clips written now.

    Raises:
        CorpusError: If a number is out of the corpus's range, or ``folder`` has other content.
    """
    if not 1 <= speakers <= len(clips):
        raise CorpusError(f"{speakers} speakers do not fit {corpus}; choose 1 to {len(clips)}.")
    most = min(map(len, clips))
    if clips_per_speaker is not None and not 1 <= clips_per_speaker <= most:
        raise CorpusError(f"{clips_per_speaker} clips per speaker do not fit {corpus}; choose 1 to {most}.")
    _check_folder(folder, marker_content(corpus, seed, speakers, clips_per_speaker))
    write_marker(folder, corpus, seed, speakers, clips_per_speaker)
    for file, content in (documents or {}).items():
        if not (folder / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / file, content)
    wanted = [clip for turn in range(speakers) for clip in _balanced(clips[turn], clips_per_speaker or most, turn)]
    missing = [clip for clip in wanted if not (folder / clip.file).exists()]
    for clip in track(missing, description=f"Speaking {corpus}", disable=not progress):
        voice = Voice.draw(clip.gender, generator(seed, corpus, clip.speaker))
        rng = generator(seed, corpus, clip.speaker, clip.file.stem)
        write_clip(folder / clip.file, synthesise(voice, clip.emotion, clip.intensity, clip.sentence, rng), 16000)
    return len(missing)


def _balanced(clips: Sequence[Clip], count: int, turn: int) -> list[Clip]:
    # Clips in rounds of one per emotion, in pseudo-random order. Speakers start with different emotions, to balance
    # them if the count is not a multiple of their number.
    by_emotion: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(clip.file.name.encode()).digest()):
        by_emotion[clip.emotion].append(clip)
    emotions = sorted(by_emotion)
    start = turn * count % len(emotions)
    emotions = emotions[start:] + emotions[:start]
    rounds = max(map(len, by_emotion.values()))
    dealt = [by_emotion[name][turn] for turn in range(rounds) for name in emotions if turn < len(by_emotion[name])]
    return dealt[:count]


def _check_folder(folder: Path, marker: dict[str, str | int | None]) -> None:
    if folder.exists() and not folder.is_dir():
        raise CorpusError(f"{folder} is a file; choose another folder for the synthetic corpus.")
    if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    if not is_synthetic(folder):
        raise CorpusError(f"{folder} is not empty and is not a synthetic corpus; choose another folder.")
    try:
        found = read_json(folder / MARKER)
    except ValueError as error:
        raise CorpusError(f"{folder / MARKER} cannot be read: {error}. Delete {folder}, or choose another.") from error
    if found != marker:
        raise CorpusError(
            f"{folder} is another synthetic corpus: {json.dumps(found)}, not {json.dumps(marker)}. Choose another "
            "folder, or delete this one."
        )
