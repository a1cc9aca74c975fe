"""The Ray engine: many jobs at once, on this machine or on a cluster.

Imported only if Ray is installed and needed.
"""

import logging
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

# Ray reads these on import. The token is needed because an open Ray port allows remote code execution. The others turn
# off usage reports, environments that Ray installs under `uv run`, and gRPC's warnings about forked processes.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import ray
from ray.exceptions import RayError, RayTaskError

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs import engine
from ser_lightning.jobs.engine import JobExit
from ser_lightning.jobs.plan import Job, Resources
from ser_lightning.jobs.process import POLL_SECONDS, run_to_end

# The smallest store that Ray allows, in bytes: jobs return only an exit status.
_OBJECT_STORE = 75 * 1024 * 1024
_STOP_SECONDS = 15.0
# A socket's path has at most 107 characters, and Ray's names inside its folder are long.
_MAX_FOLDER_LENGTH = 40


class RayEngine:
    """Runs jobs as Ray tasks, each of which waits for a job's process.

    Args:
        resources: Resources of the plan and of each job.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.at_once = resources.at_once
        self._running: dict[ray.ObjectRef[int], Path] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start Ray or join the cluster, and check that a job fits on one of its machines.

        Raises:
            ConfigurationError: If the cluster cannot be joined, or a job fits on no machine.
        """
        with ExitStack() as stack:
            stack.enter_context(ray_session(self.resources))
            _check_room(self.resources)
            self._stack = stack.pop_all()
        self._task = ray.remote(
            num_cpus=self.resources.cpus_per_job,
            num_gpus=self.resources.gpus_per_job or 0,
            max_calls=0,  # a worker keeps its fork server, also where the job has a GPU
            max_retries=0,  # the runner retries, and logs it
            scheduling_strategy="SPREAD" if self.resources.address else "DEFAULT",
        )(run_to_end)
        self._environment = engine.environment(self.resources)
        if self.resources.gpus_per_job is None:
            self._environment["CUDA_VISIBLE_DEVICES"] = ""  # a job must not use a GPU that Ray does not count
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the running jobs, then Ray."""
        try:
            for reference in self._running:
                ray.cancel(reference)
            if self._running:
                ray.wait(list(self._running), num_returns=len(self._running), timeout=_STOP_SECONDS)
        finally:
            self._stack.close()

    def start(self, job: Job) -> None:
        """Submit a job to Ray, which starts it when a machine has room."""
        reference = self._task.options(name=str(job.folder)).remote(
            engine.PROGRAM,
            engine.arguments(job, self.resources),
            str(job.folder),
            str(Path.cwd()),
            self._environment,
        )
        self._running[reference] = job.folder

    def poll_exits(self) -> list[JobExit]:
        """Wait briefly; return the jobs that exited or were lost."""
        references = list(self._running)
        if not references:  # Ray rejects an empty list
            time.sleep(POLL_SECONDS)
            return []
        ready, _ = ray.wait(references, num_returns=1, timeout=POLL_SECONDS)
        return [_exit_of(reference, self._running.pop(reference)) for reference in ready]


def _exit_of(reference: "ray.ObjectRef[int]", folder: Path) -> JobExit:
    try:
        return JobExit(folder, ray.get(reference))
    except RayTaskError as error:  # the process could not start: missing folder, no permission
        return JobExit(folder, 1, str(error.cause))
    except RayError as error:  # the worker or the machine is gone
        return JobExit(folder, None, str(error).strip().split(".")[0])


@contextmanager
def ray_session(resources: Resources) -> Iterator[None]:
    """Start Ray on this machine or join the cluster; reuse a session that runs already.

    Args:
        resources: Resources of the plan and of each job.

    Raises:
        ConfigurationError: If the cluster cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with tempfile.TemporaryDirectory(prefix="ser-ray-", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        if resources.address:
            _join(resources.address)
        else:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init(
                address="local",  # overrides RAY_ADDRESS
                num_cpus=(resources.at_once or 1) * resources.cpus_per_job,
                num_gpus=None if resources.gpus_per_job else 0,
                object_store_memory=_OBJECT_STORE,
                _temp_dir=folder,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has set its own, which exits with status 15
        try:
            yield
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"--address {address}: cannot join the Ray cluster: {reason}\nAll machines need the same token "
            "(RAY_AUTH_MODE=token, ~/.ray/auth_token) and the same versions; see docs/scaling.md"
        ) from error


def _check_room(resources: Resources) -> None:
    """Reject a job that fits on no machine: Ray would wait forever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray's
    wanted = {"CPU": resources.cpus_per_job, "GPU": resources.gpus_per_job or 0}
    if any(all(machine.get(name, 0) >= number for name, number in wanted.items()) for machine in machines):
        return
    sizes = "; ".join(f"{machine.get('CPU', 0):g} CPUs, {machine.get('GPU', 0):g} GPUs" for machine in machines)
    raise ConfigurationError(f"no machine has room for a job ({resources}); machines: {sizes}")


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= _MAX_FOLDER_LENGTH - len("/ser-ray-12345678") else "/tmp"
