"""The tables of CREMA-D's release: the listeners' votes, and the actors' sex and age."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ser_lightning.data.synthetic import generator
from ser_lightning.data.synthetic_corpus import Clip
from ser_lightning.errors import CorpusError
from ser_lightning.text import identity

EMOTION_LETTERS = {"A": "angry", "D": "disgust", "F": "fearful", "H": "happy", "N": "neutral", "S": "sad"}

DEMOGRAPHICS = Path("VideoDemographics.csv")
VOTES = Path("processedResults", "tabulatedVotes.csv")
"""Places in the release; a copy of the file next to the clips' folder or in the root counts too."""

VOICE_ONLY, FACE_ONLY, BOTH = "123"
"""First digit of a row's number: what the listeners were given."""

DEMOGRAPHIC_COLUMNS = ("ActorID", "Age", "Sex", "Race", "Ethnicity")
VOTE_COLUMNS = ("", *EMOTION_LETTERS, "fileName", "numResponses")


@dataclass(frozen=True)
class Actor:
    """What the release says of an actor; None where it says nothing."""

    gender: Literal["female", "male"] | None
    age: int | None


Votes = tuple[tuple[str, ...], ...]


def find_table(table: Path, folders: Sequence[Path]) -> Path | None:
    """Return a table of the release from the first of ``folders`` that has it, or None."""
    places = (folder / name for folder in folders for name in dict.fromkeys((table, Path(table.name))))
    return next((place for place in places if place.is_file()), None)


def read_actors(path: Path) -> Mapping[str, Actor]:
    """Return sex and age by actor.

    Args:
        path: ``VideoDemographics.csv``.

    Raises:
        CorpusError: If the file cannot be read or lacks a column, or an age is not a number.
    """
    actors = {}
    for line, row in _rows(path, ("ActorID", "Sex", "Age"), "move it away: sex and age are optional"):
        match identity(row["Sex"]).lower():
            case "male":
                gender: Literal["female", "male"] | None = "male"
            case "female":
                gender = "female"
            case _:
                gender = None
        age = _number(path, line, row, "Age") if row["Age"].strip() else None
        actors[identity(row["ActorID"])] = Actor(gender, age)
    return actors


def read_votes(path: Path) -> Mapping[str, Votes]:
    """Return the emotion that each listener heard, by clip, for listeners who heard the voice alone.

    Args:
        path: ``tabulatedVotes.csv``: a row per clip and way of presentation, with a count per emotion.

    Raises:
        CorpusError: If the file cannot be read, lacks a column or the voices' rows, or has an invalid or duplicate row.
    """
    way_out = "choose labels: intended, which need no votes"
    votes: dict[str, Votes] = {}
    for line, row in _rows(path, VOTE_COLUMNS, way_out):
        if not row[""].strip().startswith(VOICE_ONLY):
            continue
        clip = identity(row["fileName"])
        counts = {emotion: _number(path, line, row, letter) for letter, emotion in EMOTION_LETTERS.items()}
        if clip in votes:
            raise CorpusError(f"{path}, line {line}: {clip} has votes twice; fetch the file again, or {way_out}.")
        if sum(counts.values()) != _number(path, line, row, "numResponses"):
            raise CorpusError(
                f"{path}, line {line}: numResponses is {row['numResponses']}, but the votes for {clip} are "
                f"{sum(counts.values())}; fetch the file again, or {way_out}."
            )
        votes[clip] = tuple((emotion,) for emotion, count in counts.items() for _ in range(count))
    if not votes:
        raise CorpusError(
            f"{path} has no votes of listeners who heard the voice alone (numbers 1xxxxx); fetch the file again, "
            f"or {way_out}."
        )
    return votes


def perceived(votes: Votes) -> str | None:
    """Return the emotion that most listeners heard, or None if several have equally many votes."""
    counts = {emotion: votes.count((emotion,)) for emotion in EMOTION_LETTERS.values()}
    most = max(counts.values())
    winners = [emotion for emotion, count in counts.items() if count == most]
    return winners[0] if len(winners) == 1 else None


def synthetic_tables(clips: Sequence[Clip], seed: int) -> dict[Path, bytes]:
    """Return the contents of both tables for synthetic clips, by path relative to the corpus folder.

    Each clip has 8 to 11 listeners; about half of them hear the intended emotion.
    """
    speakers = {clip.speaker: clip.gender for clip in clips}
    actors = [[int(actor), 20 + int(actor) % 50, gender.title(), "", ""] for actor, gender in speakers.items()]
    votes: list[list[object]] = []
    for way in (VOICE_ONLY, FACE_ONLY, BOTH):
        for number, clip in enumerate(clips, 1):
            rng = generator(seed, "crema_d", "votes", way, clip.file.stem)
            listeners = int(rng.integers(8, 12))
            shares = [0.5 * (emotion == clip.emotion) + 0.5 / 6 for emotion in EMOTION_LETTERS.values()]
            counts = rng.multinomial(listeners, shares).tolist()
            votes.append([f"{way}{number:05d}", *counts, clip.file.stem, listeners])
    return {DEMOGRAPHICS: _csv_bytes(DEMOGRAPHIC_COLUMNS, actors), VOTES: _csv_bytes(VOTE_COLUMNS, votes)}


def _csv_bytes(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()


def _rows(path: Path, columns: Sequence[str], otherwise: str) -> Iterator[tuple[int, dict[str, str]]]:
    way_out = f"fetch the file again (with git-lfs, if it holds a pointer), or {otherwise}."
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}); {way_out}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 text ({error.reason}); {way_out}") from error
    table = csv.DictReader(io.StringIO(text, newline=""), restval="")
    if missing := [column or "the rows' number" for column in columns if column not in (table.fieldnames or ())]:
        raise CorpusError(f"{path}: the column {', '.join(missing)} is missing; {way_out}")
    try:
        for row in table:
            yield table.line_num, row
    except csv.Error as error:
        raise CorpusError(f"{path}, line {table.line_num}: {error}; {way_out}") from error


def _number(path: Path, line: int, row: Mapping[str, str], column: str) -> int:
    value = row[column].strip()
    if not (value.isascii() and value.isdigit()):
        raise CorpusError(f"{path}, line {line}: {column} is {value!r}, not a whole number; fetch the file again.")
    return int(value)
