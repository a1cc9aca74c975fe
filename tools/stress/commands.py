"""``ser`` commands under test, seen from outside: their output, exit status, time, memory and processes."""

import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ser_lightning.jobs.fork_server import ForkServer
from tools.stress.child import MEMORY_BYTES, REPORT, Conditions, encoded

PROGRAM = (sys.executable, "-m", "tools.stress.child")
REPOSITORY = Path(__file__).resolve().parents[2]
MOST_SECONDS = 20.0


def most_seconds(calm_seconds: float = 0.0) -> float:
    """Return after how long a command counts as hung: 20 s, up to 80 s on a busy machine, more for one that trains.

    Args:
        calm_seconds: How long it takes undisturbed.
    """
    return (MOST_SECONDS + 2 * calm_seconds) * min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Exit status, negative for a signal; None if it was still running at its limit, and was killed.
        output: Standard output and error.
        seconds: Time taken.
        peak_mib: Largest resident memory; 0 if it was killed.
        uses: How often it needed room on the disk.
    """

    status: int | None
    output: str
    seconds: float
    peak_mib: float = 0.0
    uses: int = 0

    def fault(self) -> str:
        """Return why no command may end like this, or an empty text: a right end is a result or one clear error."""
        last = self.output.strip().rpartition("\n")[2]
        if self.status is None:
            return f"was still running after {self.seconds:.0f} s"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        if "Traceback (most recent call last)" in self.output:
            return f"shows a traceback: {last}"
        if "SER_TRACEBACK" in self.output:
            return f"has an unexpected error: {last}"
        if self.status not in (0, 1, 2):
            return f"exit status {self.status}"
        if self.status == 1 and not re.search("error|unusable|failed|skipped|could not", self.output):
            return f"exit status 1 without an error: {last}"
        if self.peak_mib * 1024**2 > MEMORY_BYTES:
            return f"used {self.peak_mib:.0f} MiB"
        return ""


class Command:
    """A command that runs.

    Args:
        server: The fork server.
        environment: The whole environment.
        arguments: Arguments of ``ser``.
        folder: Working folder, which its processes share and no others do.
        conditions: What it meets.
    """

    def __init__(
        self,
        server: ForkServer,
        environment: Mapping[str, str],
        arguments: Iterable[str],
        folder: Path,
        conditions: Conditions,
    ) -> None:
        self._server, self._folder = server, folder
        handle, log = tempfile.mkstemp(prefix="log-", dir=folder.parent)
        os.close(handle)
        self._log = Path(log)
        self._began = time.monotonic()
        self._number = server.start([encoded(conditions), *arguments], folder, environment, self._log)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._server.status(self._number) is None

    def wait(self, calm_seconds: float = 0.0) -> Ended:
        """Wait for the end; kill it when it counts as hung: see ``most_seconds``."""
        seconds = most_seconds(calm_seconds)
        while (status := self._server.status(self._number)) is None and time.monotonic() - self._began < seconds:
            time.sleep(0.005)
        taken = time.monotonic() - self._began
        if status is None:
            kill_all(self._folder)
        if not self._server.is_alive:
            raise RuntimeError("the fork server of the commands under test has died")
        output, _, report = self._log.read_text(errors="replace").rpartition(REPORT)
        measured = json.loads(report) if output else {}
        return Ended(status, output or report, taken, **measured)


_ENVIRONMENT = {"COLUMNS": "160", "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


class Commands:
    """Starts commands from one process that has the suite imported; close it at the end.

    Args:
        temporary: Folder of temporary files.

    Attributes:
        slowest_seconds: Time of the slowest command without training so far.
        peak_mib: Largest memory of a command so far.
    """

    def __init__(self, temporary: Path) -> None:
        self.slowest_seconds = self.peak_mib = 0.0
        self._environment = dict(os.environ) | _ENVIRONMENT | {"TMPDIR": str(temporary)}
        path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH", ""))))
        self._server = ForkServer(PROGRAM, self._environment | {"PYTHONPATH": path})

    def start(self, arguments: Iterable[str], folder: Path, conditions: Conditions = Conditions()) -> Command:  # noqa: B008  # frozen, so shared safely
        """Start a command in its working folder."""
        return Command(self._server, self._environment, arguments, folder, conditions)

    def run(
        self,
        arguments: Iterable[str],
        folder: Path,
        conditions: Conditions = Conditions(),  # noqa: B008  # frozen, so shared safely
        calm_seconds: float = 0.0,
    ) -> Ended:
        """Run a command to its end, or until it counts as hung: see ``most_seconds``."""
        ended = self.start(arguments, folder, conditions).wait(calm_seconds)
        self.slowest_seconds = max(self.slowest_seconds, 0.0 if calm_seconds else ended.seconds)
        self.peak_mib = max(self.peak_mib, ended.peak_mib)
        return ended

    def close(self) -> None:
        """End the server and all commands."""
        self._server.close()


def processes_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is ``folder``, oldest first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return sorted(found)


def kill_all(folder: Path) -> None:
    """Kill the processes in ``folder``, as a machine that loses power does."""
    for process in processes_in(folder):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def kill_one(folder: Path, rng: random.Random) -> None:
    """Kill one of the processes in ``folder``."""
    if found := processes_in(folder):
        with suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)


def all_end(folder: Path) -> bool:
    """Wait until no process is in ``folder``; kill them and return False if some are still there after 20 s."""
    until = time.monotonic() + most_seconds()
    while processes_in(folder):
        if time.monotonic() > until:
            kill_all(folder)
            return False
        time.sleep(0.01)
    return True
