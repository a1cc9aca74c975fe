"""How far a job has come, by what lies in its folder."""

import os
from pathlib import Path

from ser_lightning.callbacks.results import FILES
from ser_lightning.cross_validation.plan import Job
from ser_lightning.run_record import FACTS_FILE, file_hash, recorded_sources


def is_finished(folder: Path, scored: bool, tested: bool) -> bool:
    """Whether what a job leaves is there: the facts of what was trained and, if it is tested, predictions.

    Predictions are written last and whole; in pre-training, and where nothing is tested, it is the facts that are.

    Args:
        folder: The job's folder.
        scored: Whether the job leaves predictions at all.
        tested: Whether it goes on to the test set.
    """
    # Listed, not looked up: a network file system remembers for up to a minute that a file or a folder is not there,
    # but opening the folder above it asks the server whether that still holds.
    try:
        os.listdir(folder.parent)
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    return FACTS_FILE in names and (not (scored and tested) or FILES["test"] in names)


def is_validated(folder: Path) -> bool:
    """Whether a fold's facts and the predictions of its validation set are there."""
    return (folder / FACTS_FILE).exists() and (folder / FILES["validation"]).exists()


def is_done(job: Job) -> bool:
    """Whether what the job leaves is there."""
    return is_finished(job.folder, job.scored, job.tested)


def is_outdated(job: Job) -> bool:
    """Whether the job started from other checkpoints than lie there now.

    Contents are compared, not times: who copies runs changes these.
    """
    recorded = recorded_sources(job.folder)
    given = dict(argument.removeprefix("--").split("=", 1) for argument in job.own)
    return any(
        key in given and (path := Path(given[key])).is_file() and file_hash(path) != hash_then
        for key, hash_then in recorded.items()
    )
