"""Jobs on a machine that declares four GPUs to Ray: each sees one of its own."""

import importlib.util
import json
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from ser_lightning.jobs.plan import Job, Resources
from ser_lightning.jobs.runner import run_jobs

if importlib.util.find_spec("ray") is None:  # not imported here: Ray reads the engine's settings on import
    pytest.skip("Ray is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow
MakeJob = Callable[..., Job]


@pytest.fixture
def _four_gpus() -> Iterator[None]:
    from ser_lightning.jobs import ray_engine  # sets Ray's settings

    ray_engine.ray.init(address="local", num_cpus=4, num_gpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray_engine.ray.shutdown()


@pytest.mark.usefixtures("_four_gpus")
def test_four_jobs_see_four_gpus(job: MakeJob) -> None:
    def seen(first: int) -> list[str]:
        """The GPU of each of four jobs; each ends only after all four have started."""
        jobs = [job(f"meets{first + 4}", f"fold-{first + number:02d}") for number in range(4)]
        assert run_jobs(jobs, Console(quiet=True), Resources(jobs=4, gpus_per_job=1)) == {}
        saw = [json.loads((one.folder / "saw.json").read_text())["environment"] for one in jobs]
        return sorted(environment["CUDA_VISIBLE_DEVICES"] for environment in saw)

    assert seen(0) == ["0", "1", "2", "3"]
    assert seen(4) == ["0", "1", "2", "3"]  # by workers and servers that have run jobs before
