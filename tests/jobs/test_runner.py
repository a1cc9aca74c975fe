"""The runner with the sequential engine: order, retries, reports, stops."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs import runner
from ser_lightning.jobs.engine import SequentialEngine
from ser_lightning.jobs.fork_server import ForkServer
from ser_lightning.jobs.plan import Change, Job, JobEvent, Resources
from ser_lightning.jobs.runner import run_jobs
from ser_lightning.runs.folder import claim_sources, is_finished

MakeJob = Callable[..., Job]
QUIET = Console(quiet=True)


def tries(job: Job) -> int:
    return len(list(job.folder.glob("try-*")))


def test_a_job_whose_source_was_retrained_is_refused(tmp_path: Path) -> None:
    best = tmp_path / "source" / "checkpoints" / "best.ckpt"
    started = {"model": {"init_args": {"encoder_checkpoint": str(best)}}}
    source = Job(tmp_path / "source", {}, "x", "default", fold=0, seed=0)
    dependant = replace(source, folder=tmp_path / "dependant", configuration=started, needs=(source.folder,))
    best.parent.mkdir(parents=True)
    best.write_text("weights")
    claim_sources(dependant.folder, started)
    for job in (source, dependant):
        for name in ("predictions.csv", "run.json"):
            (job.folder / name).touch()
    assert run_jobs([source, dependant], QUIET) == {}
    os.utime(best, ns=(time.time_ns() + 10**9,) * 2)
    assert run_jobs([source, dependant], QUIET) == {}, "a copied run counts as retrained"
    best.write_text("others")
    failures = run_jobs([source, dependant], QUIET)
    assert list(failures) == [dependant.folder]
    assert "retrained" in failures[dependant.folder]


def test_an_error_after_the_last_file_is_a_warning(job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    late = job("aborts-at-the-end", "fold-00")
    assert run_jobs([late], Console(width=200), Resources(retries=0)) == {}
    assert "done, but its process failed at the end (exit status 3; see log.txt)" in capsys.readouterr().out


def test_a_cached_absence_of_a_file_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run.json", "predictions.csv"):
        (tmp_path / name).touch()
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as cached by a network file system
    opened: list[Path] = []
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: opened.append(Path(path)) or listed(path))
    assert is_finished(tmp_path, scored=True, tested=True)
    assert opened == [tmp_path.parent, tmp_path]


@pytest.mark.parametrize(("address", "tries_it_took"), [("head:6379", 1), (None, 2)])
def test_on_a_cluster_files_may_appear_later(
    address: str | None, tries_it_took: int, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_engine", lambda resources, _: SequentialEngine(resources))
    late = job("is-seen-later", "fold-00")
    assert run_jobs([late], QUIET, Resources(address=address, jobs=1)) == {}
    assert tries(late) == tries_it_took


def test_on_a_cluster_files_that_never_appear_are_missing(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_engine", lambda resources, _: SequentialEngine(resources))
    monkeypatch.setattr(runner, "_FILE_DELAY_SECONDS", 0.1)
    empty = job("leaves-nothing", "fold-00")
    failures = run_jobs([empty], QUIET, Resources(address="head:6379", jobs=1))
    assert "failed 2 times, exit status 0" in failures[empty.folder]


def test_a_failure_stops_only_dependants(job: MakeJob) -> None:
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


def test_a_retry_finishes_a_job_that_fails_once(job: MakeJob) -> None:
    fixed, left = job("fails-once", "fold-00"), job("fails-once", "fold-01")
    assert run_jobs([fixed], QUIET) == {}
    assert "failed, exit status 3" in run_jobs([left], QUIET, Resources(retries=0))[left.folder]
    assert run_jobs([fixed, left], QUIET, Resources(retries=0)) == {}
    assert [tries(fixed), tries(left)] == [2, 2]


def test_a_user_error_is_not_retried(job: MakeJob) -> None:
    refused, fine = job("refuses", "fold-00"), job("fine", "fold-01")
    failures = run_jobs([refused, fine], QUIET, Resources(retries=2))
    assert failures == {refused.folder: "there is no such corpus\n  choose another"}
    assert [tries(refused), tries(fine)] == [1, 1]


def test_observers_get_each_change_of_a_job_once(job: MakeJob) -> None:
    fine, fixed, fails = job("fine", "fold-00"), job("fails-once", "fold-01"), job("fails", "fold-02")
    needing = job("fine", "fold-03", fails)
    jobs = [fine, fixed, fails, needing]
    events: list[JobEvent] = []
    run_jobs(jobs, QUIET, observers=[events.append])
    changes = {one.folder.name: [event.change for event in events if event.job is one] for one in jobs}
    again = [Change.STARTED, Change.RETRIED, Change.STARTED]
    assert changes == {
        "fold-00": [Change.STARTED, Change.FINISHED],
        "fold-01": [*again, Change.FINISHED],
        "fold-02": [*again, Change.FAILED],
        "fold-03": [Change.NOT_STARTED],
    }
    events.clear()
    run_jobs([fine], QUIET, observers=[events.append])
    assert [event.change for event in events] == [Change.FOUND_DONE]


def test_jobs_share_compiled_kernels_unless_told_otherwise(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(name: str) -> str:
        fine = job("fine", name)
        run_jobs([fine], QUIET)
        found: str = json.loads((fine.folder / "saw.json").read_text())["environment"]["TORCHINDUCTOR_CACHE_DIR"]
        return found

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert folder("fold-00") == folder("fold-01") == str(Path.cwd() / ".cache" / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    assert folder("fold-02") == "/elsewhere"


def test_the_signal_that_ended_a_job_is_named(job: MakeJob) -> None:
    killed = job("is-killed", "fold-00")
    assert "ended by SIGKILL" in run_jobs([killed], QUIET, Resources(retries=0))[killed.folder]


def test_a_job_gets_its_threads_and_devices(job: MakeJob) -> None:
    fine = job("fine", "fold-00")
    run_jobs([fine], QUIET, Resources(cpus_per_job=4, gpus_per_job=2))
    saw = json.loads((fine.folder / "saw.json").read_text())
    assert saw["environment"]["OMP_NUM_THREADS"] == "2"
    assert saw["environment"]["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert saw["arguments"] == [*fine.command(), "--end-with-parent"]
    assert (fine.folder / "log.txt").read_text().startswith("--- ")


def test_a_job_does_not_inherit_agent_or_slurm_variables(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_RUN_ID", "WANDB_SERVICE", "SLURM_NTASKS", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "5")
    fine = job("fine", "fold-00")
    run_jobs([fine], QUIET)
    seen = json.loads((fine.folder / "saw.json").read_text())["environment"]
    assert not {"WANDB_RUN_ID", "WANDB_SERVICE", "SLURM_NTASKS", "RAY_AUTH_TOKEN"} & set(seen)
    assert seen["WANDB_MODE"] == "offline"


def test_without_ray_jobs_run_one_after_another(
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
    with pytest.raises(ConfigurationError, match=r"--address head:6379 .*pip install"):
        run_jobs([job("fine", "fold-02")], QUIET, Resources(address="head:6379"))


STOPPED = """\
import sys
from pathlib import Path
from rich.console import Console
from ser_lightning.jobs import engine
from ser_lightning.jobs.plan import Job, Resources, write_configurations
from ser_lightning.jobs.process import Termination, sigterm_raises
from ser_lightning.jobs.runner import run_jobs

