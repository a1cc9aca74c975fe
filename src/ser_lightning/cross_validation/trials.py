"""The trials of a sweep, kept in a database by Optuna, so that several processes and machines may share them.

A process that is killed leaves its trials running in the database. Whoever looks next and finds that nobody runs them
begins them again, with the same parameters: what is done of their folds is on disk.
"""

import json
import math
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from ser_lightning.cross_validation.search_space import flatten, trial_row
from ser_lightning.cross_validation.sweep_file import Method, Sweep
from ser_lightning.errors import ConfigurationError
from ser_lightning.run_record import differing_keys

_SEED = 0
RANDOM_BEFORE_BAYES = 5
_ATTEMPTS_TO_OPEN = 4
_BEAT_SECONDS = 30.0
_LOST_AFTER_SECONDS = 300.0  # of a process on another machine: ten beats missed
# What is kept with a trial.
_PARAMETERS, _PROCESS, _ALIVE, _REASON, _AGAIN = "parameters", "process", "alive", "reason", "again"
_FOUNDATION = "sweep"


class ByNumber(BaseSampler):
    """Draw each trial from a sampler of its own, seeded with its place among the trials.

    A sampler that is seeded once repeats its first draws when a sweep goes on, and in every process that joins.

    Args:
        make: Makes a sampler of a seed.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._sampler = make(_SEED)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Take the sampler of this trial; one that is begun again keeps its parameters, and takes nobody's place."""
        earlier = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        place = sum(_AGAIN not in other.user_attrs for other in earlier)
        self._sampler = self._make(random.Random(f"{_SEED} {place}").getrandbits(32))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what the sampler draws together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw these together."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one by itself."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


@dataclass(frozen=True)
class Trial:
    """A trial that this process runs.

    Attributes:
        number: Its number in the study.
        parameters: Value by LightningCLI's key.
    """

    number: int
    parameters: dict[str, Any]


