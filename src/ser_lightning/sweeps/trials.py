"""The trials of a sweep, kept in a database by Optuna, so that several processes and machines may share them.

A process that is killed leaves its trials running in the database. Whoever looks next and finds that nobody runs them
begins them again, with the same parameters: what is done of their folds is on disk.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import differing_keys, flatten
from ser_lightning.runs.folder import trial_row
from ser_lightning.sweeps.file import Method, Sweep
from ser_lightning.sweeps.report import COMPLETE, TrialRecord
from ser_lightning.sweeps.study import AGAIN, Heartbeat, open_study

# Names of what is kept.
PARAMETERS, REASON = "parameters", "reason"
FAILED = "failed"
_STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def same(trial: FrozenTrial, parameters: Mapping[str, Any]) -> bool:
    """Whether a trial has these parameters."""
    theirs = trial.user_attrs.get(PARAMETERS)
    return theirs is not None and trial_row(theirs) == trial_row(parameters)


def parameters_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's parameters: value by LightningCLI's key; none of one that has not begun."""
    return dict(flatten(trial.user_attrs.get(PARAMETERS, {})))


def record_of(trial: FrozenTrial, row: str) -> TrialRecord:
    """Return a trial as reports show it.

    Args:
        trial: The trial.
        row: What the user calls the sweep, or the default.
    """
    parameters = parameters_of(trial)
    objective = trial.value if trial.state is TrialState.COMPLETE else None
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        objective = trial.intermediate_values[max(trial.intermediate_values)]
    return TrialRecord(
        number=trial.number,
        parameters=parameters,
        state=_STATES[trial.state],
        objective=objective,
        row=trial_row(parameters, row) if parameters else "",
        note=str(trial.user_attrs.get(REASON, "")),
    )


_FOUNDATION = "sweep"


class TrialTakenError(Exception):
    """Another process has taken a trial of this one for lost, and begun it again: its result counts."""


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
        self._running: dict[int, optuna.Trial] = {}
        self._heartbeat = Heartbeat(folder, self._running)
        # Of two processes that draw at once, neither would know what the other has drawn.
        self._drawing = FileLock(folder / ".drawing.lock")
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study, self.place = open_study(sweep, name, storage or f"sqlite:///{(folder / 'sweep.db').resolve()}")

    def __enter__(self) -> Self:
        """Let others know that this process is alive."""
        self._heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others know that it is gone: trials that it leaves behind are whose who comes next."""
        try:
            with suppress(StorageInternalError), self._drawing:
                for trial in self.all():
                    if trial.number in self._running:
                        self._begin_again(trial)
        finally:
            self._heartbeat.__exit__(kind, error, trace)
        if isinstance(error, StorageInternalError):
            cause = str(error.__cause__ or error).splitlines()[0]
            raise ConfigurationError(
                f"the sweep's database, {self.place}, failed: {cause}\n"
                "What was trained is kept; the same command goes on."
            ) from error

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

    def begin(self, count: int) -> list[Trial]:
        """Begin the next trials: ``count``, or fewer if there are enough, or one has reached the target.

        One that has the parameters of another gets that one's result; while that is not there it waits, and is drawn
        anew by the next call, here or elsewhere.
        """
        begun: list[Trial] = []
        repeated: set[int] = set()
        with self._drawing:
            self._begin_lost_again()
            while len(begun) < count and self._left() > 0 and not self._target_reached():
                drawn = self.study.ask()
                self._running[drawn.number] = drawn
                parameters = {name: parameter.draw(drawn, name) for name, parameter in self.sweep.parameters.items()}
                drawn.set_user_attr(PARAMETERS, parameters)
                self._heartbeat.sign(drawn)
                others = [trial for trial in self.all() if trial.number < drawn.number and same(trial, parameters)]
                if done := [trial for trial in others if trial.state is TrialState.COMPLETE]:
                    self.study.tell(self._running.pop(drawn.number), done[0].value)  # its folds would be found done
                elif any(trial.state is TrialState.RUNNING for trial in others):
                    repeated.add(drawn.number)
                else:
                    begun.append(Trial(drawn.number, parameters))
            for trial in self.all():
                if trial.number in repeated:
                    del self._running[trial.number]
                    self._begin_again(trial)
        return begun

    def report(self, trial: Trial, folds: int, value: float) -> bool:
        """Keep the objective over a trial's first folds; return whether it is to be stopped there.

        Raises:
            TrialTakenError: If another process has begun it again.
        """
        with self._unless_taken(trial) as running:
            running.report(value, folds)
            return running.should_prune()

    def complete(self, trial: Trial, value: float) -> None:
        """Keep the objective of a trial whose folds are done.

        Raises:
            TrialTakenError: If another process has begun it again.
        """
        self._end(trial, TrialState.COMPLETE, value)

    def stop(self, trial: Trial) -> None:
        """Keep that a trial was stopped before its last fold.

        Raises:
            TrialTakenError: If another process has begun it again.
        """
        self._end(trial, TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Keep why a trial has no objective; the next call of the sweep tries it again.

        Raises:
            TrialTakenError: If another process has begun it again.
        """
        with self._unless_taken(trial) as running:
            running.set_user_attr(REASON, reason)
        self._end(trial, TrialState.FAIL)

    def begin_failed_again(self) -> None:
        """Plan once more every trial that failed, or whose process was killed while it planned it once more."""
        with self._drawing:
            for trial in self.all():
                if trial.state is TrialState.FAIL and trial.number not in self._repeated():
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
        # One that waits is left over where there are enough trials without it.
        runs = any(trial.state is TrialState.RUNNING for trial in self.all())
        return not runs and (self._left() <= 0 or self._target_reached())

    def _left(self) -> int:
        """Return how many trials may still begin: those that wait, and those that nobody has thought of."""
        return self._limit - sum(trial.state is not TrialState.WAITING for trial in self.shown())

    def _target_reached(self) -> bool:
        target, best = self.sweep.file.metric.target, self.best()
        return target is not None and best is not None and (best.value or 0.0) >= target

    def _repeated(self) -> set[int]:
        return {trial.user_attrs[AGAIN] for trial in self.all() if AGAIN in trial.user_attrs}

    def _begin_lost_again(self) -> None:
        for trial in self.all():
            is_mine = trial.number in self._running
            if trial.state is TrialState.RUNNING and not is_mine and self._heartbeat.is_lost(trial):
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
            user_attrs={AGAIN: trial.number},
            system_attrs=trial.system_attrs,  # a grid's sampler keeps the point's index there
        )
        self.study.add_trial(again)

    def _end(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        with self._unless_taken(trial) as running:
            self.study.tell(running, value, state)
        del self._running[trial.number]

    @contextmanager
    def _unless_taken(self, trial: Trial) -> Iterator[optuna.Trial]:
        """Yield what a trial of this process is to Optuna, and forget it where another process has ended it."""
        try:
            yield self._running[trial.number]
        except (UpdateFinishedTrialError, ValueError) as error:  # the database's word, and Optuna's look before
            del self._running[trial.number]
            raise TrialTakenError(f"trial {trial.number} is run by another process now") from error


def _limit(sweep: Sweep, asked: int | None) -> int:
    caps = [cap for cap in (asked, sweep.file.run_cap) if cap is not None]
    if sweep.file.method is Method.grid:
        return min([math.prod(len(parameter.grid(name)) for name, parameter in sweep.parameters.items()), *caps[:1]])
    if not caps:
        raise ConfigurationError(f"{sweep.path}: {sweep.file.method.value} has no end by itself; give --trials N")
    return caps[0]
