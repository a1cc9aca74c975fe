"""Start costs, measured on whole processes: each fold is a process, and often short."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.row import Row, row_of, seconds
from data_modules.ravdess import write_synthetic
from ser_lightning.jobs.process import LOG_FILE
from ser_lightning.plain_files import read_json
from ser_lightning.runs.folder import FACTS_FILE, FILES

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
REPETITIONS = 5
TORCH, LIGHTNING = 'python -c "import torch"', 'python -c "import lightning.pytorch"'
SER = (sys.executable, "-m", "ser_lightning.cli")


def rows(repetitions: int = REPETITIONS) -> list[Row]:
    """Return the rows of ``ser --help``, a LightningCLI command, the start of ``ser cv``, and a fold.

    Args:
        repetitions: Runs of each command.
    """
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder / "corpus", speakers=4, seed=0, clips_per_speaker=16)
        for repetition in range(repetitions + 1):  # the first run compiles modules and extracts features
            start, fold = _start_and_fold(folder, f"runs-{repetition}")
            measured = {
                "help": _seconds_of(*SER, "--help"),
                "print": _seconds_of(*SER, "fit", "--config", str(EXPERIMENT), "--print_config"),
                "start": start,
                "fold": fold,
                TORCH: _seconds_of(sys.executable, "-c", "import torch"),
                LIGHTNING: _seconds_of(sys.executable, "-c", "import lightning.pytorch"),
            }
            for key, value in measured.items():
                times.setdefault(key, []).append(value)

    def row(name: str, key: str, reference: str, bound: float) -> Row:
        theirs = times.get(reference, [1.0] * (repetitions + 1))
        return row_of(name, reference, list(zip(times[key], theirs, strict=True))[1:], bound)

    return [
        row("ser --help", "help", "one second", 1.0),
        row("ser --help", "help", TORCH, 0.25),
        row("ser fit --print_config", "print", LIGHTNING, 1.5),
        row("ser cv until it asks for a job", "start", LIGHTNING, 1.25),
        row("a fold of ser cv without its training", "fold", TORCH, 1.0),
        row("a fold of ser cv without its training", "fold", "one second", 2.0),
    ]


def _start_and_fold(folder: Path, runs: str) -> tuple[float, float]:
    """Run two folds of one epoch; return the seconds to the first request, and those of the second fold's rest."""
    root = folder / runs
    command = [
        *(*SER, "cv", f"--config={EXPERIMENT}", "--folds=0,1", f"--runs={root}", "--trainer.max_epochs=1"),
        *(f"--data.init_args.root={folder}/corpus", f"--data.init_args.feature_folder={folder}/features"),
    ]
    with _running(command) as process:
        started = time.monotonic()
        _wait_for(process, root, f"fold-00/{LOG_FILE}")
        start = time.monotonic() - started
        _wait_for(process, root, f"fold-01/{LOG_FILE}")
        began = time.monotonic()
        predictions = _wait_for(process, root, f"fold-01/{FILES['test']}")
        fold = time.monotonic() - began
    return start, fold - float(read_json(predictions.with_name(FACTS_FILE))["seconds"])


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], root: Path, pattern: str) -> Path:
    while not (found := list(root.rglob(pattern))):
        if process.poll() is not None:
            raise RuntimeError(f"ser cv ended with status {process.returncode} without {pattern}")
        time.sleep(0.02)
    return found[0]


def _seconds_of(*command: str) -> float:
    return seconds(lambda: subprocess.run(command, env=_environment(), check=True, capture_output=True))


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
