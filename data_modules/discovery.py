"""Finding a corpus's audio under a folder, and saying clearly what is there when the corpus is not."""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ser_lightning.data.corpora import name_shapes
from ser_lightning.data.synthetic import is_synthetic
from ser_lightning.errors import CorpusError
from ser_lightning.files import files_below
from ser_lightning.types import Utterance

AUDIO_ENDINGS = (".wav", ".flac", ".ogg")
"""What is read, the preferred ending first, should an utterance lie there in several."""

_UNREAD_ENDINGS = (".mp3", ".m4a", ".aac", ".wma", ".opus", ".oga", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
_FOREIGN_ENDINGS = (*_UNREAD_ENDINGS, ".mp4", ".flv", ".avi", ".zip", ".tar", ".gz")
_CONVERSION = "`ffmpeg -i IN -ar 16000 -ac 1 OUT.wav`"

Parsed = TypeVar("Parsed")


class CorpusWarning(UserWarning):
    """A corpus folder holds less than it should, or what is not read; the rest of it is used."""


@dataclass(frozen=True, slots=True)
class Found:
    """The utterances of a corpus folder.

    Attributes:
        utterances: Ordered by name; each name occurs once.
        left_out: Reason by utterance name: what is known to be faulty in the release, or has no audio, and is not used.
    """

    utterances: tuple[Utterance, ...]
    left_out: Mapping[str, str]


def list_audio(root: Path, corpus: str) -> list[Path]:
    """Return the audio files below ``root``, folder by folder in alphabetical order.

    Hidden files and folders, macOS's ``._*`` among them, are passed over; links to folders are followed, each real
    folder once.

    Args:
        root: The corpus folder.
        corpus: The corpus as its readers call it, for messages.

    Raises:
        CorpusError: If ``root`` is missing or no folder, if no audio is below it, if a folder there cannot be read, or
            if a name is no UTF-8, which tables and logs cannot hold.
    """
    if not root.exists():
        raise CorpusError(f"{corpus}: the folder {root} does not exist; set `root` to the folder that holds the audio.")
    if not root.is_dir():
        raise CorpusError(f"{corpus}: {root} is a file; set `root` to the folder that holds the audio.")
    files = [path for path in files_below(root) if not path.name.startswith(".")]
    audio = [path for path in files if path.suffix.lower() in AUDIO_ENDINGS]
    if unspeakable := [path for path in audio if not _is_utf8(path)]:
        shown = os.fsencode(unspeakable[0]).decode("utf-8", "backslashreplace")
        raise CorpusError(
            f"{corpus}: the paths of {len(unspeakable)} of {len(audio)} audio files are no UTF-8, such as {shown}; "
            "rename what is not, such as by `convmv -r -f latin1 -t utf8 --notest FOLDER`."
        )
    if not audio:
        raise CorpusError(f"{corpus}: {root} holds no audio file ({' '.join(AUDIO_ENDINGS)}). {_instead(files)}")
    return audio


def find_audio(root: Path, corpus: str) -> dict[str, Path]:
    """Return the audio files below ``root`` by name without ending, ordered by name.

    A name counts once: the shallowest file is taken, then the preferred ending, then the first path.

    Args:
        root: The corpus folder.
        corpus: The corpus as its readers call it, for messages.

    Raises:
        CorpusError: As ``list_audio``.
    """
    audio = list_audio(root, corpus)

    def rank(path: Path) -> tuple[int, int, str]:
        relative = path.relative_to(root)
        return len(relative.parts), AUDIO_ENDINGS.index(path.suffix.lower()), relative.as_posix()

    first: dict[str, Path] = {}
    for path in sorted(audio, key=rank):
        first.setdefault(path.stem, path)
    return dict(sorted(first.items()))


def check_names(
    root: Path, corpus: str, shape: re.Pattern[str], example: str, audio: Mapping[str, Path]
) -> None:
    """Check that every name has the corpus's shape.

    Args:
        root: The corpus folder.
        corpus: The corpus as its readers call it.
        shape: What every file name of the corpus looks like, without ending.
        example: A file name of the corpus, for the message.
        audio: Files by name, as `find_audio` returns them.

    Raises:
        CorpusError: If some names or all have another shape; says which, and which corpus they look like.
    """
    foreign = [path for name, path in audio.items() if not shape.fullmatch(name)]
    if not foreign:
        return
    shapes = name_shapes()
    looks_like = (next((module for module in shapes if shapes[module].fullmatch(path.stem)), None) for path in foreign)
    ((other, count),) = Counter(looks_like).most_common(1)
    advice = ""
    if other and count > len(audio) / 2:
        advice = f" They look like another corpus: use the data module of `{other}`."
    if len(foreign) == len(audio):
        raise CorpusError(
            f"{corpus}: none of the {len(audio)} audio files in {root} is named as in {corpus} ({example}); one of "
            f"them is {foreign[0].relative_to(root)}." + (advice or f" Set `root` to the folder of {corpus}.")
        )
    is_named, them = ("is", "it") if len(foreign) == 1 else ("are", "them")
    raise CorpusError(
        f"{corpus}: {len(foreign)} of the {len(audio)} audio files in {root} {is_named} not named as in {corpus} "
        f"({example}): {first_few([str(path.relative_to(root)) for path in foreign])}.{advice} Move {them} out of the "
        f"folder, or set `root` to a folder of {corpus} alone."
    )


def parse_names(parse: Callable[[Path], Parsed], paths: Iterable[Path]) -> list[Parsed]:
    """Return what ``parse`` makes of each file's name.

    Raises:
        CorpusError: If some names cannot be understood; names up to ten of them at once.
    """
    parsed, problems = list[Parsed](), list[str]()
    for path in paths:
        try:
            parsed.append(parse(path))
        except CorpusError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise CorpusError(problems[0])
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        lines = "\n".join(f"  {problem}" for problem in problems[:10])
        raise CorpusError(f"{len(problems)} file names cannot be understood:\n{lines}{more}")
    return parsed


def warn_if_incomplete(
    root: Path, corpus: str, utterances: Sequence[Utterance], actors: Sequence[str], whole: int
) -> None:
    """Warn of a copy that has all actors, so that every protocol takes it, but not all of the release's clips.

    Args:
        root: The corpus folder; of a synthetic corpus nothing is said.
        corpus: The corpus as its readers call it.
        utterances: What was found and can be used.
        actors: Every actor of the release.
        whole: How many usable clips the release has.
    """
    counts = Counter(u.speaker for u in utterances)
    if len(utterances) >= whole or set(counts) != set(actors) or is_synthetic(root):
        return
    each = math.ceil(whole / len(actors))
    few = sorted((count, actor) for actor, count in counts.items() if count < each)
    warnings.warn(
        f"{corpus}: {root} holds all {len(actors)} actors, but {len(utterances)} of the {whole} clips of the release "
        f"that can be used; fewest, of up to {each}, of actors {first_few([f'{actor} ({n})' for n, actor in few])}. Unless "
        "you have left them out on purpose, unpack the release again: results may not be comparable with others'.",
        CorpusWarning,
        stacklevel=3,
    )


def warn_of_unread(root: Path, corpus: str, name_of: Callable[[Path], str], found: Callable[[str], bool]) -> None:
    """Warn of utterances that lie below ``root`` only in a format that is not read.

    Args:
        root: The corpus folder.
        corpus: The corpus as its readers call it.
        name_of: What the utterance in a file would be called.
        found: Whether an utterance of that name was found, or is none of the corpus.
    """
    files = [path for path in files_below(root) if path.suffix.lower() in _UNREAD_ENDINGS and path.name[0] != "."]
    if unread := sorted({name: path for path in files if not found(name := name_of(path))}.items()):
        shown = first_few([f"{name} ({path.suffix})" for name, path in unread])
        lies, them = ("utterance lies", "it") if len(unread) == 1 else ("utterances lie", "them")
        warnings.warn(
            f"{corpus}: {len(unread)} {lies} in {root} only in a format that is not read: {shown}. Convert {them} to "
            f"use {them}: {_CONVERSION}.",
            CorpusWarning,
            stacklevel=3,
        )


def bad_field(path: Path, field: str, value: str, known: Iterable[str]) -> CorpusError:
    """Return the error for a file name with the right shape and a value that its corpus does not know."""
    return CorpusError(
        f"{path}: the {field} {value!r} in the file name is unknown; known are {', '.join(known)}. Mend the name, or "
        "move the file out of the corpus folder."
    )


def _instead(files: Iterable[Path]) -> str:
    counts = Counter(ending for path in files if (ending := path.suffix.lower()) in _FOREIGN_ENDINGS)
    if not counts:
        return "Set `root` to the folder that holds the audio."
    there = ", ".join(f"{count} {ending}" for ending, count in counts.most_common())
    return f"It holds {there}: unpack archives, and convert other formats ({_CONVERSION})."


def _is_utf8(path: Path) -> bool:
    try:
        return bool(os.fspath(path).encode())
    except UnicodeEncodeError:
        return False


def first_few(values: Sequence[str]) -> str:
    """Return up to five of ``values`` for a message, and how many more there are."""
    return ", ".join(values[:5]) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
