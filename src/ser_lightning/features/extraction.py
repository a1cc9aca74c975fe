"""Frames of many audio files, extracted by this process or by several."""
# Shapes: T frames, F features a frame.

import functools
import importlib
import inspect
import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from ser_lightning.allow_list import refuse_foreign_classes, shortest_path
from ser_lightning.audio import read_audio
from ser_lightning.errors import AudioError, ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor


def build_extractor(configuration: Mapping[str, object]) -> FeatureExtractor:
    """Return the extractor that ``FeatureExtractor.configuration`` described.

    Raises:
        ConfigurationError: If a class lies outside the allow-list (nothing is imported then), does not exist, is no
            extractor, or does not take the arguments.
    """
    refuse_foreign_classes(configuration, "feature extractor")
    return build_trusted_extractor(configuration)


def build_trusted_extractor(configuration: Mapping[str, object]) -> FeatureExtractor:
    """As ``build_extractor``, for a configuration that a live extractor of this process gave."""
    class_path, arguments = configuration.get("class_path"), configuration.get("init_args", {})
    if not isinstance(class_path, str) or "." not in class_path or not isinstance(arguments, Mapping):
        raise ConfigurationError(
            f"feature extractor: expected class_path (a dotted name) and init_args (a mapping), got {configuration}"
        )
    if class_path != (public := shortest_path(class_path)):
        raise ConfigurationError(f"feature extractor: '{class_path}' is the path of a module; write '{public}'")
    module_name, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"feature extractor: there is no class '{class_path}' ({error})") from error
    if not (inspect.isclass(found) and issubclass(found, FeatureExtractor)) or inspect.isabstract(found):
        raise ConfigurationError(f"feature extractor: '{class_path}' is no FeatureExtractor")
    values = {
        str(key): build_trusted_extractor(value) if isinstance(value, Mapping) and "class_path" in value else value
        for key, value in arguments.items()
    }
    try:
        inspect.signature(found).bind(**values)
    except TypeError as error:
        raise ConfigurationError(f"feature extractor {class_path}: init_args do not fit: {error}") from error
    return found(**values)


# A worker imports torch first, which takes seconds: it must be worth it.
TRIAL_SECONDS = 1.0
LEAST_SECONDS_FOR_WORKERS = 6.0
_FILES_A_TASK = 8


def extract_file(extractor: FeatureExtractor, path: Path) -> Tensor | str:
    """Return the frames [T, F] of ``path``, float32, or the reason why there are none."""
    try:
        waveform = read_audio(path, extractor.sample_rate_hz)
    except AudioError as error:
        return error.problems[path]
    with torch.inference_mode():
        batch, lengths = extractor(waveform[None], torch.tensor([len(waveform)]))
        frames: Tensor = batch[0, : int(lengths[0])].float().contiguous()
        if not frames.sum().isfinite() and not frames.isfinite().all():  # the sum is cheap, and may only overflow
            return f"{type(extractor).__name__} gives {int((~frames.isfinite()).sum())} values that are NaN or infinite"
    return frames


def extract_files(
    extractor: FeatureExtractor, paths: Sequence[Path], workers: int
) -> Iterator[tuple[Path, Tensor | str]]:
    """Yield each of ``paths`` with its frames [T, F] or the reason why there are none, in any order.

    This process begins alone, and starts ``workers`` processes of one thread each once it sees that the rest takes
    longer than starting them. They die with this process, however it dies.

    Raises:
        ConfigurationError: If a worker dies.
    """
    started = time.monotonic()
    for done, path in enumerate(paths, start=1):
        yield path, extract_file(extractor, path)
        elapsed = time.monotonic() - started
        remaining = elapsed / done * (len(paths) - done)
        if workers > 1 and elapsed >= TRIAL_SECONDS and remaining > LEAST_SECONDS_FOR_WORKERS:
            yield from _extract_by_workers(extractor, paths[done:], workers)
            return


def _extract_by_workers(
    extractor: FeatureExtractor, paths: Sequence[Path], workers: int
) -> Iterator[tuple[Path, Tensor | str]]:
    configuration = json.dumps(extractor.configuration())
    tasks = iter([paths[start : start + _FILES_A_TASK] for start in range(0, len(paths), _FILES_A_TASK)])
    running: set[Future[list[tuple[Path, NDArray[np.float32] | str]]]] = set()
    # Forked children of a process whose torch has run threads can hang; spawned ones cannot.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare_worker)
    try:
        while True:
            for task in tasks:
                running.add(pool.submit(_extract_task, configuration, task))
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                for path, result in future.result():
                    yield path, result if isinstance(result, str) else torch.from_numpy(result)
    except BrokenProcessPool as error:
        raise ConfigurationError(
            "a feature worker process died: memory ran out, it was killed, openSMILE crashed, or the calling script "
            "has no `if __name__ == '__main__':`. What was extracted is kept; run again, with 1 worker to find the file"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _extract_task(configuration: str, paths: Sequence[Path]) -> list[tuple[Path, NDArray[np.float32] | str]]:
    extractor = _worker_extractor(configuration)
    results = ((path, extract_file(extractor, path)) for path in paths)
    # As arrays: torch sends a tensor as a shared-memory file of its own, and thousands exhaust the open files.
    return [(path, result if isinstance(result, str) else result.numpy()) for path, result in results]


@functools.cache
def _worker_extractor(configuration: str) -> FeatureExtractor:
    return build_trusted_extractor(json.loads(configuration)).eval()


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and ends its workers in order
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


Item = TypeVar("Item")


class _FilesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the mean speed of ``task`` since it began."""
        return Text(f"{task.completed / task.elapsed:.1f} files/s" if task.elapsed else "")


def show_progress(files: Iterable[Item], total: int, description: str, shown: bool) -> Iterator[Item]:
    """Yield ``files``, ``total`` of them, with a bar on standard error: done, files per second, time left.

    Args:
        files: What is worked on.
        total: How many.
        description: Stands before the bar.
        shown: Whether to show anything.
    """
    if not shown:
        yield from files
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _FilesPerSecond())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        yield from bar.track(files, total=total, description=description)
