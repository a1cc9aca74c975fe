"""Find a corpus's audio in a folder, with clear errors if it is missing or different."""

import itertools
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ser_lightning.audio import AUDIO_ENDINGS, LOSSY_ENDINGS, UNREAD_ENDINGS
from ser_lightning.data.corpora import name_shapes
from ser_lightning.data.synthetic import is_synthetic
from ser_lightning.errors import CorpusError, CorpusWarning
from ser_lightning.files import files_below
from ser_lightning.text import differing_in_case, identity
from ser_lightning.types import Utterance

_FOREIGN_ENDINGS = (*UNREAD_ENDINGS, ".mp4", ".flv", ".avi", ".zip", ".tar", ".gz")
_CONVERSION = "`ffmpeg -i IN -ar 16000 -ac 1 OUT.wav`"

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Found:
    """The utterances of a corpus folder.

    Attributes:
        utterances: Ordered by name; each name occurs once.
        left_out: Reason by utterance name, for faulty files of the release and utterances without audio.
    """

    utterances: tuple[Utterance, ...]
    left_out: Mapping[str, str]


def list_audio(root: Path, corpus: str) -> list[Path]:
    """Return the audio files below ``root``, folder by folder in alphabetical order.

    Hidden files and folders, such as macOS's ``._*``, are skipped; links to folders are followed, each real folder
    once.

    Args:
        root: The corpus folder.
        corpus: Name of the corpus, for messages.

    Raises:
        CorpusError: If ``root`` is missing or not a folder, has no audio or an unreadable folder, or if a name is not
            UTF-8.
    """
    if not root.exists():
        raise CorpusError(
            f"{corpus}: the folder {root} does not exist; set `root` to the folder with the audio.{_looks_like(root)}"
        )
    if not root.is_dir():
        raise CorpusError(f"{corpus}: {root} is a file; set `root` to the folder with the audio.")
    files = [path for path in files_below(root) if not path.name.startswith(".")]
    audio = [path for path in files if path.suffix.lower() in AUDIO_ENDINGS]
    if undecodable := [path for path in audio if not _is_utf8(path)]:
        shown = os.fsencode(undecodable[0]).decode("utf-8", "backslashreplace")
        raise CorpusError(
            f"{corpus}: the paths of {len(undecodable)} of {len(audio)} audio files are not UTF-8, such as {shown}; "
            "rename them, for example by `convmv -r -f latin1 -t utf8 --notest FOLDER`."
        )
    if not audio:
        raise CorpusError(f"{corpus}: {root} has no audio file ({' '.join(AUDIO_ENDINGS)}). {_advice(files)}")
    return audio


def find_audio(root: Path, corpus: str) -> dict[str, Path]:
    """Return the audio files below ``root`` by name without extension, ordered by name.

    Of several files with one name, the shallowest is taken, then the preferred extension, then the first path. Files in
    a lossy format, such as CREMA-D's AudioMP3, are taken only if there are no others: results would depend on the
    mixture.

    Args:
        root: The corpus folder.
        corpus: Name of the corpus, for messages.

    Raises:
        CorpusError: As ``list_audio``.
    """
    audio = list_audio(root, corpus)
    if lossless := [path for path in audio if path.suffix.lower() not in LOSSY_ENDINGS]:
        audio = lossless

    def rank(path: Path) -> tuple[int, int, str]:
        relative = path.relative_to(root)
        return len(relative.parts), AUDIO_ENDINGS.index(path.suffix.lower()), relative.as_posix()

    first: dict[str, Path] = {}
    for path in sorted(audio, key=rank):
        first.setdefault(identity(path.stem), path)
    return dict(sorted(first.items()))


