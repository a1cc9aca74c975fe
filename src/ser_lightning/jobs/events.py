"""The event that the runner sends to observers when a job's state changes."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ser_lightning.jobs.plan import Job


class Change(Enum):
    """How a job's state changed."""

    STARTED = "handed to the engine"
    FINISHED = "finished by this run"
    FOUND_DONE = "finished by an earlier run"
    RETRIED = "failed and queued again"
    LOST = "lost with its machine and queued again"
    FAILED = "failed, no retries left"
    NOT_STARTED = "rejected before its start"


@dataclass(frozen=True)
class JobEvent:
    """A change of one job's state.

    Attributes:
        job: The job.
        change: The change.
        note: The change in words, for the log.
    """

    job: Job
    change: Change
    note: str = ""


Observer = Callable[[JobEvent], None]
"""Called in the runner's thread between two polls; an exception ends the run."""
