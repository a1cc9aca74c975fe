"""A job's own process, which ends with the one that started it.

Ray's workers import this file to run a job, so it imports the standard library only: they start at once.
"""

import os
import platform
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

LOG_FILE = "log.txt"
USER_ERROR = 78
"""Exit status of a job with an error that only the user can mend (EX_CONFIG of sysexits.h)."""
POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0
# A job's environment unless the user sets it. glibc gives every freed activation back to the kernel and asks for it
# again at the next step: a quarter of a training step on a CPU (measured: 420,000 page faults in 30 steps
# of Huang's system, 57,000 with these thresholds, in bytes). Other C libraries do not read them.
_ENVIRONMENT = {
    "COLUMNS": "120",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
}
# A child of a W&B sweep's agent is a run of its own; with these it would write into the agent's. And each child has a
# W&B service of its own: one found through WANDB_SERVICE keeps the run of a killed child open and refuses its restart.
# A job does not get the token of Ray's cluster, which lets its holder run anything.
NOT_INHERITED = (
    "WANDB_RUN_ID",
    "WANDB_SWEEP_ID",
    "WANDB_SWEEP_PARAM_PATH",
    "WANDB_RESUME",
    "WANDB_NAME",
    "WANDB_SERVICE",
    "RAY_AUTH_TOKEN",
    "SLURM_NTASKS",  # Lightning would take SLURM's tasks for the processes of one training
)


class JobProcess(AbstractContextManager["JobProcess"]):
    """A job that runs in a process, and a process group, of its own; leaving the context stops it.

    Its output goes to ``log.txt`` in its folder, after a line that says when and where it was started.

    Args:
        command: The program and its arguments. It ends when its standard input does.
        folder: The job's folder.
        working_folder: Where the command's relative paths begin.
        environment: What it gets besides this process's environment, and before it.

    Raises:
        FileNotFoundError: If this machine does not have ``working_folder`` or the program.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, working_folder: Path, environment: Mapping[str, str]
    ) -> None:
        if not working_folder.is_dir():
            raise FileNotFoundError(
                f"{platform.node()} has no folder {working_folder}: the machines of a cluster must share the folder "
                "in which the command was given, its environment, features and runs"
            )
        folder = working_folder / folder
        folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        began = datetime.now().astimezone().isoformat(timespec="seconds")
        with (folder / LOG_FILE).open("ab", buffering=0) as log:
            try:
                log.write(f"--- {began} on {platform.node()}: {shlex.join(command)}\n".encode())
            except OSError as error:
                error.filename = str(folder / LOG_FILE)  # writing names no file
                raise
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the child that this process is gone
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=working_folder,
                env=_ENVIRONMENT | inherited | dict(environment),
                start_new_session=True,
            )

    def status(self) -> int | None:
        """Return the exit status; None while the process runs, and the negative signal that ended it."""
        return self._process.poll()

    def __enter__(self) -> Self:
        """Start nothing: the process runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process if it still runs, and whatever it has started."""
        process = self._process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.stdin:
            process.stdin.close()


def run_to_end(command: Sequence[str], folder: str, working_folder: str, environment: Mapping[str, str]) -> int:
    """Run a job in its own process and return its exit status; whatever interrupts this stops the process.

    Args:
        command: The program and its arguments.
        folder: The job's folder.
        working_folder: Where the command's relative paths begin.
        environment: What the process gets besides this one's environment.
    """
    with JobProcess(command, Path(folder), Path(working_folder), environment) as process:
        while (status := process.status()) is None:
            time.sleep(POLL_SECONDS)
    return status


def end_with_parent() -> None:
    """End this process's whole group once its parent is gone, however the parent ended.

    The parent holds the other end of standard input and never writes to it: the end of the stream is the parent's end.
    A signal handler in the parent would not do, since nothing handles SIGKILL.
    """

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=wait, name="parent watch", daemon=True).start()
