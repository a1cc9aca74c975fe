"""A process that has the suite imported and forks jobs: an import takes seconds, a fork hundredths of one.

Requests and replies are lines of JSON on the server's standard input and output. The server has no CUDA context and no
Python thread. Every job stays a process of its own: it has its own process group, and a crash ends that job alone.
Python's ``multiprocessing`` would import the caller's main module again in each job, which a script does not expect.
"""

import atexit
import fcntl
import gc
import json
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

OPTION = "--fork-server"
"""First argument of a ``ser`` that is a fork server; the second is a pipe that its parent closes by ending."""
_F_SETSIG = 10  # of Linux; missing in fcntl before Python 3.12


class ForkServer:
    """The side of the process that requests jobs.

    Args:
        program: Command of ``ser``; with ``--fork-server`` it calls ``serve``.
        environment: The server's whole environment. Libraries read some variables on import only, such as
            OMP_NUM_THREADS.
    """

    def __init__(self, program: Sequence[str], environment: Mapping[str, str]) -> None:
        hangup, self._alive = os.pipe()
        self._process = subprocess.Popen(
            [*program, OPTION, str(hangup)],
            pass_fds=(hangup,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C reaches the planner only, which stops the jobs
        )
        os.close(hangup)
        assert self._process.stdout
        os.set_blocking(self._process.stdout.fileno(), False)
        self._number = 0
        self._partial_reply = b""
        self._pids: dict[int, int] = {}
        self._statuses: dict[int, int] = {}
        self.is_alive = True
        atexit.register(self.close)

    def start(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
        """Request a job and return its number; the job starts as soon as the server has imported the suite.

        Args:
            arguments: Arguments of ``ser``.
            folder: Working folder.
            environment: The job's whole environment.
            log: File to which its output is appended.
        """
        self._number += 1
        request = {
            "number": self._number,
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
            "log": str(log),
        }
        assert self._process.stdin
        with suppress(BrokenPipeError):  # the server has died; `status` says so
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        return self._number

    def status(self, number: int) -> int | None:
        """Return a job's exit status, negative for a signal; None while it runs or waits for the server.

        Jobs end with their server, as if killed.
        """
        self._read_replies()
        return self._statuses.get(number, None if self.is_alive else -signal.SIGKILL)

    def send_signal(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to the process group of a job that still runs."""
        if self.status(number) is None and number in self._pids:
            with suppress(ProcessLookupError):
                os.killpg(self._pids[number], sent)

    def close(self) -> None:
        """End the server, and with it the jobs that still run."""
        self.is_alive = False
        atexit.unregister(self.close)
        # Leaving waits, and flushes a request that a dead server has not read.
        with suppress(BrokenPipeError), self._process as process:
            process.kill()
        os.close(self._alive)

    def _read_replies(self) -> None:
        assert self._process.stdout
        while self.is_alive:
            try:
                data = os.read(self._process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self.close()
            *replies, self._partial_reply = (self._partial_reply + data).split(b"\n")
            for number, name, value in map(json.loads, replies):
                {"pid": self._pids, "status": self._statuses}[name][number] = value


def serve(prepare: Callable[[], None], run: Callable[[Sequence[str]], int]) -> NoReturn:
    """Fork a process for each request; end with the parent.

    Args:
        prepare: Imports what jobs need.
        run: Runs a job's arguments and returns its exit status, in a process whose working folder, environment, output
            and ``sys.argv`` are the job's.
    """
    kill_at_hangup(int(sys.argv[2]), os.getpid())
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what an import prints is not a reply
    prepare()
    gc.collect()
    gc.freeze()  # jobs share these pages with the server as long as the collector does not write to them
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a batch system sends it to all processes; jobs may still save
    signal.set_wakeup_fd(waker)
    running: dict[int, tuple[int, int]] = {}  # of each process: the job's number, the pipe that tells it we live
    for request in _requests(requests, wake, lambda: _reap(running, replies)):
        stdin, alive = os.pipe()
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            for changed in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(changed, signal.SIG_DFL)
            for inherited in (requests, replies, wake, waker, alive, *(pipe for _, pipe in running.values())):
                os.close(inherited)
            _become(request, stdin)
            _run_and_exit(run, request["arguments"])
        with suppress(PermissionError, ProcessLookupError):  # the child has done so, or has ended
            os.setpgid(pid, pid)
        os.close(stdin)
        running[pid] = (request["number"], alive)
        _reply(replies, request["number"], "pid", pid)
    os._exit(0)  # at once: the jobs' pipes close, and they end


def kill_at_hangup(pipe: int, process: int) -> None:
    """Have the kernel kill a process as soon as the other end of a pipe is closed, to which nobody writes.

    A Python thread would wait until an import of torch, which takes up to 20 s on a busy machine, lets it run. Only
    Linux can do this.

    Args:
        pipe: The end to read from; nothing happens if it is not a pipe.
        process: The process's id; negative: of a process group.
    """
    if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(pipe).st_mode):
        fcntl.fcntl(pipe, fcntl.F_SETOWN, process)
        fcntl.fcntl(pipe, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        closed = select.poll()
        closed.register(pipe, 0)
        if closed.poll(0):  # before the kernel was asked
            os.kill(process, signal.SIGKILL)


def _requests(requests: int, wake: int, on_wake: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield requests until the parent is gone; call ``on_wake`` whenever a child may have ended."""
    partial = b""
    while True:
        ready, _, _ = select.select([requests, wake], [], [])
        if wake in ready:
            os.read(wake, 1 << 12)
            on_wake()
        if requests in ready:
            if not (data := os.read(requests, 1 << 16)):
                return
            *lines, partial = (partial + data).split(b"\n")
            yield from map(json.loads, lines)


def _reap(running: dict[int, tuple[int, int]], replies: int) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        number, pipe = running.pop(pid)
        os.close(pipe)
        _reply(replies, number, "status", os.waitstatus_to_exitcode(status))


def _reply(replies: int, number: int, name: str, value: int) -> None:
    try:
        os.write(replies, json.dumps([number, name, value]).encode() + b"\n")
    except BrokenPipeError:
        os._exit(0)


def _become(request: Mapping[str, Any], stdin: int) -> None:
    """Make this process the job's."""
    os.setpgid(0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for source, target in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for source in (stdin, log):
        os.close(source)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    sys.argv[1:] = request["arguments"]  # from which Lightning makes the commands of a job's other processes


def _run_and_exit(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> NoReturn:
    """Run a job and end its process as Python does, but without the destructors of libraries.

    They would join threads that only the server has: onnxruntime's, which torchmetrics imports, end the process.
    """
    status: Any = 1
    try:
        status = run(arguments)
    except SystemExit as end:
        status = 0 if end.code is None else end.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


_servers: dict[tuple[tuple[str, ...], str], ForkServer] = {}


def fork_server(program: Sequence[str], environment: Mapping[str, str]) -> ForkServer:
    """Return this process's server for a program and number of threads, started if there is none.

    Args:
        program: Command of ``ser``.
        environment: The environment of a job.
    """
    key = (tuple(program), environment.get("OMP_NUM_THREADS", ""))
    if key not in _servers or not _servers[key].is_alive:
        _servers[key] = ForkServer(program, environment)
    return _servers[key]
