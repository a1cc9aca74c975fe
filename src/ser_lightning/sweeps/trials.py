"""The trials of a sweep in Optuna's database, which several processes and machines may share.

A killed process leaves its trials marked as running. Another process that detects this queues them again with the same
parameters; their finished folds are kept on disk.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import differing_keys, flatten
from ser_lightning.runs.names import trial_row
from ser_lightning.sweeps.file import Sweep
from ser_lightning.sweeps.report import COMPLETE, TrialRecord
from ser_lightning.sweeps.study import DATABASE_ERRORS, REPEATS, Heartbeat, database_fault, open_study

# Attributes in the database: a trial's parameters and reason of failure, the study's shared settings.
_PARAMETERS, _REASON, _SHARED = "parameters", "reason", "sweep"
FAILED = "failed"
_STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trial_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's parameters: value by LightningCLI's key; empty before it starts."""
    return dict(flatten(trial.user_attrs.get(_PARAMETERS, {})))


def trial_record(trial: FrozenTrial, row: str) -> TrialRecord:
    """Return a trial as shown in reports.

    Args:
        trial: The trial.
        row: The sweep's name given by the user, or the default.
    """
    parameters = trial_parameters(trial)
    objective = trial.value if trial.state is TrialState.COMPLETE else None
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        objective = trial.intermediate_values[max(trial.intermediate_values)]
    return TrialRecord(
        number=trial.number,
        parameters=parameters,
        state=_STATES[trial.state],
        objective=objective,
        row=trial_row(parameters, row) if parameters else "",
        note=str(trial.user_attrs.get(_REASON, "")),
    )


class TrialReassignedError(Exception):
    """Another process considered this one lost and runs its trial; that result counts."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial that this process runs.

    Attributes:
        number: Its number in the study.
        parameters: Value by LightningCLI's key.
    """

    number: int
    parameters: dict[str, Any]


