"""Extract frames of many audio files, in this process or in several workers."""
# Shapes: T frames, F features a frame.

import contextlib
import importlib
import inspect
import itertools
import json
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TypeVar, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from ser_lightning.allow_list import check_class_paths, shortest_path
from ser_lightning.audio import read_audio
from ser_lightning.errors import AudioError, ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor


def build_extractor(configuration: Mapping[str, object]) -> FeatureExtractor:
    """Return the extractor that ``FeatureExtractor.configuration`` described.

    Raises:
        ConfigurationError: If a class is outside the allow-list (nothing is imported then), does not exist, is not an
            extractor, or does not take the arguments.
    """
    check_class_paths(configuration, "feature extractor")
    return build_trusted_extractor(configuration)


def build_trusted_extractor(configuration: Mapping[str, object]) -> FeatureExtractor:
    """As ``build_extractor``, for a configuration from an extractor of this process or its parent."""
    class_path, arguments = configuration.get("class_path"), configuration.get("init_args", {})
    if not isinstance(class_path, str) or "." not in class_path or not isinstance(arguments, Mapping):
        raise ConfigurationError(
            f"feature extractor: expected class_path (a dotted name) and init_args (a mapping), got {configuration}"
        )
    if class_path != (public := shortest_path(class_path)):
        raise ConfigurationError(f"feature extractor: '{class_path}' is not the class's public path; write '{public}'")
    module_name, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"feature extractor: there is no class '{class_path}' ({error})") from error
    if not (inspect.isclass(found) and issubclass(found, FeatureExtractor)) or inspect.isabstract(found):
        raise ConfigurationError(f"feature extractor: '{class_path}' is not a FeatureExtractor")
    values = {
        str(key): build_trusted_extractor(value) if isinstance(value, Mapping) and "class_path" in value else value
        for key, value in arguments.items()
    }
    try:
        inspect.signature(found).bind(**values)
    except TypeError as error:
        raise ConfigurationError(f"feature extractor {class_path}: init_args do not fit: {error}") from error
    return found(**values)


