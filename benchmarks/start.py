"""Start-up time of commands, measured on whole processes: each fold is a process, and often short."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.row import Row, row_of, seconds

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
REPETITIONS = 5


def rows() -> list[Row]:
    """Return the rows of ``ser --help`` and of a LightningCLI command against ``import lightning``."""
    python = [sys.executable]
    ser = [*python, "-m", "ser_lightning.cli"]
    commands = (
        [*ser, "--help"],
        [*ser, "fit", "--config", str(EXPERIMENT), "--print_config"],
        [*python, "-c", "import lightning"],
    )
    times = [[_seconds_of(command) for command in commands] for _ in range(REPETITIONS + 1)][1:]
    reference = 'python -c "import lightning"'
    return [
        row_of("ser --help", "one second", [(help_, 1.0) for help_, _, _ in times], 1.0),
        row_of("ser --help", reference, [(help_, theirs) for help_, _, theirs in times], 0.25),
        row_of("ser fit --print_config", reference, [(ours, theirs) for _, ours, theirs in times], 1.5),
    ]


def _seconds_of(command: list[str]) -> float:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return seconds(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))
