"""Jobs one after another: in order, tried again, reported, stopped."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs import runner
from ser_lightning.jobs.engine import OneAfterAnother, Resources
from ser_lightning.jobs.plan import Job
from ser_lightning.jobs.runner import run_jobs
from ser_lightning.runs.folder import claim_sources, is_finished

MakeJob = Callable[..., Job]
QUIET = Console(quiet=True)


def tries(job: Job) -> int:
    return len(list(job.folder.glob("try-*")))


def test_a_job_whose_source_was_trained_anew_is_named_and_not_taken_for_done(tmp_path: Path) -> None:
    source, dependant = (Job(Path("x.yaml"), (), 0, 0, tmp_path / name) for name in ("source", "dependant"))
    best = source.folder / "checkpoints" / "best.ckpt"
    own = (f"--model.init_args.encoder_checkpoint={best}",)
    dependant = replace(dependant, needs=(source.folder,), own=own)
    best.parent.mkdir(parents=True)
    best.write_text("weights")
    claim_sources(dependant.folder, f"model: {{init_args: {{encoder_checkpoint: {best}}}}}")
    for job in (source, dependant):
        for name in ("predictions.csv", "run.json"):
            (job.folder / name).touch()
    assert run_jobs([source, dependant], QUIET) == {}
    os.utime(best, ns=(time.time_ns() + 10**9,) * 2)
    assert run_jobs([source, dependant], QUIET) == {}, "who copies runs trains nothing anew"
    best.write_text("others")
    failures = run_jobs([source, dependant], QUIET)
    assert list(failures) == [dependant.folder]
    assert "trained anew" in failures[dependant.folder]


def test_a_job_that_left_everything_and_then_ended_badly_is_done_with_a_warning(
    job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    late = job("aborts-at-the-end", "fold-00")
    assert run_jobs([late], Console(width=200), Resources(retries=0)) == {}
    assert "done, although its process ended badly (exit status 3; see log.txt)" in capsys.readouterr().out


def test_what_a_folder_remembers_as_absent_is_looked_up_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run.json", "predictions.csv"):
        (tmp_path / name).touch()
    monkeypatch.setattr(Path, "exists", lambda path: False)  # a network file system's memory
    opened: list[Path] = []
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: opened.append(Path(path)) or listed(path))
    assert is_finished(tmp_path, scored=True, tested=True)
    assert opened == [tmp_path.parent, tmp_path]


@pytest.mark.parametrize(("address", "tries_it_took"), [("head:6379", 1), (None, 2)])
def test_on_a_cluster_what_another_machine_has_written_may_be_seen_later(
    address: str | None, tries_it_took: int, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_engine", lambda resources, _: OneAfterAnother(resources))
    late = job("is-seen-later", "fold-00")
    assert run_jobs([late], QUIET, Resources(address=address, jobs=1)) == {}
    assert tries(late) == tries_it_took


def test_on_a_cluster_what_is_never_seen_is_missing_in_the_end(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_engine", lambda resources, _: OneAfterAnother(resources))
    monkeypatch.setattr(runner, "_SIGHT_SECONDS", 0.1)
    empty = job("leaves-nothing", "fold-00")
    failures = run_jobs([empty], QUIET, Resources(address="head:6379", jobs=1))
    assert "failed 2 times, exit status 0" in failures[empty.folder]


def test_a_job_that_fails_is_tried_again_and_then_reported_and_stops_only_those_that_need_it(job: MakeJob) -> None:
    fails, fine = job("fails", "fold-00"), job("fine", "fold-01")
    needing, theirs = job("fine", "fold-02", fails), job("fine", "fold-03", fine)
    last = job("fine", "fold-04", needing)
    failures = run_jobs([last, needing, fails, theirs, fine], QUIET, Resources(retries=2))
    assert set(failures) == {fails.folder, needing.folder, last.folder}
    assert tries(fails) == 3
    assert "failed 3 times, exit status 3" in failures[fails.folder]
    assert "this is fails at try 2" in failures[fails.folder]
    assert failures[needing.folder] == f"not started: it needs {fails.folder}"
    assert failures[last.folder] == f"not started: it needs {needing.folder}"
    assert [tries(done) for done in (fine, theirs, needing, last)] == [1, 1, 0, 0]


def test_a_job_that_fails_once_is_done_by_a_retry_and_not_without(job: MakeJob) -> None:
    mended, left = job("fails-once", "fold-00"), job("fails-once", "fold-01")
    assert run_jobs([mended], QUIET) == {}
    assert "failed, exit status 3" in run_jobs([left], QUIET, Resources(retries=0))[left.folder]
    assert run_jobs([mended, left], QUIET, Resources(retries=0)) == {}
    assert [tries(mended), tries(left)] == [2, 2]


def test_what_the_user_has_to_mend_is_not_tried_again_and_said_in_its_own_words(job: MakeJob) -> None:
    refused, fine = job("refuses", "fold-00"), job("fine", "fold-01")
    failures = run_jobs([refused, fine], QUIET, Resources(retries=2))
    assert failures == {refused.folder: "there is no such corpus\n  choose another"}
    assert [tries(refused), tries(fine)] == [1, 1]


def test_the_signal_that_ended_a_job_is_named(job: MakeJob) -> None:
    killed = job("is-killed", "fold-00")
    assert "ended by SIGKILL" in run_jobs([killed], QUIET, Resources(retries=0))[killed.folder]


def test_a_job_gets_its_threads_and_devices_and_says_in_its_log_where_it_ran(job: MakeJob) -> None:
    fine = job("fine", "fold-00")
    run_jobs([fine], QUIET, Resources(cpus_per_job=4, gpus_per_job=2))
    saw = json.loads((fine.folder / "saw.json").read_text())
    assert saw["environment"]["OMP_NUM_THREADS"] == "2"
    assert saw["arguments"][-4:] == [
        "--trainer.accelerator=gpu",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--end-with-parent",
    ]
    assert (fine.folder / "log.txt").read_text().startswith("--- ")


def test_a_job_is_no_part_of_a_sweep_agents_run_nor_of_slurms_tasks(
    job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_RUN_ID", "WANDB_SERVICE", "SLURM_NTASKS", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "5")
    fine = job("fine", "fold-00")
    run_jobs([fine], QUIET)
    seen = json.loads((fine.folder / "saw.json").read_text())["environment"]
    assert not {"WANDB_RUN_ID", "WANDB_SERVICE", "SLURM_NTASKS", "RAY_AUTH_TOKEN"} & set(seen)
    assert seen["WANDB_MODE"] == "offline"


def test_without_ray_the_extra_is_named_and_jobs_run_one_after_another(
    job: MakeJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    jobs = [job("fine", "fold-00"), job("fine", "fold-01")]
    assert run_jobs(jobs, Console(width=160), Resources(jobs=2)) == {}
    said = [line for line in capsys.readouterr().out.splitlines() if "Ray" in line]
    extra = "in the clone, pip install -e '.[ray]', or make setup-dev"
    assert said == [f"--jobs 2 needs Ray ({extra}); without it jobs run one after another"]
    first, second = (json.loads((one.folder / "saw.json").read_text()) for one in jobs)
    assert second["began"] > first["ended"]
    with pytest.raises(ConfigurationError, match=r"--address head:6379 needs Ray: in the clone, pip install"):
        run_jobs([job("fine", "fold-02")], QUIET, Resources(address="head:6379"))


STOPPED = """\
import sys
from pathlib import Path
from rich.console import Console
from ser_lightning.cross_validation import engine
from ser_lightning.cross_validation.plan import Job
from ser_lightning.cross_validation.resources import Resources
from ser_lightning.cross_validation.runner import run_jobs

program, runs, at_once = sys.argv[1:]
engine.PROGRAM = (sys.executable, program)
jobs = [Job(Path("waits"), (), 0, 0, Path(runs) / "seed-0" / f"fold-{fold:02d}") for fold in range(2)]
try:
    run_jobs(jobs, Console(), Resources(jobs=int(at_once)))
except KeyboardInterrupt:
    sys.exit(130)
"""


def processes_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text in (entry / "cmdline").read_text() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for orphans in /proc")
@pytest.mark.parametrize("at_once", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sent", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_is_stopped_no_job_outlives_it(
    sent: signal.Signals, at_once: int, pretence: Path, tmp_path: Path
) -> None:
    if at_once > 1 and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    runs = tmp_path / "stopped"
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(pretence), str(runs), str(at_once)])
    while len(list(runs.glob("seed-0/*/try-0"))) < at_once:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    process.send_signal(sent)
    assert process.wait() == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    while processes_with(str(runs)):
        time.sleep(0.05)
    assert not list(runs.glob("seed-0/*/predictions.csv"))
