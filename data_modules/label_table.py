"""The table of labels of your own recordings: strict CSV, checked cell by cell."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from data_modules.discovery import first_few
from ser_lightning.data.synthetic import Gender
from ser_lightning.errors import CorpusError
from ser_lightning.text import identity
from ser_lightning.types import Utterance

REQUIRED = ("path", "speaker", "label")
OPTIONAL = ("gender", "session", "split")

MAX_GROUPS = 20
"""Different cells of a further column by which utterances are grouped; transcripts and file dates have more."""

# Columns that make a row a part of a file, such as start, end_time, segment_onset and stop_sec.
_SEGMENT = re.compile(
    r"(seg(ment)?[_ ]?)?(start|begin|onset|end|stop|offset)([_ ]?(time|s|sec|secs|seconds|ms|samples?))*"
)


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Content of a table of labels.

    Attributes:
        utterances: The recordings, in the table's order.
        problems: Faulty rows, each with its line.
        unread: Columns that are not read: their cells are all equal, or of more than ``MAX_GROUPS`` kinds.
    """

    utterances: list[Utterance]
    problems: list[str]
    unread: tuple[str, ...]


def read_label_table(root: Path, table: Path) -> LabelTable:
    """Read a table of labels: UTF-8, separated by commas, with the columns ``REQUIRED`` and any of ``OPTIONAL``.

    Further columns, such as ``language``, group utterances in reports.

    Args:
        root: The folder of recordings; paths are relative to it, in any Unicode form.
        table: The table.

    Raises:
        CorpusError: If it cannot be read, a column is missing or occurs twice, columns make rows parts of files, or a
            quotation mark is not closed; it names file, line and column.
    """
    records = _records(table)
    _, header = next(records, (1, []))
    columns = [identity(name).casefold() for name in header]
    _check_columns(table, columns)
    utterances: list[Utterance] = []
    others = [name for name in columns if name and name not in (*REQUIRED, *OPTIONAL)]
    further: list[dict[str, str]] = []  # the other cells of each utterance
    problems: list[str] = []
    files = _Files(root)
    for line, cells in records:
        if not any(map(str.strip, cells)):
            continue
        fault: Utterance | str
        if len(cells) != len(columns):
            more = "; quote what holds a comma" if len(cells) > len(columns) else ""
            fault = f"{len(cells)} field{'s' * (len(cells) > 1)}, the first line names {len(columns)}{more}"
        elif unnamed := [cell for column, cell in zip(columns, cells, strict=True) if not column and cell.strip()]:
            fault = f"{unnamed[0]!r} is in a column without a name; the first line names every column"
        else:
            fault = _utterance(root, files, dict(zip(columns, cells, strict=True)))
        if isinstance(fault, Utterance):
            utterances.append(fault)
            if others:
                row = dict(zip(columns, cells, strict=True))
                further.append({name: identity(row[name]) for name in others})
        else:
            problems.append(f"line {line}: {fault}")
    grouping = [name for name in others if 1 < len({row[name] for row in further}) <= MAX_GROUPS]
    shared: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}  # one object for all equal rows
    for index, row in enumerate(further if grouping else []):
        groups = tuple((name, row[name]) for name in grouping if row[name])
        utterances[index] = replace(utterances[index], columns=shared.setdefault(groups, groups))
    return LabelTable(utterances, problems, tuple(name for name in others if name not in grouping))