class TrialStore(AbstractContextManager["TrialStore"]):
    """The trials of a sweep in its database. While entered, this process counts as alive.

    Args:
        sweep: The sweep.
        name: Name of the study in the database.
        folder: The sweep's folder, with the processes' locks.
        storage: URL of a database; None: an SQLite file in the folder.
        limit: Largest number of trials; None: the file's ``run_cap``, or the whole grid.

    Raises:
        ConfigurationError: If the number of trials has no limit, or the database cannot be used.
    """

    def __init__(self, sweep: Sweep, name: str, folder: Path, storage: str | None, limit: int | None) -> None:
        self.sweep = sweep
        self.folder = folder
        self._limit = sweep.trial_limit(limit)
        self._running: dict[int, optuna.Trial] = {}
        self._heartbeat = Heartbeat(folder, self._running)
        # Processes that draw at the same time would not see each other's draws.
        self._drawing = FileLock(folder / ".drawing.lock")
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study, self.database = open_study(sweep, name, storage or f"sqlite:///{(folder / 'sweep.db').resolve()}")

    def __enter__(self) -> Self:
        """Start the heartbeat."""
        self._heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Queue this process's unfinished trials again, and stop the heartbeat."""
        try:
            with suppress(*DATABASE_ERRORS), self._drawing:
                for trial in self.all():
                    if trial.number in self._running:
                        self._requeue(trial)
        finally:
            self._heartbeat.__exit__(kind, error, trace)
        if isinstance(error, DATABASE_ERRORS):
            raise ConfigurationError(
                f"the sweep's database, {self.database}, failed: {database_fault(error)}; the same command resumes"
            ) from error

    def check_shared_settings(self, settings: Mapping[str, Any]) -> None:
        """Record the settings that all trials share, or check that they equal the earlier trials'.

        Args:
            settings: Folds, seeds and the configuration without the parameters.

        Raises:
            ConfigurationError: Naming each key that differs; the scores would not be comparable.
        """
        earlier = self.study.user_attrs.get(_SHARED)
        if earlier is None:
            self.study.set_user_attr(_SHARED, settings)
        elif differences := differing_keys(earlier, settings):
            raise ConfigurationError(
                f"earlier trials of {self.study.study_name} in {self.database} had other settings:\n"
                + "\n".join(differences)
                + "\nUse --row NAME for another sweep."
            )

    def begin(self, count: int) -> list[RunningTrial]:
        """Start up to ``count`` trials; fewer if the limit or the target is reached.

        A trial with the parameters of a completed one takes its result. If that one still runs, the trial is queued
        again.
        """
        begun: list[RunningTrial] = []
        repeated: set[int] = set()
        with self._drawing:
            self._requeue_lost()
            while len(begun) < count and self._left() > 0 and not self._target_reached():
                drawn = self.study.ask()
                self._running[drawn.number] = drawn
                parameters = {name: parameter.draw(drawn, name) for name, parameter in self.sweep.parameters.items()}
                drawn.set_user_attr(_PARAMETERS, parameters)
                self._heartbeat.sign(drawn)
                earlier = [trial for trial in self.all() if trial.number < drawn.number]
                others = [trial for trial in earlier if trial_row(trial_parameters(trial)) == trial_row(parameters)]
                if done := [trial for trial in others if trial.state is TrialState.COMPLETE]:
                    self.study.tell(self._running.pop(drawn.number), done[0].value)  # its folds are done
                elif any(trial.state is TrialState.RUNNING for trial in others):
                    repeated.add(drawn.number)
                else:
                    begun.append(RunningTrial(drawn.number, parameters))
            for trial in self.all():
                if trial.number in repeated:
                    del self._running[trial.number]
                    self._requeue(trial)
        return begun

    def report(self, trial: RunningTrial, folds: int, value: float) -> bool:
        """Record the objective over a trial's first folds; return whether to stop the trial.

        Raises:
            TrialReassignedError: If another process runs it now.
        """
        with self._unless_reassigned(trial) as running:
            running.report(value, folds)
            return running.should_prune()

    def complete(self, trial: RunningTrial, value: float) -> None:
        """Record the objective of a trial whose folds are done.

        Raises:
            TrialReassignedError: If another process runs it now.
        """
        self._end(trial, TrialState.COMPLETE, value)

    def stop(self, trial: RunningTrial) -> None:
        """Record that a trial was stopped before its last fold.

        Raises:
            TrialReassignedError: If another process runs it now.
        """
        self._end(trial, TrialState.PRUNED)

    def fail(self, trial: RunningTrial, reason: str) -> None:
        """Record why a trial failed; the next call of the sweep retries it.

        Raises:
            TrialReassignedError: If another process runs it now.
        """
        with self._unless_reassigned(trial) as running:
            running.set_user_attr(_REASON, reason)
        self._end(trial, TrialState.FAIL)

    def requeue_failed(self) -> None:
        """Queue failed trials again, also those whose process died while it queued them."""
        with self._drawing:
            for trial in self.all():
                if trial.state is TrialState.FAIL and trial.number not in self._superseded():
                    self._add_repetition(trial)

    def all(self) -> list[FrozenTrial]:
        """Return every trial by ascending number."""
        return self.study.get_trials(deepcopy=False)

    def current(self) -> list[FrozenTrial]:
        """Return every trial that no later one repeats."""
        repeated = self._superseded()
        return [trial for trial in self.all() if trial.number not in repeated]

    def best(self) -> FrozenTrial | None:
        """Return the best completed trial, the earliest of equals, or None."""
        done = [trial for trial in self.all() if trial.state is TrialState.COMPLETE]
        return max(done, key=lambda trial: (trial.value, -trial.number)) if done else None

    def are_finished(self) -> bool:
        """Whether nothing is left to run, here or elsewhere."""
        # A trial may still wait although the limit is reached.
        runs = any(trial.state is TrialState.RUNNING for trial in self.all())
        return not runs and (self._left() <= 0 or self._target_reached())

    def _left(self) -> int:
        """Return how many trials may still start, waiting ones included."""
        return self._limit - sum(trial.state is not TrialState.WAITING for trial in self.current())

    def _target_reached(self) -> bool:
        target, best = self.sweep.file.metric.target, self.best()
        return target is not None and best is not None and (best.value or 0.0) >= target

    def _superseded(self) -> set[int]:
        return {trial.user_attrs[REPEATS] for trial in self.all() if REPEATS in trial.user_attrs}

    def _requeue_lost(self) -> None:
        for trial in self.all():
            is_mine = trial.number in self._running
            if trial.state is TrialState.RUNNING and not is_mine and self._heartbeat.is_lost(trial):
                self._requeue(trial)

    def _requeue(self, trial: FrozenTrial) -> None:
        # The first process that marks the trial as failed queues it.
        with suppress(UpdateFinishedTrialError, ValueError):
            self.study.tell(trial.number, state=TrialState.FAIL)
            self._add_repetition(trial)

    def _add_repetition(self, trial: FrozenTrial) -> None:
        again = create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={REPEATS: trial.number},
            system_attrs=trial.system_attrs,  # holds a grid point's index
        )
        self.study.add_trial(again)

    def _end(self, trial: RunningTrial, state: TrialState, value: float | None = None) -> None:
        with self._unless_reassigned(trial) as running:
            self.study.tell(running, value, state)
        del self._running[trial.number]

    @contextmanager
    def _unless_reassigned(self, trial: RunningTrial) -> Iterator[optuna.Trial]:
        """Yield Optuna's object of a trial of this process; drop the trial if another process has ended it."""
        try:
            yield self._running[trial.number]
        except (UpdateFinishedTrialError, ValueError) as error:  # from the database, and from Optuna's own check
            del self._running[trial.number]
            raise TrialReassignedError(f"trial {trial.number} is run by another process now") from error
