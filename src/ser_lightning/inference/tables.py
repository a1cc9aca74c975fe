"""What was heard, as a table to read, as CSV and as JSON; each is written line by line, and never held whole."""

import csv
import json
from collections.abc import Sequence
from typing import Literal, Protocol, TextIO

from ser_lightning.inference.classification import Classified, Unusable

Format = Literal["table", "csv", "json"]
Result = Classified | Unusable

_WIDEST_FILE = 60


class Writer(Protocol):
    """Takes results one by one."""

    def write(self, result: Result) -> None:
        """Write one result."""

    def end(self) -> None:
        """Write what stands behind the last one."""


class TableWriter:
    """Columns to read: file, emotion, its probability, duration; or a line for each window.

    Files that could not be used are left out: they have their line on standard error.

    Args:
        stream: Where to write.
        class_names: The emotions.
        by_window: Whether windows have lines of their own.
        file_width: Characters of the longest file's name.
    """

    def __init__(self, stream: TextIO, class_names: Sequence[str], by_window: bool, file_width: int) -> None:
        self._stream = stream
        self._class_names = list(class_names)
        self._by_window = by_window
        self._file_width = min(_WIDEST_FILE, max(len("file"), file_width))
        self._emotion_width = max(len("emotion"), *map(len, class_names))
        self._headed = False

    def write(self, result: Result) -> None:
        """Write the lines of one file; the head before the first of them."""
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
        for heard in result.heard:
            share = self._share(heard.emotion, heard.probabilities)
            self._line(name, heard.emotion or "-", share, f"{heard.start_seconds:6.2f} {heard.end_seconds:8.2f}")

    def end(self) -> None:
        """Write nothing: a table has no foot."""

    def _share(self, emotion: str | None, probabilities: Sequence[float]) -> str:
        return "silence" if emotion is None else f"{100 * probabilities[self._class_names.index(emotion)]:.1f}%"

    def _line(self, file: str, emotion: str, probability: str, last: str) -> None:
        if len(file) > self._file_width:
            file = f"...{file[3 - self._file_width :]}"
        self._stream.write(f"{file:<{self._file_width}}  {emotion:<{self._emotion_width}}  {probability:>11}  {last}\n")


class CSVWriter:
    """A row for each file, or for each window: emotion, its probability, that of each class, and what went wrong.

    Args:
        stream: Where to write.
        class_names: The emotions.
        by_window: Whether windows have rows of their own.
    """

    def __init__(self, stream: TextIO, class_names: Sequence[str], by_window: bool) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._class_names = list(class_names)
        self._by_window = by_window
        where = ["start_seconds", "end_seconds"] if by_window else ["seconds", "windows"]
        columns = ["file", *where, "emotion", "probability", *(f"probability_{name}" for name in class_names), "error"]
        self._rows.writerow(columns)
        self._width = len(columns)

    def write(self, result: Result) -> None:
        """Write the rows of one file."""
        if isinstance(result, Unusable):
            self._rows.writerow([result.path, *[""] * (self._width - 2), result.reason])
        elif not self._by_window:
            windows = len(result.heard) if result.windowing else ""
            self._row([result.path, _number(result.seconds), windows], result.emotion, result.probabilities)
        else:
            for heard in result.heard:
                times = [_number(heard.start_seconds), _number(heard.end_seconds)]
                self._row([result.path, *times], heard.emotion, heard.probabilities)

    def end(self) -> None:
        """Write nothing: CSV has no foot."""

    def _row(self, where: list[object], emotion: str | None, probabilities: Sequence[float]) -> None:
        if emotion is None:  # digital silence
            self._rows.writerow([*where, *[""] * (self._width - len(where))])
            return
        own = probabilities[self._class_names.index(emotion)]
        self._rows.writerow([*where, emotion, _number(own), *map(_number, probabilities), ""])


class JSONWriter:
    """A list with an object for each file, written as they come.

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
        told: dict[str, object] = {"file": str(result.path), "seconds": round(result.seconds, 6)}
        told |= self._decision(result.emotion, result.probabilities)
        if result.windowing:
            told["averaged_over_windows"] = len(result.heard)
            told["window_seconds"] = result.windowing.seconds
            told["hop_seconds"] = result.windowing.hop_seconds
        if self._by_window:
            told["windows"] = [
                {"start_seconds": round(heard.start_seconds, 6), "end_seconds": round(heard.end_seconds, 6)}
                | self._decision(heard.emotion, heard.probabilities)
                for heard in result.heard
            ]
        return told

    def _decision(self, emotion: str | None, probabilities: Sequence[float]) -> dict[str, object]:
        if emotion is None:
            return {"emotion": None}
        named = dict(zip(self._class_names, (float(_number(p)) for p in probabilities), strict=True))
        return {"emotion": emotion, "probability": named[emotion], "probabilities": named}


def _duration(result: Classified) -> str:
    averaged = f"   mean of {len(result.heard)} windows of {result.windowing.text}" if result.windowing else ""
    return f"{result.seconds:.2f} s{averaged}"


def _number(value: float) -> str:
    return f"{value:.7g}"
