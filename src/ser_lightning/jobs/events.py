"""The event that the runner sends when a job's state changes: the live table and the report to W&B's agent get it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ser_lightning.jobs.plan import Job


class Change(Enum):
    """What became of a job."""

    STARTED = "given to the engine"
    FINISHED = "done by this run"
    FOUND_DONE = "done by an earlier run"
    RETRIED = "failed, and waits to be started again"
    LOST = "lost with its machine, and waits to be started elsewhere"
    FAILED = "failed for the last time"
    NOT_STARTED = "refused before it started"


@dataclass(frozen=True)
class JobEvent:
    """A change of one job's state.

    Attributes:
        job: The job.
        change: What became of it.
        note: The change in words, for a log.
    """

    job: Job
    change: Change
    note: str = ""


Observer = Callable[[JobEvent], None]
"""Called in the runner's thread, between two looks at its jobs; what it raises ends the run."""
