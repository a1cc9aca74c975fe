"""`ser sweep`: trials are compared on validation sets only, the best is tested, and nothing is lost."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from ser_lightning.cross_validation.planner import RunOptions, plan_experiment
from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Job, Resources
from ser_lightning.runs.names import trial_row
from ser_lightning.runs.predictions import Predictions
from ser_lightning.sweeps import run as module
from ser_lightning.sweeps.file import read_sweep
from ser_lightning.sweeps.run import SweepSettings, run_sweep
from ser_lightning.sweeps.trials import TrialStore

pytestmark = pytest.mark.usefixtures("small_pictures")

CLUSTERS = "model.init_args.pooling.init_args.clusters"


def sweep_file(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    content = {
        "method": "grid",
        "metric": {"name": "cv/validation_UA_mean", "goal": "maximize"},
        "parameters": {CLUSTERS: {"values": [2, 3, 4]}},
        "command": ["ser", "cv", "--config", "experiments/quickstart.yaml", "${args}"],
        **changes,
    }
    path.write_text(yaml.safe_dump(content))
    return path


class FakeJobs:
    """Fake jobs: a system with K clusters recognises K of ten utterances of its validation sets."""

    def __init__(self) -> None:
        self.ran: list[Job] = []
        self.batches: list[int] = []
        self.failing: set[Path] = set()
        self.tested: list[list[str]] = []

    def run(self, jobs: Sequence[Job], console: Console, resources: Resources) -> dict[Path, str]:
        self.ran += jobs
        self.batches.append(len(jobs))
        for job in jobs:
            clusters = job.configuration["model"]["init_args"]["pooling"]["init_args"]["clusters"]
            targets = torch.arange(10) % 2
            Predictions.collect(
                utterances=[f"u{index}" for index in range(10)],
                speakers=["s"] * 10,
                fold=job.fold or 0,
                targets=targets,
                predicted=torch.where(torch.arange(10) < clusters, targets, 1 - targets),
                probabilities=torch.full((10, 2), 0.5),
                class_names=("a", "b"),
            ).write(job.folder / "validation_predictions.csv")
        return {job.folder: "exit status 1;\nlog" for job in jobs if job.folder.parents[1] in self.failing}

    def test(self, arguments: Sequence[str], options: RunOptions, console: Console) -> int:
        self.tested.append(list(arguments))
        return 0


@pytest.fixture(scope="session")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Job]]:
    """`plan_experiment` for folders without runs; it resolves each configuration once for all tests."""
    runs = tmp_path_factory.mktemp("planned")
    known: dict[tuple[object, ...], list[Job]] = {}

    def plan(arguments: Sequence[str], options: RunOptions, console: Console) -> list[Job]:
        key = (*arguments, options.folds, options.tested)
        if key not in known:
            known[key] = plan_experiment(arguments, replace(options, runs=runs), console)
        return [replace(job, folder=options.runs / job.folder.relative_to(runs)) for job in known[key]]

    return plan


@pytest.fixture
def fake_jobs(monkeypatch: pytest.MonkeyPatch, planned_once: Callable[..., list[Job]]) -> FakeJobs:
    fake_jobs = FakeJobs()
    monkeypatch.setattr(module, "run_planned", fake_jobs.run)
    monkeypatch.setattr(module, "cross_validate", fake_jobs.test)
    monkeypatch.setattr(module, "plan_experiment", planned_once)
    return fake_jobs


@pytest.fixture
def settings(tmp_path: Path, synthetic_ravdess: Path, feature_folder: Path) -> Callable[..., SweepSettings]:
    def make(resources: Resources = Resources(), **changes: Any) -> SweepSettings:  # noqa: B008  # frozen, so shared safely
        sweep = read_sweep(sweep_file(tmp_path, **changes))
        places = (
            f"--data.init_args.root={synthetic_ravdess}",
            f"--data.init_args.feature_folder={feature_folder}",
        )
        options = RunOptions(folds="0,1", runs=tmp_path / "runs", resources=resources)
        return SweepSettings(sweep, (*sweep.arguments, *places), "default", options, Console(quiet=True))

    return make


def sweep_folder(settings: SweepSettings) -> Path:
    return settings.options.runs / "quickstart" / "ravdess-synthetic" / "tiny"


def test_the_best_trial_by_validation_is_tested_once(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings]
) -> None:
    tiny = settings()
    assert run_sweep(tiny, None, None) == 0
    assert len(fake_jobs.ran) == 6
    assert not any(job.tested for job in fake_jobs.ran)
    assert all("--no-test" in job.command() for job in fake_jobs.ran)
    (arguments,) = fake_jobs.tested
    assert f"--{CLUSTERS}=4" in arguments
    assert arguments[-1] == f"--run.row={trial_row({CLUSTERS: 4})}"
    content = json.loads((sweep_folder(tiny) / "sweep.json").read_text())
    assert {trial["parameters"][CLUSTERS]: trial["objective"] for trial in content["trials"]} == {
        2: pytest.approx(0.2),
        3: pytest.approx(0.3),
        4: pytest.approx(0.4),
    }
    assert (sweep_folder(tiny) / "parameters.png").read_bytes().startswith(b"\x89PNG")


def test_test_predictions_do_not_affect_the_choice(fake_jobs: FakeJobs, settings: Callable[..., SweepSettings]) -> None:
    tiny = settings()
    for clusters in (2, 3, 4):
        folder = sweep_folder(tiny).with_name(trial_row({CLUSTERS: clusters})) / "seed-0" / "fold-00"
        folder.mkdir(parents=True)
        (folder / "predictions.csv").write_text("not a predictions file")
    assert run_sweep(tiny, None, None) == 0
    assert fake_jobs.tested[0][-1] == f"--run.row={trial_row({CLUSTERS: 4})}"


def test_a_failed_trial_is_named_and_alone_run_again(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings]
) -> None:
    tiny = settings()
    fake_jobs.failing = {sweep_folder(tiny).with_name(trial_row({CLUSTERS: 3}))}
    assert run_sweep(tiny, None, None) == 1
    content = json.loads((sweep_folder(tiny) / "sweep.json").read_text())
    (failed,) = [trial for trial in content["trials"] if trial["state"] == "failed"]
    assert failed["parameters"] == {CLUSTERS: 3}
    assert failed["note"] == "fold-00: exit status 1; log", "the log's last line says why"
    fake_jobs.failing.clear()
    fake_jobs.ran.clear()
    assert run_sweep(tiny, None, None) == 0
    assert {job.row for job in fake_jobs.ran} == {trial_row({CLUSTERS: 3})}


def test_invalid_parameters_do_not_end_the_sweep(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    said = io.StringIO()
    odd = replace(
        settings(parameters={CLUSTERS: {"values": [2, 0, 4]}}),
        console=Console(file=said, width=200, force_terminal=True),
    )
    assert run_sweep(odd, None, None) == 1
    assert all(fake_jobs.batches), "an empty plan was run"
    content = json.loads((sweep_folder(odd) / "sweep.json").read_text())
    states = {trial["parameters"][CLUSTERS]: trial["state"] for trial in content["trials"]}
    assert states == {2: "complete", 0: "failed", 4: "complete"}
    assert "clusters" in said.getvalue()
    dry = replace(odd, options=replace(odd.options, dry_run="json", runs=odd.options.runs / "elsewhere"))
    assert run_sweep(dry, None, None) == 1
    assert len(json.loads(capsys.readouterr().out)["jobs"]) == 4


@pytest.mark.parametrize("early", [None, {"type": "hyperband", "min_iter": 1, "eta": 3}])
def test_a_reassigned_trial_is_not_ended_here(
    early: dict[str, Any] | None,
    fake_jobs: FakeJobs,
    settings: Callable[..., SweepSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = settings(early_terminate=early)

    def run_too_long(jobs: Sequence[Job], *rest: Any) -> dict[Path, str]:
        if not fake_jobs.ran:
            folder = sweep_folder(tiny)
            other = TrialStore(tiny.sweep, folder.relative_to(tiny.options.runs).as_posix(), folder, None, None)
            for trial in other.all():
                other._requeue(trial)
        return fake_jobs.run(jobs, *rest)

    monkeypatch.setattr(module, "run_planned", run_too_long)
    assert run_sweep(tiny, None, None) == 0
    content = json.loads((sweep_folder(tiny) / "sweep.json").read_text())
    assert len(content["trials"]) == 3
    assert not any(trial["note"] for trial in content["trials"])
    assert fake_jobs.tested[0][-1] == f"--run.row={trial_row({CLUSTERS: 4})}"


def test_equal_draws_fail_nothing(fake_jobs: FakeJobs, settings: Callable[..., SweepSettings]) -> None:
    tiny = settings(Resources(jobs=16), method="random")
    assert run_sweep(tiny, 8, None) == 0
    states = [trial["state"] for trial in json.loads((sweep_folder(tiny) / "sweep.json").read_text())["trials"]]
    assert states == ["complete"] * 8
    assert len(fake_jobs.ran) == len({job.folder for job in fake_jobs.ran})


def test_jobs_of_several_trials_run_in_parallel(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    monkeypatch.setattr(module, "run_planned", lambda jobs, *_: sizes.append(len(jobs)) or fake_jobs.run(jobs, *_))
    assert run_sweep(settings(Resources(jobs=4)), None, None) == 0
    assert sizes == [4, 2]


def test_early_termination_skips_folds_of_worse_trials(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings]
) -> None:
    early = {"type": "hyperband", "min_iter": 1, "eta": 3}
    values = {CLUSTERS: {"values": list(range(2, 10))}}
    tiny = settings(early_terminate=early, parameters=values)
    assert run_sweep(tiny, None, None) == 0
    assert fake_jobs.tested[0][-1] == f"--run.row={trial_row({CLUSTERS: 9})}"
    by_fold = [sum(job.fold == fold for job in fake_jobs.ran) for fold in (0, 1)]
    assert by_fold[0] == 8
    assert 1 <= by_fold[1] < 8
    states = {trial["state"] for trial in json.loads((sweep_folder(tiny) / "sweep.json").read_text())["trials"]}
    assert states == {"complete", "stopped early"}


def test_other_folds_or_configurations_are_rejected(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings]
) -> None:
    tiny = settings()
    assert run_sweep(tiny, None, None) == 0
    with pytest.raises(ConfigurationError, match=r"sweep\.folds: \[0, 1\].*\[0\]"):
        run_sweep(replace(tiny, options=replace(tiny.options, folds="0")), None, None)
    with pytest.raises(ConfigurationError, match=r"model\.init_args\.cells: 64.*8"):
        run_sweep(replace(tiny, arguments=(*tiny.arguments, "--model.init_args.cells=8")), None, None)
    apart = replace(tiny, arguments=(*tiny.arguments, "--model.init_args.cells=8"), row="small")
    assert run_sweep(apart, None, None) == 0
    assert fake_jobs.tested[-1][-1].startswith("--run.row=small-")


def test_an_argument_cannot_fix_a_parameter(fake_jobs: FakeJobs, settings: Callable[..., SweepSettings]) -> None:
    tiny = settings()
    with pytest.raises(ConfigurationError, match=f"--{CLUSTERS}"):
        run_sweep(replace(tiny, arguments=(*tiny.arguments, f"--{CLUSTERS}=3")), None, None)


def test_seed_and_name_of_a_sweep_are_not_ignored(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings], tmp_path: Path
) -> None:
    (tmp_path / "seven.yaml").write_text("seed_everything: 7")
    given = settings()
    given = replace(given, arguments=(*given.arguments, f"--config={tmp_path}/seven.yaml"))
    for row in ("", ".", "../x"):
        with pytest.raises(ConfigurationError, match=r"--row '"):
            run_sweep(replace(given, row=row), 1, None)
    assert run_sweep(given, 1, None) == 0
    assert {job.seed for job in fake_jobs.ran} == {7}


def test_a_dry_run_shows_every_trials_jobs(
    fake_jobs: FakeJobs, settings: Callable[..., SweepSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = settings()
    assert run_sweep(replace(tiny, options=replace(tiny.options, dry_run="json")), None, None) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["jobs"]) == 6
    runs = tiny.options.runs
    written = [path.relative_to(runs).parts for path in runs.rglob("*") if path.is_file()]
    assert len(written) == 6
    assert {(parts[2].partition("-")[0], parts[-1]) for parts in written} == {("trial", "config.yaml")}
    assert not fake_jobs.ran


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_a_killed_sweep_resumes_without_losing_a_fold(
    method: str, tmp_path: Path, synthetic_ravdess: Path, feature_folder: Path
) -> None:
    command = [
        *(sys.executable, "-m", "ser_lightning.cli", "sweep", str(sweep_file(tmp_path, method=method))),
        *("--trials=3", "--folds=0,1", f"--runs={tmp_path / 'runs'}", "--trainer.logger=false"),
        *(f"--data.init_args.root={synthetic_ravdess}", f"--data.init_args.feature_folder={feature_folder}"),
        *("--model.init_args.cells=8", "--trainer.max_epochs=2"),
    ]
    folder = tmp_path / "runs" / "quickstart" / "ravdess-synthetic"
    process = subprocess.Popen(command)
    while len(done := list(folder.glob("trial-*/seed-0/*/run.json"))) < 3:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in done}
    subprocess.run(command, check=True)
    content = json.loads((folder / "tiny" / "sweep.json").read_text())
    assert [trial["state"] for trial in content["trials"]] == ["complete"] * 3
    tested = {path.parents[2].name for path in folder.glob("trial-*/seed-0/*/predictions.csv")}
    (winner,) = [trial["row"] for trial in content["trials"] if trial["number"] == content["best"]]
    assert tested == {winner}
    kept = {path: path.stat().st_mtime_ns for path in before if path.parents[2].name != winner}
    assert kept == {path: stamp for path, stamp in before.items() if path in kept}