def _records(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line where it begins; blank lines have no cells."""
    first = 1
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                yield first, cells
                first = reader.line_num + 1
    except OSError as error:
        raise CorpusError(f"{table} cannot be read ({error.strerror}); set `labels` to a table of labels.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{table} is not UTF-8 text ({error.reason}); save it as CSV in UTF-8.") from error
    except csv.Error as error:
        # The end of the text, a character after the closing mark, or a field of more than 128 KiB.
        raise CorpusError(
            f"{table}, line {first}: a quotation mark is not closed, or is inside a field ({error}); close it, or "
            'write "" for one inside a quoted field.'
        ) from error


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    shown = ",".join(columns) or "empty"
    if missing := [column for column in REQUIRED if column not in columns]:
        separated = " Separate columns by commas." if len(columns) == 1 and columns[0] not in REQUIRED else ""
        raise CorpusError(
            f"{table}: the column {', '.join(missing)} is missing; its first line is {shown}. Required are "
            f"{', '.join(REQUIRED)}, in any order; {', '.join(OPTIONAL)} are optional.{separated}"
        )
    if twice := [column for column, count in Counter(columns).items() if column and count > 1]:
        raise CorpusError(f"{table}, line 1: the column {', '.join(twice)} occurs twice in {shown}; keep one of them.")
    if parts := [column for column in columns if _SEGMENT.fullmatch(column)]:
        raise CorpusError(
            f"{table}, line 1: the column {', '.join(parts)} makes rows parts of files, which are not read. Cut the "
            "parts into files, such as by `ffmpeg -ss START -to END -i IN OUT.wav`, list those, and remove the column."
        )


def _utterance(root: Path, files: "_Files", cells: Mapping[str, str]) -> Utterance | str:
    """Return the utterance of a row of the table, or the row's fault."""
    known = {column: cells[column] for column in (*REQUIRED, *OPTIONAL) if column in cells}
    if broken := [column for column, cell in known.items() if len(cell.strip().splitlines()) > 1]:
        return f"the {broken[0]} has a line break; most likely a quotation mark is not closed"
    row = {column: identity(cell) for column, cell in known.items()}
    if empty := [column for column in REQUIRED if not row[column]]:
        return f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty"
    relative = PurePosixPath(known["path"].strip())
    if relative.is_absolute() or ".." in relative.parts:
        return f"the path {relative} is not below {root}; write it relative to that folder"
    path = files.find(relative)
    if isinstance(path, str):
        return path
    gender: Gender | None
    match row.get("gender", "").lower():
        case "female":
            gender = "female"
        case "male":
            gender = "male"
        case "":
            gender = None
        case _:
            return f"the gender {row['gender']!r} is unknown; write female, male or nothing"
    return Utterance(
        name=relative.with_suffix("").as_posix(),
        path=path,
        speaker=row["speaker"],
        label=row["label"],
        gender=gender,
        session=row.get("session") or None,
        listed_set=row.get("split") or None,
    )


class _Files:
    """The files below a folder by path, whatever form of Unicode a path is written in.

    File names keep the form that they were made with (macOS: decomposed), and a table has that of its editor.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: dict[Path, dict[str, list[str]]] = {}

    def find(self, relative: PurePosixPath) -> Path | str:
        """Return the file, or why there is none."""
        path = self._root / relative
        if os.path.isfile(path):  # unlike Path's, never an error
            return path
        found = self._root
        for part in relative.parts:
            same = self._names(found).get(identity(part), [])
            if os.path.exists(found / part):
                found = found / part
            elif len(same) == 1:
                found = found / same[0]
            elif same:
                return f"{path} may be any of {first_few(list(map(ascii, same)))}; rename all but one"
            else:
                return f"there is no file {path}{self._hint(found, part)}"
        return found if os.path.isfile(found) else f"there is no file {path}"

    def _names(self, folder: Path) -> dict[str, list[str]]:
        """Return the names in a folder by ``identity``."""
        if folder not in self._entries:
            names: dict[str, list[str]] = {}
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                names.setdefault(identity(name), []).append(name)
            self._entries[folder] = names
        return self._entries[folder]

    def _hint(self, folder: Path, part: str) -> str:
        wanted = identity(part).casefold()
        similar = [name for name in self._names(folder) if name.casefold() == wanted]
        return f"; {folder} has {similar[0]}, which differs in letter case" if similar else ""