def find_device(name: str) -> torch.device:
    """Return a device that works.

    Args:
        name: Torch's name, such as ``cuda:1``; ``auto`` for the GPU if there is one.

    Raises:
        ConfigurationError: If it is unknown or not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0]
        raise ConfigurationError(f"--device {name}: {cause}; use cpu, or cuda on a machine with a GPU") from error
    return device


# A worker spends seconds on importing torch, so small jobs run in this process.
TRIAL_SECONDS = 1.0
LEAST_SECONDS_FOR_WORKERS = 6.0
# One file is queued while a worker extracts another. More could fill the pipe and block both ends.
_FILES_AHEAD = 2
# Forking a process in which torch has run threads can hang.
_CONTEXT = get_context("spawn")
_WAY_OUT = "Extracted features are kept; run again with fewer workers (--data.init_args.workers 1)"


def extract_file(extractor: FeatureExtractor, path: Path, device: str = "cpu") -> Tensor | str:
    """Return the frames [T, F] of ``path``, as they are stored, or the reason why it is unusable."""
    try:
        waveform = read_audio(path, extractor.sample_rate_hz)
    except AudioError as error:
        return error.problems[path]
    with torch.inference_mode():
        batch, lengths = extractor(waveform[None].to(device), torch.tensor([len(waveform)]))
        frames: Tensor = batch[0, : int(lengths[0])].to("cpu", extractor.frame_dtype).contiguous()
        if not frames.sum().isfinite() and not frames.isfinite().all():  # the sum is a cheap first check
            where = "" if frames.dtype == torch.float32 else " in float16; set the extractor's precision to float32"
            return f"{type(extractor).__name__} gives {int((~frames.isfinite()).sum())} NaN or infinite values{where}"
    return frames


def extract_files(
    extractor: FeatureExtractor, paths: Sequence[Path], workers: int, device: str = "cpu"
) -> Iterator[tuple[Path, Tensor | str]]:
    """Yield each of ``paths`` with its frames [T, F] or the reason why it is unusable, in any order.

    This process starts alone, and starts ``workers`` single-threaded processes if the remaining files take longer than
    that, unless it has another ``device`` than the CPU. If this process dies, each worker ends before its next file.

    Raises:
        ConfigurationError: If a worker dies.
    """
    started = time.monotonic()
    for done, path in enumerate(paths, start=1):
        yield path, extract_file(extractor, path, device)
        elapsed = time.monotonic() - started
        remaining = elapsed / done * (len(paths) - done)
        if workers > 1 and device == "cpu" and elapsed >= TRIAL_SECONDS and remaining > LEAST_SECONDS_FOR_WORKERS:
            yield from _extract_by_workers(extractor, paths[done:], workers)
            return


def _extract_by_workers(
    extractor: FeatureExtractor, paths: Sequence[Path], workers: int
) -> Iterator[tuple[Path, Tensor | str]]:
    waiting = iter(paths)
    pool: dict[Connection, _Worker] = {}
    try:
        for _ in range(min(workers, len(paths))):
            worker = _Worker(extractor)
            pool[worker.connection] = worker
        for _ in range(_FILES_AHEAD):
            for worker, path in zip(pool.values(), waiting, strict=False):
                worker.send(path)
        while busy := [connection for connection, worker in pool.items() if worker.paths]:
            for connection in wait(busy):
                worker = pool[cast(Connection, connection)]
                yield worker.receive()
                for path in itertools.islice(waiting, 1):
                    worker.send(path)
    finally:
        for worker in pool.values():
            worker.stop()


class _Worker:
    """A single-threaded process that extracts the files sent to it, in order, over its own pipe.

    Only the worker holds its end of the pipe: if it dies, even while sending frames, reading fails. With a shared pipe,
    such as that of ``ProcessPoolExecutor``, reading would block forever.

    Attributes:
        connection: This process's end of the pipe.
        process: The process.
        paths: Files sent to the worker whose results are pending.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.paths: deque[Path] = deque()
        self.connection, theirs = _CONTEXT.Pipe()
        configuration = json.dumps(extractor.configuration())
        self.process = _CONTEXT.Process(target=_work, args=(theirs, configuration), daemon=True)
        try:
            self.process.start()
        except OSError as error:
            raise ConfigurationError(f"cannot start a feature worker process: {error.strerror}. {_WAY_OUT}") from error
        theirs.close()

    def send(self, path: Path) -> None:
        self.paths.append(path)
        with contextlib.suppress(OSError):  # if it is dead, receive raises after the frames already sent
            self.connection.send(path)

    def receive(self) -> tuple[Path, Tensor | str]:
        """Return the next file with its frames [T, F], or the reason why it is unusable."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(result, Exception):
            raise result
        return self.paths.popleft(), result if isinstance(result, str) else torch.from_numpy(result)

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()  # workers hold no state
        self.process.join()

    def _death(self) -> ConfigurationError:
        self.process.join()
        status = self.process.exitcode or 0
        cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return ConfigurationError(
            f"a feature worker process {cause} at {self.paths[0]}: most likely memory ran out, a library crashed on "
            f"this file, or the calling script has no `if __name__ == '__main__':`. {_WAY_OUT}"
        )


def _work(connection: Connection, configuration: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and stops its workers
    torch.set_num_threads(1)
    extractor = build_trusted_extractor(json.loads(configuration)).eval()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has died
        while True:
            path = connection.recv()
            try:
                result = extract_file(extractor, path)
            except Exception as error:
                error.add_note(traceback.format_exc())
                connection.send(error)
                return
            # As an array: torch sends each tensor as a shared-memory file, and thousands exhaust open files.
            connection.send(result if isinstance(result, str) else result.numpy())


Item = TypeVar("Item")


class _FilesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the mean speed of ``task`` since it began."""
        return Text(f"{task.completed / task.elapsed:.1f} files/s" if task.elapsed else "")


def show_progress(files: Iterable[Item], total: int, description: str, shown: bool) -> Iterator[Item]:
    """Yield ``files`` and show progress on standard error: done, files per second, time left.

    A terminal gets a bar; a log file gets a line at every tenth that takes over a second.

    Args:
        files: The files.
        total: Their number.
        description: Label of the bar.
        shown: Whether to show it.
    """
    console = Console(stderr=True)
    if not shown:
        yield from files
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _FilesPerSecond())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            yield from bar.track(files, total=total, description=description)
    else:
        yield from _say_tenths(files, total, description, console)


def _say_tenths(files: Iterable[Item], total: int, description: str, console: Console) -> Iterator[Item]:
    started = said = time.monotonic()
    for done, item in enumerate(files, 1):
        yield item
        now = time.monotonic()
        if done * 10 // total > (done - 1) * 10 // total and now - said >= 1.0:
            speed, said = done / (now - started), now
            left = f", about {(total - done) / speed / 60:.0f} min left" if done < total else ""
            console.print(f"{description}: {done} of {total} files, {speed:.1f} files/s{left}", highlight=False)