program, runs, at_once = sys.argv[1:]
engine.PROGRAM = (sys.executable, program)
folders = [Path(runs) / "seed-0" / f"fold-{fold:02d}" for fold in range(2)]
jobs = [Job(folder, {"kind": "waits"}, "x", "default", fold=0, seed=0) for folder in folders]
write_configurations(jobs)
try:
    with sigterm_raises():
        run_jobs(jobs, Console(), Resources(jobs=int(at_once)))
except Termination:
    sys.exit(143)
except KeyboardInterrupt:
    sys.exit(130)
"""


def processes_writing_below(runs: Path) -> list[Path]:
    """Processes whose output goes to a file below a folder: forked jobs have their server's command line."""
    found = []
    for output in Path("/proc").glob("[0-9]*/fd/1"):
        with suppress(OSError):  # the process has ended
            if output.readlink().is_relative_to(runs):
                found.append(output)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for orphans in /proc")
@pytest.mark.parametrize("at_once", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "sent", [signal.SIGKILL, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGTERM))]
)
def test_no_job_outlives_a_stopped_run(sent: signal.Signals, at_once: int, fake_ser: Path, tmp_path: Path) -> None:
    if at_once > 1 and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    runs = tmp_path / "stopped"
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(fake_ser), str(runs), str(at_once)])
    while len(list(runs.glob("seed-0/*/try-0"))) < at_once:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    process.send_signal(sent)
    assert process.wait() == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
    while processes_writing_below(runs):
        time.sleep(0.05)
    assert not list(runs.glob("seed-0/*/predictions.csv"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel watches on Linux")
def test_a_job_ends_with_its_parent_even_while_it_holds_the_interpreter() -> None:
    code = (
        "from ser_lightning.jobs.process import end_with_parent; end_with_parent(); "
        "print('watched', flush=True); import ctypes; ctypes.PyDLL(None).sleep(60)"  # as an import of torch does
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, start_new_session=True) as job:
        assert job.stdin
        assert job.stdout
        job.stdout.readline()
        job.stdin.close()
        assert job.wait(timeout=5) == -signal.SIGKILL


def test_an_unexpected_error_of_a_job_is_shown_in_one_line(job: MakeJob) -> None:
    failing = job("crashes", "fold-00")
    (reason,) = run_jobs([failing], QUIET, Resources(retries=0)).values()
    assert reason.endswith(f"error: KeyError: 'x'; see (traceback: {failing.folder / 'log.txt'})")
    assert "this is" not in reason


def is_running(stat: Path) -> bool:
    """Whether the process of a file /proc/<pid>/stat exists and is not a zombie."""
    try:
        return ") Z" not in stat.read_text()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel watches on Linux")
def test_a_job_requested_from_a_dead_fork_server_counts_as_killed(tmp_path: Path) -> None:
    server = ForkServer([sys.executable, "-c", ""], os.environ)
    server._process.wait()
    number = server.start(["run-fold"], tmp_path, {}, tmp_path / "log.txt")
    assert server.status(number) == -signal.SIGKILL


def test_a_fork_server_ends_with_its_parent_even_while_it_imports(tmp_path: Path) -> None:
    program, began = tmp_path / "program.py", tmp_path / "began"
    program.write_text(
        "import ctypes, os, pathlib\n"
        "from ser_lightning.jobs.fork_server import serve\n"
        "def prepare():\n"
        f"    pathlib.Path({str(began)!r}).symlink_to(f'/proc/{{os.getpid()}}/stat')\n"
        "    ctypes.PyDLL(None).sleep(60)  # holds the interpreter, as an import of torch does\n"
        "serve(prepare, print)\n"
    )
    code = (
        "import os, sys, time; from ser_lightning.jobs.fork_server import ForkServer; "
        "server = ForkServer([sys.executable, sys.argv[1]], os.environ); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(program)]) as parent:
        while not began.is_symlink():
            assert parent.poll() is None
            time.sleep(0.02)
        parent.kill()
    until = time.monotonic() + 5
    while is_running(began):
        assert time.monotonic() < until
        time.sleep(0.02)
