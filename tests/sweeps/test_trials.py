"""The trials of a sweep: reproducible draws, none lost with a process, none started twice."""

import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from ser_lightning.errors import ConfigurationError
from ser_lightning.sweeps import study
from ser_lightning.sweeps.file import read_sweep
from ser_lightning.sweeps.study import Heartbeat
from ser_lightning.sweeps.trials import RunningTrial, TrialReassignedError, TrialStore, trial_parameters, trial_record
from tools.damage import OF_BYTES, damaged

Open = Callable[..., TrialStore]

SPACES: dict[str, dict[str, Any]] = {
    "grid": {"a": {"values": [1, 2]}, "b": {"values": ["x", "y"]}},
    "random": {"a": {"min": 0.0, "max": 1.0}, "b": {"min": 1, "max": 1000}},
    "bayes": {"a": {"min": 0.0, "max": 1.0}, "b": {"min": 1, "max": 1000}},
}


def sweep_file(folder: Path, method: str, **more: Any) -> Path:
    path = folder / f"{method}.yaml"
    content = {
        "method": method,
        "metric": {"name": "cv/validation_UA_mean", "goal": "maximize"},
        "parameters": SPACES[method],
        "command": ["ser", "cv", "${args}"],
        **more,
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Optuna's tables, to be copied: creating them takes a second."""
    path = tmp_path_factory.mktemp("database") / "sweep.db"
    RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture
def open_trials(tmp_path: Path, empty_database: Path) -> Open:
    def make(method: str, limit: int | None = None, name: str = "sweep", **more: Any) -> TrialStore:
        sweep = read_sweep(sweep_file(tmp_path, method, **more))
        if not (database := tmp_path / name / empty_database.name).exists():
            database.parent.mkdir(exist_ok=True)
            shutil.copy(empty_database, database)
        return TrialStore(sweep, name, tmp_path / name, None, limit)

    return make


def run_to_end(trials: TrialStore) -> list[dict[str, Any]]:
    """Run what is left with an objective that a hand can compute; return the parameters in the order of their run."""
    found = []
    while batch := trials.begin(1):
        found += [trial.parameters for trial in batch]
        complete(trials, batch)
    return found


def complete(trials: TrialStore, batch: list[RunningTrial]) -> None:
    """Run a batch with that objective."""
    for trial in batch:
        trials.complete(trial, 0.001 * float(trial.parameters["a"]))


def test_a_grid_runs_each_of_its_points_once(open_trials: Open) -> None:
    with open_trials("grid") as trials:
        found = run_to_end(trials)
        assert trials.are_finished()
    assert sorted((p["a"], p["b"]) for p in found) == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


@pytest.mark.parametrize("method", [pytest.param("random", marks=pytest.mark.slow), "bayes"])
def test_a_resumed_sweep_draws_as_an_uninterrupted_one(method: str, open_trials: Open) -> None:
    with open_trials(method, 9, "calm") as trials:
        expected = run_to_end(trials)
    with open_trials(method, 4, "stopped") as trials:
        found = run_to_end(trials)
    with open_trials(method, 9, "stopped") as trials:
        found += run_to_end(trials)
    assert found == expected
    assert len({parameters["a"] for parameters in found}) == 9


@pytest.mark.slow
def test_bayes_learns_from_results(open_trials: Open) -> None:
    with open_trials("bayes", 40) as trials:
        found = [parameters["a"] for parameters in run_to_end(trials)]
    assert sum(found[20:]) / 20 > 0.75, found


BEGIN_AND_DIE = """
import os, sys
from pathlib import Path
from ser_lightning.sweeps.file import read_sweep
from ser_lightning.sweeps.trials import TrialStore
trials = TrialStore(read_sweep(Path(sys.argv[1])), "sweep", Path(sys.argv[2]), None, 4)
trials.__enter__()
(first,) = trials.begin(1)
trials.complete(first, 0.5)
trials.begin(1)
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_killed_trial_is_started_again_with_its_parameters(method: str, open_trials: Open, tmp_path: Path) -> None:
    with open_trials(method, 4, "calm") as trials:
        expected = [str(parameters) for parameters in run_to_end(trials)]
    done = subprocess.run(
        [sys.executable, "-c", BEGIN_AND_DIE, str(sweep_file(tmp_path, method)), str(tmp_path / "sweep")]
    )
    assert done.returncode == -9
    with open_trials(method, 4) as trials:
        states = [trial.state for trial in trials.all()]
        assert states == [TrialState.COMPLETE, TrialState.RUNNING]
        run_to_end(trials)
        assert trials.are_finished()
        shown = trials.current()
    assert [trial.state for trial in shown] == [TrialState.COMPLETE] * 4
    assert sorted(str(trial_parameters(trial)) for trial in shown) == sorted(expected)


def test_a_trial_of_a_living_process_is_left_alone(open_trials: Open) -> None:
    with open_trials("grid") as one, open_trials("grid") as other:
        (mine,) = one.begin(1)
        theirs = run_to_end(other)
        assert mine.parameters not in theirs
        assert len(theirs) == 3
        assert not other.are_finished()
        one.complete(mine, 0.9)
        assert other.are_finished()


def test_an_interrupted_process_queues_its_trials_again(open_trials: Open) -> None:
    with open_trials("random", 2) as trials:
        (begun,) = trials.begin(1)
    with open_trials("random", 2) as trials:
        assert begun.parameters in run_to_end(trials)


def test_a_failed_trial_is_retried_by_the_next_call(open_trials: Open) -> None:
    with open_trials("grid") as trials:
        (failed,) = trials.begin(1)
        trials.fail(failed, "fold-00: exit status 1")
        assert len(run_to_end(trials)) == 3
        assert [trial_record(trial, "default").note for trial in trials.current()].count("fold-00: exit status 1") == 1
    with open_trials("grid") as trials:
        trials.requeue_failed()
        assert run_to_end(trials) == [failed.parameters]
        assert [trial.state for trial in trials.current()] == [TrialState.COMPLETE] * 4


def test_parameters_that_are_drawn_twice_are_run_once(open_trials: Open) -> None:
    few = {"a": {"values": [1, 2]}, "b": {"value": 0}}
    with open_trials("random", 8, parameters=few) as trials:
        assert sorted(parameters["a"] for parameters in run_to_end(trials)) == [1, 2]
        assert [trial.value for trial in trials.current()].count(0.002) >= 2
        assert len(trials.current()) == 8


FEW = {"a": {"values": [1, 2]}, "b": {"value": 0}}


def test_parameters_drawn_twice_in_a_batch_run_once(open_trials: Open) -> None:
    with open_trials("random", 8, parameters=FEW) as trials:
        batch = trials.begin(8)
        assert sorted(trial.parameters["a"] for trial in batch) == [1, 2]
        complete(trials, batch)
        assert trials.begin(8) == []
        assert trials.are_finished()
        shown = trials.current()
    assert [trial.state for trial in shown] == [TrialState.COMPLETE] * 8
    assert {trial.value for trial in shown} == {0.001, 0.002}


def test_parameters_run_by_another_process_wait_for_its_result(open_trials: Open) -> None:
    with open_trials("random", 8, parameters=FEW) as one, open_trials("random", 8, parameters=FEW) as other:
        mine, theirs = one.begin(1), other.begin(8)
        assert {trial.parameters["a"] for trial in (*mine, *theirs)} == {1, 2}
        assert len(theirs) == 1
        complete(other, theirs)
        assert other.begin(8) == []
        assert not other.are_finished()
        complete(one, mine)
        assert one.begin(8) == []
        assert one.are_finished()
        assert [trial.state for trial in one.current()] == [TrialState.COMPLETE] * 8


def test_a_repetition_retries_a_failed_trial(open_trials: Open) -> None:
    with open_trials("random", 4, parameters=FEW) as trials:
        for trial in (batch := trials.begin(4)):
            trials.fail(trial, "out of memory")
        again = trials.begin(4)
        assert {trial.parameters["a"] for trial in again} == {1, 2}
        assert len(batch) == len(again) == 2


@pytest.mark.slow
def test_parallel_processes_see_each_others_draws(open_trials: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_trials("random", 8, parameters=FEW) as one, open_trials("random", 8, parameters=FEW) as other:
        theirs: list[RunningTrial] = []
        thread = threading.Thread(target=lambda: theirs.extend(other.begin(2)))
        ask = one.study.ask

        def ask_while_the_other_draws() -> optuna.Trial:
            drawn = ask()
            if not thread.ident:
                thread.start()
                thread.join(2)
            return drawn

        monkeypatch.setattr(one.study, "ask", ask_while_the_other_draws)
        mine = one.begin(1)
        thread.join()
        drawn = [trial.parameters["a"] for trial in (*mine, *theirs)]
        assert sorted(drawn) == [1, 2], drawn


@pytest.mark.slow
def test_parallel_processes_queue_a_failed_trial_once(open_trials: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_trials("grid") as trials:
        (failed,) = trials.begin(1)
        trials.fail(failed, "out of memory")
    with open_trials("grid") as one, open_trials("grid") as other:
        thread = threading.Thread(target=other.requeue_failed)
        add = one.study.add_trial

        def add_while_the_other_looks(trial: optuna.trial.FrozenTrial) -> None:
            thread.start()
            thread.join(2)
            add(trial)

        monkeypatch.setattr(one.study, "add_trial", add_while_the_other_looks)
        one.requeue_failed()
        thread.join()
        assert [trial.state for trial in one.all()] == [TrialState.FAIL, TrialState.WAITING]


def test_a_death_between_failing_and_queueing_loses_no_trial(open_trials: Open) -> None:
    with open_trials("grid") as trials:
        (lost,) = trials.begin(1)
        trials.study.tell(lost.number, state=TrialState.FAIL)  # without adding a repetition
        trials._running.clear()
    with open_trials("grid") as trials:
        trials.requeue_failed()
        assert len(run_to_end(trials)) == 4
        assert [trial.state for trial in trials.current()] == [TrialState.COMPLETE] * 4


def test_waiting_trials_do_not_prevent_the_end_of_a_sweep(open_trials: Open) -> None:
    with open_trials("grid") as trials:
        assert len(trials.begin(2)) == 2
    with open_trials("grid", 1) as trials:
        assert len(run_to_end(trials)) == 1
        assert [trial.state for trial in trials.current()].count(TrialState.WAITING) == 1
        assert trials.are_finished()


@pytest.mark.parametrize("end", ["report", "complete", "stop", "fail"])
def test_a_reassigned_trial_is_not_ended_here(end: str, open_trials: Open) -> None:
    with open_trials("grid") as one, open_trials("grid") as other:
        (taken,) = one.begin(1)
        (found,) = other.all()
        other._requeue(found)
        arguments = {"report": (1, 0.5), "complete": (0.5,), "stop": (), "fail": ("out of memory",)}[end]
        with pytest.raises(TrialReassignedError, match="trial 0"):
            getattr(one, end)(taken, *arguments)
        assert taken.parameters in run_to_end(other)
        assert other.are_finished()
        assert [trial.state for trial in other.current()] == [TrialState.COMPLETE] * 4


class AwayForAMoment:
    """A trial whose database fails at the first beat."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.heard = threading.Event()

    def set_user_attr(self, key: str, value: object) -> None:
        error, self.error = self.error, None
        if error:
            raise error
        self.heard.set()


@pytest.mark.parametrize("error", [StorageInternalError("connection lost"), UpdateFinishedTrialError("finished")])
def test_the_heartbeat_survives_a_database_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "_BEAT_SECONDS", 0.01)
    trial: Any = AwayForAMoment(error)
    with Heartbeat(tmp_path, {0: trial}):
        assert trial.heard.wait(10)


