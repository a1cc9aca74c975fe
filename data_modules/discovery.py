"""Finding a corpus's audio under a folder, and saying clearly what is there when the corpus is not."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ser_lightning.data.folders import files_below
from ser_lightning.errors import CorpusError
from ser_lightning.types import Utterance

AUDIO_ENDINGS = (".wav", ".flac", ".ogg")
"""What is read, the preferred ending first, should an utterance lie there in several."""

_FOREIGN_ENDINGS = (".mp3", ".m4a", ".aac", ".wma", ".mp4", ".flv", ".avi", ".zip", ".tar", ".gz")

SHAPES = {
    "ravdess": re.compile(r"\d+(-\d+){6}"),
    "crema_d": re.compile(r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}"),
    "iemocap": re.compile(r"Ses\d\d[FM]_(impro|script)\w+"),
}
"""The shape of the file names, without ending, of each corpus whose names tell it apart; by module of this package."""


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
        CorpusError: If ``root`` is missing or no folder, or no audio is below it.
    """
    if not root.exists():
        raise CorpusError(f"{corpus}: the folder {root} does not exist; set `root` to the folder that holds the audio.")
    if not root.is_dir():
        raise CorpusError(f"{corpus}: {root} is a file; set `root` to the folder that holds the audio.")
    files = [path for path in files_below(root) if not path.name.startswith(".")]
    audio = [path for path in files if path.suffix.lower() in AUDIO_ENDINGS]
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
        CorpusError: If ``root`` is missing or no folder, or no audio is below it.
    """
    audio = list_audio(root, corpus)

    def rank(path: Path) -> tuple[int, int, str]:
        relative = path.relative_to(root)
        return len(relative.parts), AUDIO_ENDINGS.index(path.suffix.lower()), relative.as_posix()

    first: dict[str, Path] = {}
    for path in sorted(audio, key=rank):
        first.setdefault(path.stem, path)
    return dict(sorted(first.items()))


def refuse_foreign_names(root: Path, corpus: str, module: str, example: str, audio: Mapping[str, Path]) -> None:
    """Check that every name has the corpus's shape.

    Args:
        root: The corpus folder.
        corpus: The corpus as its readers call it.
        module: Key of the corpus in `SHAPES`.
        example: A file name of the corpus, for the message.
        audio: Files by name, as `find_audio` returns them.

    Raises:
        CorpusError: If some names or all have another shape; says which, and which corpus they look like.
    """
    foreign = [path for name, path in audio.items() if not SHAPES[module].fullmatch(name)]
    if not foreign:
        return
    known = Counter(other for path in foreign if (other := _corpus_of(path)))
    advice = f" They look like another corpus: use the data module of `data_modules.{min(known)}`." if known else ""
    if len(foreign) == len(audio):
        raise CorpusError(
            f"{corpus}: none of the {len(audio)} audio files in {root} is named as in {corpus} ({example}); one of "
            f"them is {foreign[0].relative_to(root)}." + (advice or f" Set `root` to the folder of {corpus}.")
        )
    shown = ", ".join(str(path.relative_to(root)) for path in foreign[:5])
    more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
    raise CorpusError(
        f"{corpus}: {len(foreign)} of the {len(audio)} audio files in {root} are not named as in {corpus} ({example}): "
        f"{shown}{more}.{advice} Move them out of the folder, or set `root` to a folder of {corpus} alone."
    )


def bad_field(path: Path, field: str, value: str, known: Iterable[str]) -> CorpusError:
    """Return the error for a file name with the right shape and a value that its corpus does not know."""
    return CorpusError(
        f"{path}: the {field} {value!r} in the file name is unknown; known are {', '.join(known)}. Mend the name, or "
        "move the file out of the corpus folder."
    )


def _corpus_of(path: Path) -> str | None:
    return next((corpus for corpus, shape in SHAPES.items() if shape.fullmatch(path.stem)), None)


def _instead(files: Iterable[Path]) -> str:
    counts = Counter(ending for path in files if (ending := path.suffix.lower()) in _FOREIGN_ENDINGS)
    if not counts:
        return "Set `root` to the folder that holds the audio."
    there = ", ".join(f"{count} {ending}" for ending, count in counts.most_common())
    return f"It holds {there}: unpack archives, and convert other formats (`ffmpeg -i IN -ar 16000 -ac 1 OUT.wav`)."
