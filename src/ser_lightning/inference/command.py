"""``ser classify``: classify files, write a table, report unusable files on standard error."""

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
from ser_lightning.reports.time_figures import MAX_TIMELINES, Timeline, timeline_figure


@dataclass(frozen=True)
class Output:
    """Destination and format of the results.

    Attributes:
        format: Table, CSV or JSON.
        file: Output file; None: standard output.
        plot: PNG file for a picture of emotions over time, if any.
    """

    format: Format = "table"
    file: Path | None = None
    plot: Path | None = None


def classify(classifier: Classifier, files: Sequence[Path], windowing: Windowing | None, output: Output) -> int:
    """Classify recordings and write the results.

    Args:
        classifier: The classifier.
        files: Recordings, and folders of recordings.
        windowing: How to cut every recording; results are then per window. None: only long ones are cut, and averaged.
        output: Destination of the results.

    Returns:
        The exit status: 0 if every file was classified; 1 if not, with one line per failed file on standard error; 130
        if interrupted (the next call starts from the beginning).

    Raises:
        ConfigurationError: If a folder contains no audio, windows are longer than the system uses or shorter than a
            frame, there are too many recordings for one picture, or a file cannot be written. Results until then are
            kept; standard error names the file.
    """
    if output.plot and not windowing:
        raise ConfigurationError("--plot draws emotions over time, and needs windows; add --window 4 --hop 1")
    if windowing and windowing.seconds > classifier.used_seconds:
        raise ConfigurationError(
            f"--window {windowing.seconds:g}: this system uses only the first {classifier.used_seconds:g} s of a "
            "window (max_frames); choose that or less"
        )
    if windowing and windowing.seconds < classifier.frame_seconds:
        raise ConfigurationError(
            f"--window {windowing.seconds:g} is shorter than a frame of this system's features, "
            f"{classifier.frame_seconds:g} s; choose seconds, such as --window 4"
        )
    for option, file in (("--out", output.file), ("--plot", output.plot)):
        if file and file.is_dir():  # check before classifying
            raise ConfigurationError(f"{option} {file} is a folder; give the name of a file")
    # As in training: on busy cores a second thread slows small systems down.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    # List the files twice: the paths of a million files need not fit in memory.
    total, widest = 0, 0
    for path in find_recordings(files):
        total, widest = total + 1, max(widest, len(str(path)))
    if output.plot and total > MAX_TIMELINES:
        raise ConfigurationError(f"--plot draws at most {MAX_TIMELINES} recordings, not {total}; give fewer")
    if not classifier.trained_on_recordings:
        _warn("note: this system was trained on synthetic speech; its results on real voices mean nothing")
    try:
        failures, drawn = _write(classifier, files, windowing, output, total, widest)
    except KeyboardInterrupt:
        _warn("interrupted; the next call starts from the beginning")
        return 130
    if output.file:
        print(output.file)
    if output.plot and drawn:
        print(save(timeline_figure(drawn, classifier.class_names), output.plot))
    if failures:
        _warn(f"{failures} of {total} {'file' if total == 1 else 'files'} could not be classified")
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
        The number of failures, and the timelines to draw.
    """
    failures, drawn = 0, []
    with _progress(total) as bar, _stream(output.file) as stream:
        task = bar.add_task("classify", total=total)
        writer = _writer(output.format, stream, classifier.class_names, windowing is not None, widest)
        results = classifier.classify_all(find_recordings(files), windowing, lambda share: bar.advance(task, share))
        for result in results:
            writer.write(result)
            if isinstance(result, Unusable):
                failures += 1
                _warn(f"{result.path}: {result.reason}")
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
        starts=[decision.start_seconds for decision in result.decisions],
        ends=[decision.end_seconds for decision in result.decisions],
        probabilities=[decision.probabilities or None for decision in result.decisions],
        decided=[
            None if decision.emotion is None else class_names.index(decision.emotion) for decision in result.decisions
        ],
        windows=result.windowing.text,
    )


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def _progress(total: int) -> Progress:
    """Return a progress bar on standard error, shown only on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    return Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # rows for a file or a pipe must not go to the console
    )


class _StandardOutput:
    """The current ``sys.stdout``: a progress bar replaces it."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)


@contextmanager
def _stream(file: Path | None) -> Iterator[TextIO]:
    """Open a temporary file that is renamed to ``file`` on success, or standard output.

    On an error the temporary file is kept and named on standard error: it may hold hours of work.

    Raises:
        ConfigurationError: If the file cannot be written.
    """
    if file is None:
        yield _StandardOutput()  # type: ignore[misc]  # writers only call write
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
        _warn(f"results until now are in {unfinished}")
        if isinstance(error, OSError) and error.filename in (None, str(unfinished)):  # not of a recording
            raise ConfigurationError(f"--out {file} cannot be written: {error.strerror}") from error
        raise
