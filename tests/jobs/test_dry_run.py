"""A plan in print."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ser_lightning.cli.main import main
from ser_lightning.jobs.plan import Resources
from ser_lightning.jobs.plan import Job
from ser_lightning.jobs.progress import describe, show_plan
from ser_lightning.training.experiment_file import chosen_strategy

MakeJob = Callable[..., Job]


def test_a_plan_says_what_is_done_what_waits_for_what_and_the_commands_with_what_they_get(
    job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    done, first = job("a.yaml", "fold-00"), job("b.yaml", "fold-01")
    second, third = job("c.yaml", "fold-02", first), job("d.yaml", "fold-03", done)
    done.folder.mkdir(parents=True)
    for name in ("run.json", "predictions.csv"):
        (done.folder / name).touch()
    resources = Resources(jobs=3, gpus_per_job=0.25, cpus_per_job=2)
    plan = describe([second, done, third, first], resources)
    by_name = {Path(entry["folder"]).name: entry for entry in plan["jobs"]}
    assert [by_name[name]["state"] for name in sorted(by_name)] == ["done", "ready", "waiting", "ready"]
    assert by_name["fold-02"]["waits_for"] == [str(first.folder)]
    assert by_name["fold-03"]["waits_for"] == []
    assert by_name["fold-01"]["resources"] == {"cpus": 2, "gpus": 0.25}
    assert by_name["fold-01"]["run_fold"] == ["ser", *first.command(), *resources.arguments()]
    assert by_name["fold-01"]["fit"][:2] == ["ser", "fit"]
    assert plan["at_once"] == 3

    show_plan([second, done, third, first], resources, Console(width=80), "text")
    text = capsys.readouterr().out
    assert text.startswith("3 of 4 jobs to run on this machine, 3 at once, each with 2 CPUs, 0.25 GPU; retries: 1")
    assert f"\n  OMP_NUM_THREADS=2 {shlex.join(by_name['fold-01']['run_fold'])}\n" in text
    assert f"{second.folder}: waiting, waits for {first.folder}" in text
    show_plan([second, done, third, first], resources, Console(width=80), "json")
    assert json.loads(capsys.readouterr().out) == plan


def test_a_chosen_strategy_is_kept(tmp_path: Path) -> None:
    chosen = Job(Path("x.yaml"), ("--trainer.strategy=ddp_spawn",), 0, 0, tmp_path, keeps_strategy=True)
    command = chosen.command(Resources(gpus_per_job=2).arguments())
    assert [argument for argument in command if "trainer.strategy" in argument] == ["--trainer.strategy=ddp_spawn"]
    assert "--trainer.devices=2" in command


def test_a_strategy_is_chosen_by_an_argument_or_by_a_file_of_which_the_last_counts(tmp_path: Path) -> None:
    for name, text in (
        ("own", "trainer: {strategy: ddp_find_unused_parameters_true}"),
        ("none", "trainer: {devices: 1}"),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
    own, none = (f"--config={tmp_path}/{name}.yaml" for name in ("own", "none"))
    assert chosen_strategy([none, own, none]) == "ddp_find_unused_parameters_true"
    assert chosen_strategy(["-c", str(tmp_path / "own.yaml")]) == "ddp_find_unused_parameters_true"
    assert chosen_strategy([own, "--trainer.strategy=auto"]) is None
    assert chosen_strategy([own, "--trainer.strategy", "ddp_spawn"]) == "ddp_spawn"
    assert chosen_strategy([none]) is None


def test_a_dry_run_prints_json_alone_and_leaves_nothing_behind_also_as_one_of_slurms_tasks(
    synthetic_ravdess: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NTASKS", "2"), ("NTASKS_PER_NODE", "1"), ("NNODES", "2"), ("JOB_NAME", "ser")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    given = [
        f"--runs={tmp_path / 'runs'}",
        "--config=experiments/quickstart.yaml",
        f"--data.init_args.root={synthetic_ravdess}",
        f"--data.init_args.feature_folder={tmp_path / 'features'}",
    ]
    assert main(["cv", *given, "--dry-run=json", "--folds=0,2", "--cpus-per-job=3"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [job["fold"] for job in plan["jobs"]] == [0, 2]
    assert plan["jobs"][0]["environment"] == {"OMP_NUM_THREADS": "3"}
    assert not list(tmp_path.iterdir())
    assert main(["cv", *given, "--dry-run", "--folds=0", "--gpus-per-job=2"]) == 0
    assert "--trainer.devices=2 --trainer.strategy=ddp" in capsys.readouterr().out
    (tmp_path / "own.yaml").write_text("trainer: {strategy: ddp_find_unused_parameters_true}")
    assert main(["cv", *given, f"--config={tmp_path}/own.yaml", "--dry-run", "--folds=0", "--gpus-per-job=2"]) == 0
    said = capsys.readouterr().out
    assert "--trainer.devices=2" in said
    assert "--trainer.strategy" not in said, "the file's own is overridden"
