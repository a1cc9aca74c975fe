"""How many jobs run at once, where, and what each of them gets."""

from dataclasses import dataclass

from ser_lightning.errors import ConfigurationError


@dataclass(frozen=True)
class Resources:
    """What jobs may use.

    Attributes:
        jobs: Jobs at once at most; None: one, or on a cluster as many as it has room for.
        address: A Ray cluster's, such as ``head:6379``; None: this machine alone.
        gpus_per_job: GPUs of each job: a part of one, or whole ones, which share its batches (DDP); None: the trainer
            decides as its YAML says.
        cpus_per_job: Threads of each job; its processes share them.
        retries: How often a job that fails is started again, from its last checkpoint.
    """

    jobs: int | None = None
    address: str | None = None
    gpus_per_job: float | None = None
    cpus_per_job: int = 1
    retries: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.jobs is not None and self.jobs < 1:
            raise ConfigurationError(f"--jobs {self.jobs}: at least one job runs at once")
        if self.cpus_per_job < 1:
            raise ConfigurationError(f"--cpus-per-job {self.cpus_per_job}: a job needs at least one")
        if self.retries < 0:
            raise ConfigurationError(f"--retries {self.retries}: less than none is not possible")
        gpus = self.gpus_per_job
        if gpus is not None and (gpus <= 0 or (gpus > 1 and gpus != int(gpus))):
            raise ConfigurationError(
                f"--gpus-per-job {gpus:g}: a part of one GPU, such as 0.25, or a number of whole ones; without the "
                "option the YAML's trainer decides"
            )

    @property
    def at_once(self) -> int | None:
        """Jobs at once at most; None if the cluster's size decides."""
        return self.jobs if self.jobs or self.address else 1

    @property
    def devices(self) -> int:
        """Processes of a job: one, or one for each of several GPUs."""
        return int(self.gpus_per_job) if self.gpus_per_job and self.gpus_per_job > 1 else 1

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments that make a job's trainer use what it gets; none of them changes what a run is."""
        if self.gpus_per_job is None:
            return ()
        shared = ("--trainer.strategy=ddp",) if self.devices > 1 else ()
        return ("--trainer.accelerator=gpu", f"--trainer.devices={self.devices}", *shared)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make a job's processes use what they get."""
        return {"OMP_NUM_THREADS": str(max(self.cpus_per_job // self.devices, 1))}

    def __str__(self) -> str:
        """In words, of one job: ``1 CPU, 0.25 GPU``."""
        cpus = f"{self.cpus_per_job} CPU{'s' * (self.cpus_per_job > 1)}"
        return cpus if self.gpus_per_job is None else f"{cpus}, {self.gpus_per_job:g} GPU{'s' * (self.devices > 1)}"
