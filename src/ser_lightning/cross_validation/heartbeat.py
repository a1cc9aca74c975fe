"""Which process runs a trial, and whether that process is still there."""

import socket
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial

_BEAT_SECONDS = 30.0
_LOST_AFTER_SECONDS = 300.0  # of a process on another machine: ten beats missed
# What is kept with a trial.
_PROCESS, _ALIVE = "process", "alive"


class Heartbeat(AbstractContextManager["Heartbeat"]):
    """Signs of life of this process, while entered, and those of others.

    Args:
        folder: Processes that share it see at once when one of them is gone.
        running: This process's trials by number, as they stand at each beat.
    """

    def __init__(self, folder: Path, running: Mapping[int, optuna.Trial]) -> None:
        self._folder = folder
        self._running = running
        self._process = f"{socket.gethostname()}:{uuid.uuid4().hex}"
        self._lock = FileLock(self._lock_path(self._process))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="trials' heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Let others know that this process is alive."""
        self._lock.acquire()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others know that it is gone."""
        self._stopped.set()
        self._thread.join()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def sign(self, trial: optuna.Trial) -> None:
        """Keep that this process runs a trial."""
        trial.set_user_attr(_PROCESS, self._process)
        trial.set_user_attr(_ALIVE, time.time())

    def is_lost(self, trial: FrozenTrial) -> bool:
        """Whether nobody runs a running trial: its process has let go of its lock, or not been heard of for long."""
        process, heard = trial.user_attrs.get(_PROCESS), trial.user_attrs.get(_ALIVE)
        if process is None or heard is None:  # killed while it began
            began = trial.datetime_start
            return began is not None and time.time() - began.timestamp() > _LOST_AFTER_SECONDS
        path = self._lock_path(process)
        if process.split(":")[0] == socket.gethostname() and path.exists():
            try:
                with FileLock(path, timeout=0):
                    path.unlink(missing_ok=True)
                    return True
            except Timeout:
                return False
        return bool(time.time() - float(heard) > _LOST_AFTER_SECONDS)

    def _lock_path(self, process: str) -> Path:
        return self._folder / f".process-{process.rpartition(':')[2]}.lock"

    def _beat(self) -> None:
        while not self._stopped.wait(_BEAT_SECONDS):
            for trial in list(self._running.values()):
                # One that has just ended needs no sign; a database that is away for a moment gets the next one.
                with suppress(UpdateFinishedTrialError, StorageInternalError):
                    trial.set_user_attr(_ALIVE, time.time())
