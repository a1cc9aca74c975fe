"""What finished jobs leave as a whole: numbers and picture of each cross-validation, and cards that are missing."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from ser_lightning.callbacks.checkpoints import FOLDER as CHECKPOINTS
from ser_lightning.cross_validation.plan import Job
from ser_lightning.errors import SerError
from ser_lightning.inference.model_card import CARD, write_model_card
from ser_lightning.reports.figures import confusion_figure, save
from ser_lightning.reports.runs import find_cross_validations
from ser_lightning.reports.summary import Summary, corpus_title, pooled_confusion, summarize, write_summary


def write_summaries(jobs: Sequence[Job], failures: Collection[Path]) -> dict[Path, Summary]:
    """Write ``summary.json`` and ``confusion.png`` of each seed, unless they say already what is on disk.

    Args:
        jobs: What was run.
        failures: Folders of the jobs that are missing.

    Returns:
        The summary by the seed's folder, where a fold of it is tested.

    Raises:
        ConfigurationError: If what lies in a seed's folder must not be averaged.
    """
    tested = {job.folder.parent for job in jobs if job.scored and job.tested and job.folder not in failures}
    return {folder: _write_summary(folder) for folder in sorted(tested)}


def write_missing_cards(jobs: Sequence[Job], failures: Collection[Path], console: Console) -> None:
    """Write the model card of each job that was stopped between its last predictions and its card.

    Args:
        jobs: What was run.
        failures: Folders of the jobs that are missing.
        console: Where to say which card could not be written.
    """
    for job in jobs:
        if job.folder not in failures and not (job.folder / CHECKPOINTS / CARD).exists():
            try:
                write_model_card(job.folder, job.allow)
            except SerError as error:
                console.print(f"{job.folder} has no model card: {error}", highlight=False, markup=False)


def _write_summary(folder: Path) -> Summary:
    runs = find_cross_validations([folder])
    summary = summarize(runs)
    picture, path = folder / "confusion.png", folder / "summary.json"
    # A table of a hundred rows of which one has changed draws one picture.
    if not picture.exists() or not _says(path, summary):
        title = f"{summary.experiment}, {corpus_title(summary)}"
        save(confusion_figure(pooled_confusion(runs[0]), summary.class_names, title), picture)
        write_summary(folder)
    return summary


def _says(path: Path, summary: Summary) -> bool:
    """Whether a ``summary.json`` is there and up to date; a damaged one is not: all of it can be computed again."""
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(json.dumps(asdict(summary))))
    except (FileNotFoundError, ValueError):
        return False
