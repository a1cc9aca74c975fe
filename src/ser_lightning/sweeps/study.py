"""A sweep's study in Optuna's database: how trials are drawn, pruned and stored, and which process runs each."""

import json
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from ser_lightning.errors import ConfigurationError
from ser_lightning.sweeps.file import Method, Sweep

RANDOM_BEFORE_BAYES = 5
# Name in the database, of a trial that repeats another: that one's number.
REPEATS = "again"
_SEED = 0
_ATTEMPTS_TO_OPEN = 4


class _SamplerPerTrial(BaseSampler):
    """Draw each trial from its own sampler, seeded with its place among the trials.

    A sampler that is seeded once repeats its first draws when a sweep resumes, and in every process that joins.

    Args:
        make: Makes a sampler from a seed.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._sampler = make(_SEED)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial; one that repeats another keeps its parameters and does not count."""
        earlier = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        place = sum(REPEATS not in other.user_attrs for other in earlier)
        self._sampler = self._make(random.Random(f"{_SEED} {place}").getrandbits(32))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the distributions that the sampler draws together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw parameters together."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter by itself."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def open_study(sweep: Sweep, name: str, url: str) -> tuple[Study, str]:
    """Return a sweep's study, made where there is none, and the database's URL without its password.

    Args:
        sweep: What is swept.
        name: Names the sweep in the database.
        url: The database.

    Raises:
        ConfigurationError: If the database cannot be used.
    """
    try:
        # SQLAlchemy's default driver for PostgreSQL is another than the one installed with the suite.
        address = make_url(re.sub("^postgres(ql)?:", "postgresql+psycopg:", url))
        storage = _storage(address.render_as_string(hide_password=False))
        with suppress(DuplicatedStudyError):
            optuna.create_study(storage=storage, study_name=name, direction="maximize")
        study = optuna.load_study(storage=storage, study_name=name, sampler=_sampler(sweep), pruner=_pruner(sweep))
        return study, address.render_as_string()
    except (ArgumentError, ModuleNotFoundError, SQLAlchemyError) as error:
        raise ConfigurationError(f"--storage cannot be used: {str(error).splitlines()[0]}") from error


def _sampler(sweep: Sweep) -> BaseSampler:
    if sweep.file.method is Method.random:
        return _SamplerPerTrial(lambda seed: RandomSampler(seed=seed))
    if sweep.file.method is Method.bayes:
        return _SamplerPerTrial(lambda seed: TPESampler(seed=seed, n_startup_trials=RANDOM_BEFORE_BAYES))
    # Optuna draws text for a parameter with several values; see Categorical.draw.
    grids = {name: parameter.grid(name) for name, parameter in sweep.parameters.items()}
    space = {name: [json.dumps(value) for value in values] for name, values in grids.items() if len(values) > 1}
    return _SamplerPerTrial(lambda seed: GridSampler(space, seed=_SEED))


def _pruner(sweep: Sweep) -> BasePruner:
    early = sweep.file.early_terminate
    if early is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=early.first_rung(), reduction_factor=int(early.eta))


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Return a database with Optuna's tables; of processes that make them at once, all but one fail at first."""
    for _ in range(_ATTEMPTS_TO_OPEN - 1):
        with suppress(IntegrityError, OperationalError, ProgrammingError):
            return optuna.storages.RDBStorage(url)
        time.sleep(1.0)
    return optuna.storages.RDBStorage(url)


_BEAT_SECONDS = 30.0
_LOST_AFTER_SECONDS = 300.0  # for a process on another machine: ten missed beats
# Names in the database, of a trial.
_PROCESS, _ALIVE = "process", "alive"


class Heartbeat(AbstractContextManager["Heartbeat"]):
    """Shows while entered that this process is alive, and whether others are: by a lock here, by a beat elsewhere.

    Args:
        folder: Processes on one machine that share it see a death at once, by a lock file.
        running: This process's trials by number; each beat marks those that are there.
    """

    def __init__(self, folder: Path, running: Mapping[int, optuna.Trial]) -> None:
        self._folder = folder
        self._running = running
        self._process = f"{socket.gethostname()}:{uuid.uuid4().hex}"
        self._lock = FileLock(self._lock_path(self._process))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="trials' heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Take the lock and start the beat."""
        self._lock.acquire()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the beat and release the lock."""
        self._stopped.set()
        self._thread.join()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def sign(self, trial: optuna.Trial) -> None:
        """Record that this process runs a trial."""
        trial.set_user_attr(_PROCESS, self._process)
        trial.set_user_attr(_ALIVE, time.time())

    def is_lost(self, trial: FrozenTrial) -> bool:
        """Whether a trial marked as running has no process: its lock is free, or its beat is old."""
        process, heard = trial.user_attrs.get(_PROCESS), trial.user_attrs.get(_ALIVE)
        if process is None or heard is None:  # killed while it started
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
                # A trial that has just ended needs no beat; a database that fails once gets the next one.
                with suppress(UpdateFinishedTrialError, StorageInternalError):
                    trial.set_user_attr(_ALIVE, time.time())
