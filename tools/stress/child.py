"""The processes under test: forks of one process that has the suite imported, each a ``ser`` command.

A command's own fork server of jobs is a fork too, which saves an import of seconds for each try; all else is as users
have it.
"""

import atexit
import builtins
import errno
import gc
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ser_lightning.cli import training
from ser_lightning.cli.__main__ import main
from ser_lightning.jobs import fork_server
from ser_lightning.jobs.fork_server import OPTION, serve
from ser_lightning.jobs.process import end_with_parent

REPORT = "--- stress: "
"""Start of the last line of a command's log; JSON follows."""
MEMORY_BYTES = 2 << 30


@dataclass(frozen=True)
class Conditions:
    """What a command meets.

    Attributes:
        full_at: Number of the write that finds the disk full, from 1; 0: none.
        lasting: Whether further writes find it full too.
        flush_each: Whether the feature store writes the frames of each file at once.
        blank_pictures: Whether pictures are blank: drawing takes most of a report's time.
    """

    full_at: int = 0
    lasting: bool = True
    flush_each: bool = False
    blank_pictures: bool = False


class Disk:
    """Counts what needs room: folders and files created, and writes; fails from the chosen one on.

    Writes of Python's files are seen; those of SQLite are not.
    """

    def __init__(self, full_at: int, lasting: bool) -> None:
        self.uses = 0
        self._full_at, self._lasting = full_at, lasting

    def use(self, path: object = None) -> None:
        """Use room, on behalf of ``path``; an error of a write does not name its file."""
        self.uses += 1
        if self._full_at and (self.uses == self._full_at or (self._lasting and self.uses > self._full_at)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([] if path is None else [os.fspath(path)]))  # type: ignore[call-overload]

    def install(self) -> None:
        """Put this disk under the functions that create and write files."""
        disk, open_file, make_folder, open_number = self, builtins.open, os.mkdir, os.open

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                disk.use()
                return super().write(data)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return open_file(file, mode, buffering, *rest, **options)
            if not os.path.exists(file):
                disk.use(file)
            raw = File(file, mode.replace("b", "").replace("t", ""), True, options.pop("opener", None))
            if buffering == 0:
                return raw
            buffer: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            if "b" in mode:
                return buffer
            options.pop("closefd", None)
            return io.TextIOWrapper(buffer, *rest, **options)

        def made(path: Any, *rest: Any, **options: Any) -> None:
            if not os.path.exists(path):
                disk.use(path)
            make_folder(path, *rest, **options)

        def opened_number(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):
                disk.use(path)
            return open_number(path, flags, *rest, **options)

        builtins.open = io.open = opened
        os.mkdir, os.open = made, opened_number


class ForkedServer:
    """Stands for ``subprocess.Popen`` of a fork server: a fork of this process, which has the suite imported."""

    def __init__(self, command: Sequence[str], pass_fds: Sequence[int], env: dict[str, str], **_: Any) -> None:
        requests, self_in = os.pipe()
        self_out, replies = os.pipe()
        if (pid := os.fork()) == 0:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(requests, 0)
            os.dup2(replies, 1)
            hangup = os.dup2(pass_fds[0], 3)
            os.closerange(4, 1 << 12)  # a write end kept open would hide that the other side has ended
            atexit._clear()  # what it would do at the exit of the command
            sys.argv[1:] = [OPTION, str(hangup)]
            os.environ.clear()
            os.environ.update(env)
            serve(lambda: None, main)
        os.close(requests)
        os.close(replies)
        self.stdin = os.fdopen(self_in, "wb")
        self.stdout = os.fdopen(self_out, "rb")
        self.pid = pid

    def kill(self) -> None:
        """Kill the server."""
        os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> "ForkedServer":
        return self

    def __exit__(self, *_: object) -> None:
        os.waitpid(self.pid, 0)
        self.stdin.close()
        self.stdout.close()


def import_all() -> None:
    """Import what the commands use."""
    import matplotlib.figure  # noqa: F401
    import optuna  # noqa: F401

    from ser_lightning.cross_validation import audit, cross_validate, tables  # noqa: F401
    from ser_lightning.inference import classification, command  # noqa: F401
    from ser_lightning.published import lookup  # noqa: F401
    from ser_lightning.reports import report, terminal  # noqa: F401
    from ser_lightning.sweeps import run  # noqa: F401

    training.import_what_jobs_need()


def run(arguments: Sequence[str]) -> int:
    """Run ``ser`` under the conditions of the first argument, in JSON, and report peak memory and writes at the end."""
    end_with_parent()
    conditions = Conditions(**json.loads(arguments[0]))
    disk = Disk(conditions.full_at, conditions.lasting)
    limit_memory()
    fork_server.subprocess = type("", (), {"Popen": ForkedServer, "PIPE": subprocess.PIPE})  # type: ignore[assignment,attr-defined]
    if conditions.flush_each:
        from ser_lightning.features import FeatureStore

        FeatureStore.flush_seconds = 0.0
    if conditions.blank_pictures:
        leave_pictures_blank()
    sys.argv[1:] = arguments[1:]
    disk.install()
    try:
        return main(arguments[1:])
    finally:
        # Linux counts KiB, and counts from the fork on.
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(f"\n{REPORT}{json.dumps({'peak_mib': peak / 1024, 'uses': disk.uses})}", flush=True)


def limit_memory() -> None:
    """Let this process map ``MEMORY_BYTES`` more than now, so that the machine stays usable if a command runs away."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def leave_pictures_blank() -> None:
    """Write blank pictures."""
    from matplotlib.figure import Figure

    save = Figure.savefig

    def save_blank(figure: Figure, file: Any, **_: Any) -> None:
        save(Figure((1, 1)), file, format="png")

    Figure.savefig = save_blank  # type: ignore[assignment,method-assign]


def encoded(conditions: Conditions) -> str:
    """Return conditions as the first argument of ``run``."""
    return json.dumps(asdict(conditions))


if __name__ == "__main__":
    gc.disable()  # until `serve` has frozen what is imported
    serve(import_all, run)
