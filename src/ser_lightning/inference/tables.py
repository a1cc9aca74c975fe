"""Write results as a text table, CSV or JSON, line by line."""

import csv
import json
from collections.abc import Sequence
from typing import Literal, Protocol, TextIO

from ser_lightning.inference.classification import Classified, Unusable
from ser_lightning.text import to_cell

Format = Literal["table", "csv", "json"]
Result = Classified | Unusable

_WIDEST_FILE = 60


class Writer(Protocol):
    """Writes results one by one."""

    def write(self, result: Result) -> None:
        """Write one result."""

    def end(self) -> None:
        """Write the end of the output."""


class TableWriter:
    """Text columns: file, emotion, its probability, duration; or one line per window.

    Unusable files are skipped: the caller reports them on standard error.

    Args:
        stream: Where to write.
        class_names: The emotions.
        by_window: Whether to write one line per window.
        file_width: Characters of the longest file name.
    """

    def __init__(self, stream: TextIO, class_names: Sequence[str], by_window: bool, file_width: int) -> None:
        self._stream = stream
        self._class_names = list(class_names)
        self._by_window = by_window
        self._file_width = min(_WIDEST_FILE, max(len("file"), file_width))
        self._emotion_width = max(len("emotion"), *map(len, class_names))
        self._headed = False

    def write(self, result: Result) -> None:
        """Write the lines of one file, after the header if it is the first."""
        if isinstance(result, Unusable):
            return
        if not self._headed:
            last = "from s     to s" if self._by_window else "duration"
            self._line("file", "emotion", "probability", last)
            self._headed = True
        name = str(result.path)
        if not self._by_window:
            self._line(name, result.emotion, self._share(result.emotion, result.probabilities), _duration(result))
            return
        for decision in result.decisions:
            share = self._share(decision.emotion, decision.probabilities)
            self._line(
                name, decision.emotion or "-", share, f"{decision.start_seconds:6.2f} {decision.end_seconds:8.2f}"
            )

    def end(self) -> None:
        """Write nothing."""

    def _share(self, emotion: str | None, probabilities: Sequence[float]) -> str:
        return "silence" if emotion is None else f"{100 * probabilities[self._class_names.index(emotion)]:.1f}%"

    def _line(self, file: str, emotion: str, probability: str, last: str) -> None:
        if len(file) > self._file_width:
            file = f"...{file[3 - self._file_width :]}"
        self._stream.write(f"{file:<{self._file_width}}  {emotion:<{self._emotion_width}}  {probability:>11}  {last}\n")


class CSVWriter:
    """One row per file or window: emotion, its probability, that of each class, and the error.

    Args:
        stream: Where to write.
        class_names: The emotions.
        by_window: Whether to write one row per window.
    """

    def __init__(self, stream: TextIO, class_names: Sequence[str], by_window: bool) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._class_names = list(class_names)
        self._by_window = by_window
        where = ["start_seconds", "end_seconds"] if by_window else ["seconds", "windows"]
        columns = ["file", *where, "emotion", "probability", *(f"probability_{name}" for name in class_names), "error"]
        self._write(columns)
        self._width = len(columns)

    def write(self, result: Result) -> None:
        """Write the rows of one file."""
        if isinstance(result, Unusable):
            self._write([result.path, *[""] * (self._width - 2), result.reason])
        elif not self._by_window:
            windows = len(result.decisions) if result.windowing else ""
            self._row([result.path, _number(result.seconds), windows], result.emotion, result.probabilities)
        else:
            for decision in result.decisions:
                times = [_number(decision.start_seconds), _number(decision.end_seconds)]
                self._row([result.path, *times], decision.emotion, decision.probabilities)

    def end(self) -> None:
        """Write nothing."""

    def _write(self, cells: Sequence[object]) -> None:
        self._rows.writerow([cell if isinstance(cell, int) else to_cell(str(cell)) for cell in cells])

    def _row(self, where: list[object], emotion: str | None, probabilities: Sequence[float]) -> None:
        if emotion is None:  # digital silence
            self._write([*where, *[""] * (self._width - len(where))])
            return
        decided = probabilities[self._class_names.index(emotion)]
        self._write([*where, emotion, _number(decided), *map(_number, probabilities), ""])


class JSONWriter:
    """A list with one object per file.

    Args:
        stream: Where to write.
        class_names: The emotions.
        by_window: Whether to list the windows.
    """

    def __init__(self, stream: TextIO, class_names: Sequence[str], by_window: bool) -> None:
        self._stream = stream
        self._class_names = list(class_names)
        self._by_window = by_window
        self._before = "[\n"

    def write(self, result: Result) -> None:
        """Write the object of one file."""
        self._stream.write(f"{self._before}  {json.dumps(self._object(result), allow_nan=False)}")
        self._before = ",\n"

    def end(self) -> None:
        """Close the list."""
        self._stream.write("[]\n" if self._before == "[\n" else "\n]\n")

    def _object(self, result: Result) -> dict[str, object]:
        if isinstance(result, Unusable):
            return {"file": str(result.path), "error": result.reason}
        content: dict[str, object] = {"file": str(result.path), "seconds": round(result.seconds, 6)}
        content |= self._decision(result.emotion, result.probabilities)
        if result.windowing:
            content["averaged_over_windows"] = len(result.decisions)
            content["window_seconds"] = result.windowing.seconds
            content["hop_seconds"] = result.windowing.hop_seconds
        if self._by_window:
            content["windows"] = [
                {"start_seconds": round(decision.start_seconds, 6), "end_seconds": round(decision.end_seconds, 6)}
                | self._decision(decision.emotion, decision.probabilities)
                for decision in result.decisions
            ]
        return content

    def _decision(self, emotion: str | None, probabilities: Sequence[float]) -> dict[str, object]:
        if emotion is None:
            return {"emotion": None}
        named = dict(zip(self._class_names, (float(_number(p)) for p in probabilities), strict=True))
        return {"emotion": emotion, "probability": named[emotion], "probabilities": named}


def _duration(result: Classified) -> str:
    averaged = f"   mean of {len(result.decisions)} windows of {result.windowing.text}" if result.windowing else ""
    return f"{result.seconds:.2f} s{averaged}"


def _number(value: float) -> str:
    return f"{value:.7g}"