class Trials(AbstractContextManager["Trials"]):
    """The trials of one sweep. While entered, this process is known to be alive.

    Args:
        sweep: What is swept.
        name: Names the sweep in the database, and tells it from others there.
        folder: The sweep's folder; processes that share it see at once when one of them is gone.
        storage: URL of a database; none for a file of SQLite in the folder.
        limit: Number of trials at most; none for the file's ``run_cap``, or all of a grid.

    Raises:
        ConfigurationError: If the number of trials is not given, or the database cannot be used.
    """

    def __init__(self, sweep: Sweep, name: str, folder: Path, storage: str | None, limit: int | None) -> None:
        self.sweep = sweep
        self.folder = folder
        self._limit = _limit(sweep, limit)
        self._process = f"{socket.gethostname()}:{uuid.uuid4().hex}"
        self._lock = FileLock(self._lock_path(self._process))
        self._running: dict[int, optuna.Trial] = {}
        self._stopped = threading.Event()
        self._beat = threading.Thread(target=self._stay_alive, name="trials' heartbeat", daemon=True)
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study, self.place = _open(sweep, name, storage or f"sqlite:///{(folder / 'sweep.db').resolve()}")

    def __enter__(self) -> Self:
        """Let others know that this process is alive."""
        self._lock.acquire()
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others know that it is gone: trials that it leaves behind are whose who comes next."""
        self._stopped.set()
        self._beat.join()
        for trial in self.all():
            if trial.number in self._running:
                self._begin_again(trial)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def refuse_other_foundation(self, foundation: Mapping[str, Any]) -> None:
        """Keep what all trials have in common, or check that it is what the earlier ones had.

        Args:
            foundation: Folds, seeds and the configuration that the parameters change.

        Raises:
            ConfigurationError: If their scores must not be compared; it names each key.
        """
        earlier = self.study.user_attrs.get(_FOUNDATION)
        if earlier is None:
            self.study.set_user_attr(_FOUNDATION, foundation)
        elif differences := differing_keys(earlier, foundation):
            raise ConfigurationError(
                f"the trials of {self.study.study_name} in {self.place} were not made like this:\n"
                + "\n".join(differences)
                + "\nUse --row NAME for a sweep of its own."
            )

    def begin(self) -> Trial | None:
        """Begin the next trial, or None if there are enough, or one has reached the target."""
        self._begin_lost_again()
        while self._left() > 0 and not self._target_reached():
            begun = self.study.ask()
            parameters = {name: parameter.draw(begun, name) for name, parameter in self.sweep.parameters.items()}
            begun.set_user_attr(_PARAMETERS, parameters)
            begun.set_user_attr(_PROCESS, self._process)
            begun.set_user_attr(_ALIVE, time.time())
            others = [trial for trial in self.all() if trial.number < begun.number and same(trial, parameters)]
            if done := [trial for trial in others if trial.state is TrialState.COMPLETE]:
                self.study.tell(begun, done[0].value)  # its folds would be found done
            elif running := [trial for trial in others if trial.state is TrialState.RUNNING]:
                self._fail(begun, f"the same as trial {running[0].number}, which is running")
            else:
                self._running[begun.number] = begun
                return Trial(begun.number, parameters)
        return None

    def report(self, trial: Trial, folds: int, value: float) -> bool:
        """Keep the objective over a trial's first folds; return whether it is to be stopped there."""
        running = self._running[trial.number]
        running.report(value, folds)
        return running.should_prune()

    def complete(self, trial: Trial, value: float) -> None:
        """Keep the objective of a trial whose folds are done."""
        self.study.tell(self._running.pop(trial.number), value)

    def stop(self, trial: Trial) -> None:
        """Keep that a trial was stopped before its last fold."""
        self.study.tell(self._running.pop(trial.number), state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Keep why a trial has no objective; the next call of the sweep tries it again."""
        self._fail(self._running.pop(trial.number), reason)

    def begin_failed_again(self) -> None:
        """Plan once more every trial that failed before this process began."""
        for trial in self.all():
            if trial.state is TrialState.FAIL and _REASON in trial.user_attrs and trial.number not in self._repeated():
                self._plan_again(trial)

    def all(self) -> list[FrozenTrial]:
        """Return every trial by ascending number."""
        return self.study.get_trials(deepcopy=False)

    def shown(self) -> list[FrozenTrial]:
        """Return every trial that was not begun again as another."""
        repeated = self._repeated()
        return [trial for trial in self.all() if trial.number not in repeated]

    def best(self) -> FrozenTrial | None:
        """Return the best trial among those with all folds, the earliest of equals, or None."""
        done = [trial for trial in self.all() if trial.state is TrialState.COMPLETE]
        return max(done, key=lambda trial: (trial.value, -trial.number)) if done else None

    def are_finished(self) -> bool:
        """Whether there is nothing left to run, here or elsewhere."""
        unfinished = any(not trial.state.is_finished() for trial in self.all())
        return not unfinished and (self._left() <= 0 or self._target_reached())

    def _left(self) -> int:
        """Return how many trials may still begin: those that wait, and those that nobody has thought of."""
        return self._limit - sum(trial.state is not TrialState.WAITING for trial in self.shown())

    def _target_reached(self) -> bool:
        target, best = self.sweep.file.metric.target, self.best()
        return target is not None and best is not None and (best.value or 0.0) >= target

    def _repeated(self) -> set[int]:
        return {trial.user_attrs[_AGAIN] for trial in self.all() if _AGAIN in trial.user_attrs}

    def _begin_lost_again(self) -> None:
        for trial in self.all():
            if trial.state is TrialState.RUNNING and trial.number not in self._running and self._is_lost(trial):
                self._begin_again(trial)

    def _begin_again(self, trial: FrozenTrial) -> None:
        # Of several processes, who marks it first is who plans it.
        with suppress(UpdateFinishedTrialError, ValueError):
            self.study.tell(trial.number, state=TrialState.FAIL)
            self._plan_again(trial)

    def _plan_again(self, trial: FrozenTrial) -> None:
        again = create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={_AGAIN: trial.number},
            system_attrs=trial.system_attrs,  # a grid's sampler keeps the point's index there
        )
        self.study.add_trial(again)

    def _is_lost(self, trial: FrozenTrial) -> bool:
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
        return self.folder / f".process-{process.rpartition(':')[2]}.lock"

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(_REASON, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def _stay_alive(self) -> None:
        while not self._stopped.wait(_BEAT_SECONDS):
            for trial in list(self._running.values()):
                with suppress(UpdateFinishedTrialError):
                    trial.set_user_attr(_ALIVE, time.time())


def same(trial: FrozenTrial, parameters: Mapping[str, Any]) -> bool:
    """Whether a trial has these parameters."""
    theirs = trial.user_attrs.get(_PARAMETERS)
    return theirs is not None and trial_row(theirs) == trial_row(parameters)


def parameters_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's parameters: value by LightningCLI's key; none of one that has not begun."""
    return dict(flatten(trial.user_attrs.get(_PARAMETERS, {})))


def reason_of(trial: FrozenTrial) -> str:
    """Return why a trial failed, in words, or nothing."""
    return str(trial.user_attrs.get(_REASON, ""))


def _limit(sweep: Sweep, asked: int | None) -> int:
    caps = [cap for cap in (asked, sweep.file.run_cap) if cap is not None]
    if sweep.file.method is Method.grid:
        return min([math.prod(len(parameter.grid(name)) for name, parameter in sweep.parameters.items()), *caps[:1]])
    if not caps:
        raise ConfigurationError(f"{sweep.path}: {sweep.file.method.value} has no end by itself; give --trials N")
    return caps[0]


def _sampler(sweep: Sweep) -> BaseSampler:
    if sweep.file.method is Method.random:
        return ByNumber(lambda seed: RandomSampler(seed=seed))
    if sweep.file.method is Method.bayes:
        return ByNumber(lambda seed: TPESampler(seed=seed, n_startup_trials=RANDOM_BEFORE_BAYES))
    # What Optuna draws for a parameter with several values is text.
    grids = {name: parameter.grid(name) for name, parameter in sweep.parameters.items()}
    space = {name: [json.dumps(value) for value in values] for name, values in grids.items() if len(values) > 1}
    return ByNumber(lambda seed: GridSampler(space, seed=_SEED))


def _pruner(sweep: Sweep) -> BasePruner:
    early = sweep.file.early_terminate
    if early is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=early.first_rung(), reduction_factor=int(early.eta))


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Return a database with Optuna's tables in it; of processes that make them at once, all but one fail at first."""
    for _ in range(_ATTEMPTS_TO_OPEN - 1):
        with suppress(IntegrityError, OperationalError, ProgrammingError):
            return optuna.storages.RDBStorage(url)
        time.sleep(1.0)
    return optuna.storages.RDBStorage(url)


def _open(sweep: Sweep, name: str, url: str) -> tuple[Study, str]:
    """Return the study, made if it is not there, and the database's URL without a password."""
    try:
        # SQLAlchemy's own default for PostgreSQL is a driver that is not ours.
        address = make_url(re.sub("^postgres(ql)?:", "postgresql+psycopg:", url))
        storage = _storage(address.render_as_string(hide_password=False))
        with suppress(DuplicatedStudyError):
            optuna.create_study(storage=storage, study_name=name, direction="maximize")
        study = optuna.load_study(storage=storage, study_name=name, sampler=_sampler(sweep), pruner=_pruner(sweep))
        return study, address.render_as_string()
    except (ArgumentError, ModuleNotFoundError, SQLAlchemyError) as error:
        raise ConfigurationError(f"--storage cannot be used: {str(error).splitlines()[0]}") from error
