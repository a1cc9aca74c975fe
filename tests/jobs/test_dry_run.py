"""The printed plan."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from ser_lightning.cli.__main__ import main
from ser_lightning.cross_validation.planner import RunOptions, plan_experiment
from ser_lightning.jobs.plan import Job, Resources, describe, show_plan

MakeJob = Callable[..., Job]


def test_a_plan_shows_states_dependencies_and_commands(job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    done, first = job("a.yaml", "fold-00"), job("b.yaml", "fold-01")
    second, third = job("c.yaml", "fold-02", first), job("d.yaml", "fold-03", done)
    for name in ("run.json", "predictions.csv"):
        (done.folder / name).touch()
    resources = Resources(jobs=3, gpus_per_job=0.25, cpus_per_job=2)
    plan = describe([second, done, third, first], resources)
    by_name = {Path(entry["folder"]).name: entry for entry in plan["jobs"]}
    assert [by_name[name]["state"] for name in sorted(by_name)] == ["done", "ready", "waiting", "ready"]
    assert by_name["fold-02"]["waits_for"] == [str(first.folder)]
    assert by_name["fold-03"]["waits_for"] == []
    assert by_name["fold-01"]["resources"] == {"cpus": 2, "gpus": 0.25}
    assert by_name["fold-01"]["run_fold"] == ["ser", "run-fold", f"--config={first.folder}/config.yaml"]
    assert plan["at_once"] == 3

    show_plan([second, done, third, first], resources, Console(width=80), "text")
    text = capsys.readouterr().out
    assert text.startswith("3 of 4 jobs to run on this machine, 3 at once, each with 2 CPUs, 0.25 GPU; retries: 1")
    assert f"\n  OMP_NUM_THREADS=2 {shlex.join(by_name['fold-01']['run_fold'])}\n" in text
    assert f"{second.folder}: waiting, waits for {first.folder}" in text
    show_plan([second, done, third, first], resources, Console(width=80), "json")
    assert json.loads(capsys.readouterr().out) == plan


def test_a_dry_run_prints_json_only_also_under_slurm(
    synthetic_ravdess: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NTASKS", "2"), ("NTASKS_PER_NODE", "1"), ("NNODES", "2"), ("JOB_NAME", "ser")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    given = [
        f"--runs={tmp_path / 'runs'}",
        "--config=experiments/quickstart.yaml",
        f"--data.init_args.root={synthetic_ravdess}",
        f"--data.init_args.feature_folder={tmp_path / 'features'}",
        "--trainer.max_epochs=1",
        "--trainer.logger=false",
    ]
    assert main(["cv", *given, "--dry-run=json", "--folds=0,2", "--cpus-per-job=3"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [job["fold"] for job in plan["jobs"]] == [0, 2]
    assert plan["jobs"][0]["environment"] == {"OMP_NUM_THREADS": "3"}
    folder = tmp_path / "runs/quickstart/ravdess-synthetic/default/seed-0/fold-02"
    assert plan["jobs"][1]["run_fold"] == ["ser", "run-fold", f"--config={folder}/config.yaml"]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {
        folder / "config.yaml",
        folder.with_name("fold-00") / "config.yaml",
    }, "it wrote more than the configurations of its commands"

    # An unstarted job is replanned, and its printed command runs.
    assert main(["cv", *given, "--dry-run=json", "--folds=2", "--model.init_args.cells=4"]) == 0
    ((program, *command),) = [job["run_fold"] for job in json.loads(capsys.readouterr().out)["jobs"]]
    assert program == "ser"
    assert main(command) == 0
    assert (folder / "predictions.csv").is_file()
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["experiment"], facts["row"], facts["fold"]) == ("quickstart", "default", 2)
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["cells"] == 4
    assert main(["cv", *given, "--dry-run", "--folds=2"]) == 1, "the fold was started with another configuration"
    assert "cells: 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "strategy"),
    [
        ("devices: 1", "ddp"),
        ("strategy: auto", "ddp"),
        ("strategy: ddp_find_unused_parameters_true", "ddp_find_unused_parameters_true"),
    ],
)
def test_several_gpus_use_ddp_unless_a_strategy_is_set(
    file: str, strategy: str, synthetic_ravdess: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(f"trainer: {{{file}}}")
    given = ["--config=experiments/quickstart.yaml", f"--config={tmp_path}/own.yaml"]
    options = RunOptions("0", runs=tmp_path / "runs", resources=Resources(gpus_per_job=2), dry_run="json")
    (job,) = plan_experiment([*given, f"--data.init_args.root={synthetic_ravdess}"], options, Console(quiet=True))
    trainer = job.configuration["trainer"]
    assert (trainer["accelerator"], trainer["devices"], trainer["strategy"]) == ("gpu", 2, strategy)
