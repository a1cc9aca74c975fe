"""Resources of jobs."""

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Resources


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"jobs": 0}, "--jobs 0"),
        ({"cpus_per_job": 0}, "--cpus-per-job 0"),
        ({"retries": -1}, "--retries -1"),
        ({"gpus_per_job": 1.5}, "--gpus-per-job 1.5"),
        ({"gpus_per_job": 0.0}, "--gpus-per-job 0"),
    ],
)
def test_a_number_out_of_range_is_named(given: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Resources(**given)  # type: ignore[arg-type]


def test_jobs_at_once_default_to_one_and_on_a_cluster_to_all() -> None:
    assert Resources().at_once == 1
    assert Resources(jobs=3).at_once == 3
    assert Resources(address="head:6379").at_once is None
    assert Resources(address="head:6379", jobs=1).at_once == 1


def test_gpu_fractions_are_one_device_and_several_gpus_use_ddp() -> None:
    assert Resources().trainer() == {}
    part, pair = Resources(gpus_per_job=0.25), Resources(gpus_per_job=2, cpus_per_job=8)
    assert part.trainer() == {"accelerator": "gpu", "devices": 1}
    assert pair.trainer() == {"accelerator": "gpu", "devices": 2, "strategy": "ddp"}
    assert pair.environment() == {"OMP_NUM_THREADS": "4"}
    assert (str(Resources()), str(part), str(pair)) == ("1 CPU", "1 CPU, 0.25 GPU", "8 CPUs, 2 GPUs")
