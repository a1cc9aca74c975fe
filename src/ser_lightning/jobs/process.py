"""A job's process, which ends with its parent.

Ray's workers import this file, so it imports the standard library only, directly and indirectly.
"""

import os
import platform
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from ser_lightning.jobs.fork_server import ForkServer, fork_server, kill_at_hangup

LOG_FILE = "log.txt"
USER_ERROR = 78
"""Exit status of a job with an error that only the user can fix (EX_CONFIG of sysexits.h)."""
POLL_SECONDS = 0.5
"""Longest time between two looks at the files of running jobs."""
STATUS_SECONDS = 0.05
"""Time between two looks whether a process has ended."""
_GRACE_SECONDS = 10.0
_STOP_POLL_SECONDS = 0.02
# Defaults of a job's environment. Without the thresholds (bytes), glibc returns freed activations to the kernel at
# every step: a quarter of a CPU training step (Huang's system: 420,000 page faults in 30 steps, 57,000 with them).
# Batches differ in length, and without expandable segments torch keeps a block of GPU memory for each length.
_ENVIRONMENT = {
    "COLUMNS": "120",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
# Kernels of torch.compile, in the working folder: jobs share them, on all machines of a cluster, also after a restart.
# By default torch keeps them in the temporary folder, and runs what it finds there.
COMPILED_FOLDER = Path(".cache", "compiled")
# With W&B's variables a job would write into the run of a sweep's agent, and a service shared through WANDB_SERVICE
# would keep the run of a killed job open and reject its restart. Ray's token lets its holder run anything.
NOT_INHERITED = (
    "WANDB_RUN_ID",
    "WANDB_SWEEP_ID",
    "WANDB_SWEEP_PARAM_PATH",
    "WANDB_RESUME",
    "WANDB_SERVICE",
    "RAY_AUTH_TOKEN",
    "SLURM_NTASKS",  # Lightning would treat SLURM's tasks as the processes of one training
)


class JobProcess(AbstractContextManager["JobProcess"]):
    """A job in a process group, forked by this process's fork server; leaving the context stops it.

    Output goes to ``log.txt`` in the job's folder, after a line with time, machine and command.

    Args:
        program: Command of ``ser``.
        arguments: The job's arguments. The job must end when its standard input does.
        folder: The job's folder.
        working_folder: The process's working folder.
        environment: Environment variables; they override this process's.

    Raises:
        FileNotFoundError: If this machine does not have ``working_folder`` or the program.
    """

    def __init__(
        self,
        program: Sequence[str],
        arguments: Sequence[str],
        folder: Path,
        working_folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        if not working_folder.is_dir():
            raise FileNotFoundError(
                f"{platform.node()} has no folder {working_folder}: all machines of a cluster must share the working "
                "folder, the Python environment, features and runs"
            )
        folder = working_folder / folder
        folder.mkdir(parents=True, exist_ok=True)
        began = datetime.now().astimezone().isoformat(timespec="seconds")
        with (folder / LOG_FILE).open("ab", buffering=0) as log:
            try:
                log.write(f"--- {began} on {platform.node()}: {shlex.join([*program, *arguments])}\n".encode())
            except OSError as error:
                error.filename = str(folder / LOG_FILE)  # a failed write does not name its file
                raise
        self._server = job_fork_server(program, environment)
        compiled = {"TORCHINDUCTOR_CACHE_DIR": str(working_folder / COMPILED_FOLDER)}
        whole = compiled | _whole_environment(environment)
        self._number = self._server.start(arguments, working_folder, whole, folder / LOG_FILE)

    def status(self) -> int | None:
        """Return the exit status, negative for a signal; None while the process runs."""
        return self._server.status(self._number)

    def __enter__(self) -> Self:
        """Return itself: the process runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the process group if it still runs."""
        for number, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, _GRACE_SECONDS)):
            self._server.send_signal(self._number, number)
            until = time.monotonic() + seconds
            while self.status() is None and time.monotonic() < until:
                time.sleep(_STOP_POLL_SECONDS)
        if self.status() is None:  # the server has not started it yet
            self._server.close()


def job_fork_server(program: Sequence[str], environment: Mapping[str, str]) -> ForkServer:
    """Return this process's fork server for jobs, started if there is none.

    Args:
        program: Command of ``ser``.
        environment: Environment variables of the jobs; they override this process's.
    """
    return fork_server(program, _whole_environment(environment))


def _whole_environment(environment: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return _ENVIRONMENT | inherited | dict(environment)


def run_to_end(
    program: Sequence[str], arguments: Sequence[str], folder: str, working_folder: str, environment: Mapping[str, str]
) -> int:
    """Run a job in a process and return its exit status; an exception here stops the process.

    Args:
        program: Command of ``ser``.
        arguments: The job's arguments.
        folder: The job's folder.
        working_folder: The process's working folder.
        environment: Environment variables; they override this process's.
    """
    with JobProcess(program, arguments, Path(folder), Path(working_folder), environment) as process:
        while (status := process.status()) is None:
            time.sleep(STATUS_SECONDS)
    return status


class Termination(KeyboardInterrupt):
    """SIGTERM, which batch systems send before SIGKILL; code that handles Ctrl-C handles it alike."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise ``Termination`` in the main thread on the first SIGTERM and ignore further ones; restore at the end.

    Processes forked meanwhile are ended by SIGTERM as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, received = os.getpid(), threading.Event()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not received.is_set():
            received.set()
            raise Termination

    earlier = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except BaseException as error:
        if received.is_set():  # Ray and Lightning raise exceptions of their own in its place
            raise Termination from error
        raise
    finally:
        signal.signal(signal.SIGTERM, earlier)


def end_with_parent() -> None:
    """Kill this process group as soon as the parent is gone.

    The fork server holds the write end of standard input, never writes, and ends with its own parent: end of file
    means that one of them is gone. A signal handler in the parent would miss SIGKILL.
    """
    kill_at_hangup(0, -os.getpgid(0))

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=wait, name="parent watch", daemon=True).start()