def check_names(root: Path, corpus: str, shape: re.Pattern[str], example: str, audio: Mapping[str, Path]) -> None:
    """Check that every name matches the corpus's pattern.

    Args:
        root: The corpus folder.
        corpus: Name of the corpus.
        shape: Pattern of the corpus's file names, without extension.
        example: A file name of the corpus, for the message.
        audio: Files by name, as `find_audio` returns them.

    Raises:
        CorpusError: If some or all names do not match; it names them and the corpus that they match.
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
            f"{corpus}: none of the {len(audio)} audio files in {root} is named as in {corpus} ({example}), for "
            f"example {foreign[0].relative_to(root)}." + (advice or f" Set `root` to the folder of {corpus}.")
        )
    is_named, them = ("is", "it") if len(foreign) == 1 else ("are", "them")
    raise CorpusError(
        f"{corpus}: {len(foreign)} of the {len(audio)} audio files in {root} {is_named} not named as in {corpus} "
        f"({example}): {first_few([str(path.relative_to(root)) for path in foreign])}.{advice} Move {them} out of the "
        f"folder, or set `root` to a folder with {corpus} only."
    )


def check_spelling(where: str, utterances: Sequence[Utterance]) -> None:
    """Check that no speaker, label or session is empty, or written in two ways that differ only in letter case.

    Other differences that cannot be seen, such as those of Unicode's forms, do not make two names: see
    ``text.identity``.

    Args:
        where: The corpus or its table, for messages.
        utterances: Every utterance.

    Raises:
        CorpusError: Naming the spellings, and how many utterances have each.
    """
    names_of: dict[str, Callable[[Utterance], Iterable[str | None]]] = {
        "speaker": lambda u: (u.speaker,),
        "label": lambda u: (u.label, *itertools.chain.from_iterable(u.votes)),
        "session": lambda u: (u.session,),
    }
    for what, names in names_of.items():
        counts = Counter(name for u in utterances for name in names(u) if name is not None)
        if "" in counts:
            empty = [u.name for u in utterances if "" in names(u)]
            raise CorpusError(f"{where}: the {what} of {first_few(empty)} is empty; name it.")
        if groups := differing_in_case(counts):
            shown = " and ".join(f"{name!r} ({counts[name]})" for name in groups[0])
            raise CorpusError(
                f"{where}: {what}s differ only in letter case: {shown}. Write one {what} in one way, and give two "
                "different names."
            )


def parse_names(parse: Callable[[Path], Parsed], paths: Iterable[Path]) -> list[Parsed]:
    """Return the result of ``parse`` for each path.

    Raises:
        CorpusError: If names are invalid; it lists up to ten.
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
        raise CorpusError(f"{len(problems)} file names are invalid:\n{lines}{more}")
    return parsed


def warn_if_incomplete(
    root: Path, corpus: str, utterances: Sequence[Utterance], actors: Sequence[str], whole: int
) -> None:
    """Warn if a copy has all actors, so that every protocol accepts it, but not all of the release's clips.

    Args:
        root: The corpus folder; synthetic corpora are not checked.
        corpus: Name of the corpus.
        utterances: The usable utterances.
        actors: Every actor of the release.
        whole: Number of usable clips of the release.
    """
    counts = Counter(u.speaker for u in utterances)
    if len(utterances) >= whole or set(counts) != set(actors) or is_synthetic(root):
        return
    each = math.ceil(whole / len(actors))
    few = sorted((count, actor) for actor, count in counts.items() if count < each)
    warnings.warn(
        f"{corpus}: {root} has all {len(actors)} actors, but only {len(utterances)} of the release's {whole} usable "
        f"clips; fewest, of up to {each}, of actors {first_few([f'{actor} ({n})' for n, actor in few])}. Unless you "
        "removed them on purpose, unpack the release again: results may not be comparable.",
        CorpusWarning,
        stacklevel=3,
    )


def warn_of_unread(root: Path, corpus: str, name_of: Callable[[Path], str], found: Callable[[str], bool]) -> None:
    """Warn of utterances below ``root`` that are only in a lossy or unsupported format, and not used.

    Args:
        root: The corpus folder.
        corpus: Name of the corpus.
        name_of: Returns the utterance name of a file.
        found: Whether an utterance of that name was found, or does not belong to the corpus.
    """
    endings = (*LOSSY_ENDINGS, *UNREAD_ENDINGS)
    files = [path for path in files_below(root) if path.suffix.lower() in endings and path.name[0] != "."]
    if unread := sorted({name: path for path in files if not found(name := name_of(path))}.items()):
        shown = first_few([f"{name} ({path.suffix})" for name, path in unread])
        are, them = ("utterance is", "it") if len(unread) == 1 else ("utterances are", "them")
        warnings.warn(
            f"{corpus}: {len(unread)} {are} in {root} only in a lossy or unsupported format: {shown}. Convert {them} "
            f"to use {them}: {_CONVERSION}.",
            CorpusWarning,
            stacklevel=3,
        )


def bad_field(path: Path, field: str, value: str, known: Iterable[str]) -> CorpusError:
    """Return the error for a file name with an unknown value."""
    return CorpusError(
        f"{path}: the {field} {value!r} in the file name is unknown; known are {', '.join(known)}. Fix the name, or "
        "move the file out of the corpus folder."
    )


def _looks_like(path: Path) -> str:
    """Return the name next to a missing ``path`` that looks the same, such as that in another form of Unicode."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    same = [ascii(name) for name in names if identity(name) == identity(path.name)]
    return f" {path.name!a} was given, and {same[0]} is there: rename it, or paste its name." if same else ""


def _advice(files: Iterable[Path]) -> str:
    counts = Counter(ending for path in files if (ending := path.suffix.lower()) in _FOREIGN_ENDINGS)
    if not counts:
        return "Set `root` to the folder with the audio."
    found = ", ".join(f"{count} {ending}" for ending, count in counts.most_common())
    return f"It has {found}: unpack archives, and convert other formats ({_CONVERSION})."


def _is_utf8(path: Path) -> bool:
    try:
        return bool(os.fspath(path).encode())
    except UnicodeEncodeError:
        return False


def first_few(values: Sequence[str]) -> str:
    """Return up to five of ``values`` for a message, and the number of others."""
    return ", ".join(values[:5]) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
