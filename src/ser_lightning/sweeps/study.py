"""A sweep's study in Optuna's database, and the heartbeat of the processes that run its trials."""

import json
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import locked
from ser_lightning.sweeps.file import Method, Sweep

RANDOM_BEFORE_BAYES = 5
# Attribute in the database: the number of the trial that this one repeats.
REPEATS = "again"
_SEED = 0
_ATTEMPTS_TO_OPEN = 4
DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError, json.JSONDecodeError)
"""What Optuna raises if its database fails or is damaged."""


class _SamplerPerTrial(BaseSampler):
    """Draws each trial from a separate sampler, seeded by the trial's position.

    A sampler seeded once would repeat its first draws in each resumed or joining process.

    Args:
        make: Function from a seed to a sampler.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._sampler = make(_SEED)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the trial's sampler; repetitions keep their parameters and do not count as a position."""
        earlier = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        place = sum(REPEATS not in other.user_attrs for other in earlier)
        self._sampler = self._make(random.Random(f"{_SEED} {place}").getrandbits(32))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the distributions that are drawn together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw parameters together."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def open_study(sweep: Sweep, name: str, url: str) -> tuple[Study, str]:
    """Load or create a sweep's study; return it and the database's URL without the password.

    Args:
        sweep: The sweep.
        name: Name of the study in the database.
        url: URL of the database.

    Raises:
        ConfigurationError: If the database cannot be used.
    """
    shown = ""
    try:
        # SQLAlchemy's default driver for PostgreSQL is psycopg2; the suite installs psycopg.
        address = make_url(re.sub("^postgres(ql)?:", "postgresql+psycopg:", url))
        shown = f" ({address.render_as_string()})"
        storage = _storage(address.render_as_string(hide_password=False))
        with suppress(DuplicatedStudyError):
            optuna.create_study(storage=storage, study_name=name, direction="maximize")
        study = optuna.load_study(storage=storage, study_name=name, sampler=_sampler(sweep), pruner=_pruner(sweep))
        return study, address.render_as_string()
    except (
        ArgumentError,
        ModuleNotFoundError,
        RuntimeError,
        *DATABASE_ERRORS,
    ) as error:  # RuntimeError: of its version
        raise ConfigurationError(f"--storage{shown} cannot be used: {database_fault(error)}") from error


def database_fault(error: BaseException) -> str:
    """Return the cause of an error of the database in one line, and the way out of a damaged one."""
    cause = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
    return f"{cause}. If the database is damaged, delete it: finished folds are kept, and trials are only counted again"


def _sampler(sweep: Sweep) -> BaseSampler:
    if sweep.file.method is Method.random:
        return _SamplerPerTrial(lambda seed: RandomSampler(seed=seed))
    if sweep.file.method is Method.bayes:
        return _SamplerPerTrial(lambda seed: TPESampler(seed=seed, n_startup_trials=RANDOM_BEFORE_BAYES))
    # Categorical.draw gives Optuna the values as JSON.
    grids = {name: parameter.grid(name) for name, parameter in sweep.parameters.items()}
    space = {name: [json.dumps(value) for value in values] for name, values in grids.items() if len(values) > 1}
    return _SamplerPerTrial(lambda seed: GridSampler(space, seed=_SEED))


def _pruner(sweep: Sweep) -> BasePruner:
    early = sweep.file.early_terminate
    if early is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=early.first_rung(), reduction_factor=int(early.eta))


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Return a database with Optuna's tables; retry, since parallel attempts to create them fail but for one."""
    for _ in range(_ATTEMPTS_TO_OPEN - 1):
        with suppress(IntegrityError, OperationalError, ProgrammingError):
            return optuna.storages.RDBStorage(url)
        time.sleep(1.0)
    return optuna.storages.RDBStorage(url)


_BEAT_SECONDS = 30.0
_LOST_AFTER_SECONDS = 300.0  # for a process on another machine: ten missed beats
# A trial's attributes in the database.
_PROCESS, _ALIVE = "process", "alive"


class Heartbeat(AbstractContextManager["Heartbeat"]):
    """Marks this process as alive and detects lost ones: by file lock on this machine, by time stamp on others.

    Args:
        folder: Folder of the lock files.
        running: This process's trials by number, which each beat marks.
    """

    def __init__(self, folder: Path, running: Mapping[int, optuna.Trial]) -> None:
        self._folder = folder
        self._running = running
        self._process = f"{socket.gethostname()}:{uuid.uuid4().hex}"
        self._lock = ExitStack()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="trials' heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Take the lock and start the heartbeat."""
        self._lock.enter_context(locked(self._lock_path(self._process)))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the heartbeat and release the lock."""
        self._stopped.set()
        self._thread.join()
        self._lock.close()
        self._lock_path(self._process).unlink(missing_ok=True)

    def sign(self, trial: optuna.Trial) -> None:
        """Record that this process runs a trial."""
        trial.set_user_attr(_PROCESS, self._process)
        trial.set_user_attr(_ALIVE, time.time())

    def is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the process of a running trial is gone: its lock is free, or its last beat is old."""
        process, last_beat = trial.user_attrs.get(_PROCESS), trial.user_attrs.get(_ALIVE)
        if process is None or last_beat is None:  # killed while it started
            began = trial.datetime_start
            return began is not None and time.time() - began.timestamp() > _LOST_AFTER_SECONDS
        path = self._lock_path(process)
        if process.split(":")[0] == socket.gethostname() and path.exists():
            try:
                with locked(path, 0):
                    path.unlink(missing_ok=True)
                    return True
            except Timeout:
                return False
        return bool(time.time() - float(last_beat) > _LOST_AFTER_SECONDS)

    def _lock_path(self, process: str) -> Path:
        return self._folder / f".process-{process.rpartition(':')[2]}.lock"

    def _beat(self) -> None:
        while not self._stopped.wait(_BEAT_SECONDS):
            for trial in list(self._running.values()):
                # The trial may have just ended, and a failing database gets the next beat.
                with suppress(UpdateFinishedTrialError, StorageInternalError):
                    trial.set_user_attr(_ALIVE, time.time())
