"""Time and memory of commands as a corpus grows: four times the utterances should take four times as long."""

import contextlib
import io
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.row import Row, peak_mebibytes_of, row_of

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "own_corpus.yaml"
FEWEST, MOST = 1000, 4000
"""Utterances of the two corpora; 5000 and 50,000, or 500,000, take minutes to hours."""
LARGEST_EXTRACTED = 100_000
"""Larger corpora are audited and planned without stored features."""
REPETITIONS = 3
NUM_SPEAKERS, NUM_SAMPLES = 20, 400
EMOTIONS = ("angry", "happy", "neutral", "sad")
TINY = NUM_SPEAKERS * len(EMOTIONS)
ARGUMENTS = (
    f"--config={EXPERIMENT}",
    "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
    "--data.init_args.protocol.blocks=even",
    "--data.init_args.protocol.num_folds=10",
)


@dataclass(frozen=True)
class Cost:
    """CPU time of a command in seconds, and its peak memory beyond the start in MiB."""

    seconds: float
    mebibytes: float


def rows(fewest: int = FEWEST, most: int = MOST, repetitions: int = REPETITIONS) -> list[Row]:
    """Return rows of time and memory of ``ser audit``, ``ser cv --dry-run`` and ``ser prepare``.

    Args:
        fewest: Utterances of the smaller corpus.
        most: Utterances of the larger corpus.
        repetitions: Measurements of each command.
    """
    commands = {"ser audit, nothing stored": ["audit"], "ser cv --dry-run": ["cv", "--dry-run"]}
    if most <= LARGEST_EXTRACTED:
        commands |= {"ser prepare": ["prepare"], "ser audit": ["audit"]}
    costs: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in (TINY, fewest, most):
            write_corpus(folder / str(size), size)
        for repetition in range(repetitions):
            for name, command in commands.items():  # in this order: prepare stores what the last one uses
                few, many = (_in_fresh_process(command, folder, size, repetition) for size in (fewest, most))
                costs[name].append((few, many))
    return [row for name, pairs in costs.items() for row in _rows_of(name, fewest, most, pairs)]


def _rows_of(name: str, fewest: int, most: int, pairs: Sequence[tuple[Cost, Cost]]) -> list[Row]:
    times = [(many.seconds, few.seconds * most / fewest) for few, many in pairs]
    growth = [(many.mebibytes - few.mebibytes, (most - fewest) / 1024) for few, many in pairs]
    return [
        row_of(f"{name}, {most} utterances (CPU time)", f"{most / fewest:g} times {fewest} utterances", times, 1.2),
        row_of(f"{name}, memory of {most - fewest} more utterances", "1 kB an utterance", growth, 1.0, "MiB"),
    ]


def write_corpus(folder: Path, size: int) -> None:
    """Write ``size`` clips of distinct noise, 25 ms each, of 20 speakers and four emotions, and the table of labels."""
    random = np.random.default_rng(0)
    data_bytes = 2 * NUM_SAMPLES
    fmt = struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    header = (
        struct.pack("<4sI8s", b"RIFF", 36 + data_bytes, b"WAVEfmt ") + fmt + struct.pack("<4sI", b"data", data_bytes)
    )
    lines = ["path,speaker,label"]
    for index in range(size):
        speaker = f"speaker_{index % NUM_SPEAKERS:02d}"
        path = folder / speaker / f"clip_{index:06d}.wav"
        if index < NUM_SPEAKERS:
            path.parent.mkdir(parents=True)
        path.write_bytes(header + random.integers(-3000, 3000, NUM_SAMPLES, dtype="<i2").tobytes())
        lines.append(f"{speaker}/{path.name},{speaker},{EMOTIONS[index // NUM_SPEAKERS % len(EMOTIONS)]}")
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))


def _in_fresh_process(command: Sequence[str], folder: Path, size: int, repetition: int) -> Cost:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cost, command, folder, size, repetition).result()


def cost(command: Sequence[str], folder: Path, size: int, repetition: int) -> Cost:
    """Return what a command costs in this process, which loads everything for a small corpus first."""
    _run(command, folder / str(TINY), folder / f"features-{repetition}")
    seconds = 0.0

    def measured() -> None:
        nonlocal seconds
        started = time.process_time()
        _run(command, folder / str(size), folder / f"features-{size}-{repetition}")
        seconds = time.process_time() - started

    return Cost(mebibytes=peak_mebibytes_of(measured), seconds=seconds)


def _run(command: Sequence[str], root: Path, features: Path) -> None:
    sys.argv = ["ser", *command, *ARGUMENTS, f"--data.init_args.root={root}"]
    sys.argv += [f"--data.init_args.feature_folder={features}", *[f"--runs={root}/runs"] * (command[0] == "cv")]
    from ser_lightning.cli.__main__ import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main()
    if status:
        raise RuntimeError(f"{' '.join(sys.argv)} ended with status {status}: {said.getvalue()}")