def test_a_database_error_ends_a_sweep_with_its_reason(open_trials: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise StorageInternalError("An exception is raised") from OSError("server closed the connection")

    trials = open_trials("grid")
    trials.__enter__()
    trials.begin(1)
    monkeypatch.setattr(trials.study, "get_trials", fail)
    try:
        trials.all()
    except StorageInternalError as error:
        with pytest.raises(ConfigurationError, match="server closed the connection"):
            trials.__exit__(type(error), error, error.__traceback__)
    assert not list(trials.folder.glob(".process-*"))


def test_a_worse_trial_is_stopped_early(open_trials: Open) -> None:
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    with open_trials("random", 4, early_terminate=early) as trials:
        stopped = []
        for value in (0.5, 0.6, 0.1, 0.7):
            (trial,) = trials.begin(1)
            stopped.append(trials.report(trial, 1, value))
            if stopped[-1]:
                trials.stop(trial)
            else:
                trials.complete(trial, value)
        best = trials.best()
        assert stopped == [False, False, True, False]
        assert best is not None
        assert best.value == 0.7


def test_a_sweep_ends_when_its_target_is_reached(open_trials: Open) -> None:
    metric = {"name": "cv/validation_UA_mean", "goal": "maximize", "target": 0.002}
    with open_trials("grid", metric=metric) as trials:
        found = run_to_end(trials)
        assert trials.are_finished()
    assert [parameters["a"] for parameters in found].count(2) == 1
    assert found[-1]["a"] == 2


def test_other_settings_are_rejected_by_key(open_trials: Open) -> None:
    foundation = {"sweep": {"folds": [0, 1]}, "trainer": {"max_epochs": 2, "accelerator": "cpu"}}
    with open_trials("grid") as trials:
        trials.check_shared_settings(foundation)
        trials.check_shared_settings({**foundation, "trainer": {"max_epochs": 2, "accelerator": "gpu"}})
        with pytest.raises(ConfigurationError, match=r"trainer\.max_epochs: 2.*3"):
            trials.check_shared_settings({**foundation, "trainer": {"max_epochs": 3}})


def test_a_random_sweep_needs_a_limit(open_trials: Open) -> None:
    with pytest.raises(ConfigurationError, match="--trials"):
        open_trials("random")
    with open_trials("random", run_cap=2) as trials:
        assert len(run_to_end(trials)) == 2


@pytest.mark.parametrize("url", ["nonsense", "mysql+nothing://x/y"])
def test_an_unusable_database_is_one_line_of_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--storage") as error:
        TrialStore(read_sweep(sweep_file(tmp_path, "grid")), "sweep", tmp_path, url, None)
    assert "\n" not in str(error.value)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    url = f"sqlite://user:secret@/{tmp_path}/x.db"
    try:
        shown = TrialStore(read_sweep(sweep_file(tmp_path, "grid")), "sweep", tmp_path, url, None).database
    except ConfigurationError as error:
        shown = str(error)
    assert "secret" not in shown


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_a_damaged_database_is_one_clear_error(
    open_trials: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study.time, "sleep", lambda seconds: None)  # between attempts to open it
    with open_trials("grid") as trials:
        run_to_end(trials)
        database = tmp_path / "sweep" / "sweep.db"
        trials.study._storage.remove_session()
    content = database.read_bytes()
    rejected = 0
    for seed in range(8):
        _, after = damaged(OF_BYTES, random.Random(seed), content)
        database.write_bytes(after)
        try:
            with open_trials("grid") as trials:
                trials.requeue_failed()
                run_to_end(trials)
        except ConfigurationError as error:
            rejected += 1
            assert re.fullmatch(".*sweep.db.*", str(error))  # noqa: PT017  # some damages are harmless
    assert rejected > 1
