"""Jobs side by side: overlapping, in the order they need each other, run again where a worker is lost."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Job, Resources
from ser_lightning.jobs.runner import run_jobs

if importlib.util.find_spec("ray") is None:  # not imported here: Ray reads the engine's settings on import
    pytest.skip("Ray is not installed", allow_module_level=True)
MakeJob = Callable[..., Job]
QUIET = Console(quiet=True)
TWO = Resources(jobs=2)


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    """One session of Ray for all tests: it takes seconds to start."""
    from ser_lightning.jobs.ray_engine import ray_session

    with ray_session(TWO):
        yield


def saw(job: Job) -> dict[str, object]:
    content: dict[str, object] = json.loads((job.folder / "saw.json").read_text())
    return content


def test_two_jobs_run_in_parallel_and_their_dependant_after(job: MakeJob) -> None:
    first, second = job("meets", "fold-00"), job("meets", "fold-01")  # each ends only after both have started
    third = job("fine", "fold-02", first, second)
    assert run_jobs([third, first, second], QUIET, TWO) == {}
    one, other, last = saw(first), saw(second), saw(third)
    assert last["began"] > max(one["ended"], other["ended"])  # type: ignore[operator, type-var]


def test_on_ray_a_failure_stops_only_dependants(job: MakeJob) -> None:
    fails, fixed, fine = job("fails", "fold-00"), job("fails-once", "fold-01"), job("fine", "fold-02")
    needing = job("fine", "fold-03", fails)
    failures = run_jobs([fails, fixed, fine, needing], QUIET, TWO)
    assert set(failures) == {fails.folder, needing.folder}
    assert "failed 2 times, exit status 3; end of its log" in failures[fails.folder]
    assert (fixed.folder / "predictions.csv").exists()


def test_on_ray_a_user_error_is_not_retried(job: MakeJob) -> None:
    refused = job("refuses", "fold-00")
    assert run_jobs([refused], QUIET, TWO) == {refused.folder: "there is no such corpus\n  choose another"}
    assert not (refused.folder / "try-1").exists()


def test_a_job_lost_with_its_worker_is_rescheduled(job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    lost = job("loses-worker", "fold-00")
    assert run_jobs([lost], Console(width=200), Resources(jobs=2, retries=0)) == {}
    assert (lost.folder / "try-1").exists()
    assert "fold-00: lost (" in capsys.readouterr().out


def test_a_job_gets_threads_and_wandb_settings_but_no_secrets(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    fine = job("fine", "fold-00")
    run_jobs([fine], QUIET, Resources(jobs=2, cpus_per_job=2))
    environment = saw(fine)["environment"]
    assert isinstance(environment, dict)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["WANDB_PROJECT"] == "mine"
    assert not {"WANDB_API_KEY", "RAY_AUTH_TOKEN"} & set(environment)


@pytest.mark.parametrize(
    ("resources", "named"),
    [(Resources(jobs=1000, cpus_per_job=999), "999 CPUs"), (Resources(jobs=2, gpus_per_job=999), "999 GPUs")],
)
def test_a_job_that_fits_on_no_machine_is_rejected(resources: Resources, named: str, job: MakeJob) -> None:
    with pytest.raises(ConfigurationError, match=named):
        run_jobs([job("fine", "fold-00")], QUIET, resources)


def test_a_job_that_cannot_start_reports_the_reason(job: MakeJob) -> None:
    blocked = job("fine", "fold-00")
    (blocked.folder / "log.txt").mkdir(parents=True)
    failures = run_jobs([blocked], QUIET, TWO)
    assert "Is a directory" in failures[blocked.folder]


def test_a_machine_without_the_shared_folder_is_named(tmp_path: Path) -> None:
    from ser_lightning.jobs.process import run_to_end

    with pytest.raises(FileNotFoundError, match="elsewhere"):
        run_to_end(["true"], [], "fold-00", str(tmp_path / "elsewhere"), {})
