"""``ser classify``: files in, a table out, what went wrong beside it."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import UNFINISHED_PREFIX
from ser_lightning.inference.classification import Classified, Classifier, Unusable
from ser_lightning.inference.recordings import Windowing, find_recordings
from ser_lightning.inference.tables import CSVWriter, Format, JSONWriter, TableWriter, Writer
from ser_lightning.reports.figures import save
from ser_lightning.reports.time_figures import MOST_TIMELINES, Timeline, timeline_figure


@dataclass(frozen=True)
class Output:
    """Where results go, and how.

    Attributes:
        format: Table, CSV or JSON.
        file: Where to write it; standard output if None.
        plot: PNG file for a picture of emotions over time, if any.
    """

    format: Format = "table"
    file: Path | None = None
    plot: Path | None = None


def classify(classifier: Classifier, files: Sequence[Path], windowing: Windowing | None, output: Output) -> int:
    """Classify recordings and write what was heard.

    Args:
        classifier: What classifies.
        files: Recordings, and folders that hold some.
        windowing: How to cut every recording; then windows are written. If None, long ones alone are cut, and averaged.
        output: Where the results go.

    Returns:
        0 if every file was classified, 1 if one or several were not; each of them has its line on standard error. 130
        if it was interrupted: unlike other commands, this one does not go on where it was.

    Raises:
        ConfigurationError: If a folder holds no audio, windows are longer than what the system hears, there is more to
            be drawn than a picture holds, or a file cannot be written. What was classified until then is kept, and
            standard error says where.
    """
    if output.plot and not windowing:
        raise ConfigurationError("--plot draws emotions over time, and needs windows; add --window 4 --hop 1")
    if windowing and windowing.seconds > classifier.heard_seconds:
        raise ConfigurationError(
            f"--window {windowing.seconds:g}: of each window this system would hear the first "
            f"{classifier.heard_seconds:g} s (max_frames) and pass over the rest; choose that or less"
        )
    for option, file in (("--out", output.file), ("--plot", output.plot)):
        if file and file.is_dir():  # or else this would be found when everything has been classified
            raise ConfigurationError(f"{option} {file} is a folder; give the name of a file")
    # As in training: on busy cores a second thread makes small systems slower, not faster.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    # Looked up twice and not kept: of a million files, the paths alone would fill memory.
    total, widest = 0, 0
    for path in find_recordings(files):
        total, widest = total + 1, max(widest, len(str(path)))
    if output.plot and total > MOST_TIMELINES:
        raise ConfigurationError(f"--plot draws at most {MOST_TIMELINES} recordings, and here are {total}; name fewer")
    if not classifier.learned_from_people:
        _say("note: this system was trained on synthetic speech; of people's voices it knows nothing")
    try:
        failures, drawn = _write(classifier, files, windowing, output, total, widest)
    except KeyboardInterrupt:
        _say("interrupted; the next call begins anew")
        return 130
    if output.file:
        print(output.file)
    if output.plot and drawn:
        print(save(timeline_figure(drawn, classifier.class_names), output.plot))
    if failures:
        _say(f"{failures} of {total} {'file' if total == 1 else 'files'} could not be classified")
    return 1 if failures else 0


def _write(
    classifier: Classifier,
    files: Sequence[Path],
    windowing: Windowing | None,
    output: Output,
    total: int,
    widest: int,
) -> tuple[int, list[Timeline]]:
    """Classify and write ``total`` recordings, whose longest path has ``widest`` characters.

    Returns:
        How many could not be classified, and what there is to be drawn.
    """
    failures, drawn = 0, []
    with _progress(total) as bar, _stream(output.file) as stream:
        task = bar.add_task("classify", total=total)
        writer = _writer(output.format, stream, classifier.class_names, windowing is not None, widest)
        results = classifier.classify(find_recordings(files), windowing, lambda share: bar.advance(task, share))
        for result in results:
            writer.write(result)
            if isinstance(result, Unusable):
                failures += 1
                _say(f"{result.path}: {result.reason}")
            elif output.plot:
                drawn.append(_timeline(result, classifier.class_names))
        writer.end()
    return failures, drawn


def _writer(kind: Format, stream: TextIO, class_names: Sequence[str], by_window: bool, file_width: int) -> Writer:
    if kind == "csv":
        return CSVWriter(stream, class_names, by_window)
    if kind == "json":
        return JSONWriter(stream, class_names, by_window)
    return TableWriter(stream, class_names, by_window, file_width)


def _timeline(result: Classified, class_names: Sequence[str]) -> Timeline:
    assert result.windowing is not None  # checked before anything was classified
    return Timeline(
        name=result.path.name,
        seconds=result.seconds,
        starts=[heard.start_seconds for heard in result.heard],
        ends=[heard.end_seconds for heard in result.heard],
        probabilities=[heard.probabilities or None for heard in result.heard],
        decided=[None if heard.emotion is None else class_names.index(heard.emotion) for heard in result.heard],
        windows=result.windowing.text,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _progress(total: int) -> Progress:
    """Return a bar on standard error, shown on a terminal alone; what is printed there stands above it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    return Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # into a file or a pipe, rows go where they belong
    )


class _StandardOutput:
    """Whatever ``sys.stdout`` is at the moment of writing: a progress bar puts itself in between."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)


@contextmanager
def _stream(file: Path | None) -> Iterator[TextIO]:
    """Open ``file``, which gets its name only once it is whole, or standard output.

    If something goes wrong on the way, what was written until then stays under another name, which is said: it may be
    the work of hours.

    Raises:
        ConfigurationError: If the file cannot be written.
    """
    if file is None:
        yield _StandardOutput()  # type: ignore[misc]  # all that writers ask of it
        return
    unfinished = file.with_name(f"{UNFINISHED_PREFIX}{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = unfinished.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigurationError(f"--out {file} cannot be written: {error.strerror}; choose another file") from error
    try:
        with stream:
            yield stream
        unfinished.replace(file)
    except BaseException as error:
        _say(f"what was classified until now is in {unfinished}")
        if isinstance(error, OSError) and error.filename in (None, str(unfinished)):  # not one of a recording
            raise ConfigurationError(f"--out {file} cannot be written: {error.strerror}") from error
        raise
