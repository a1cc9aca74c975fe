"""Write a report of runs: a page in HTML and Markdown, and all pictures with their numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import csv_file, write_atomically
from ser_lightning.plain_files import read_json
from ser_lightning.reports.document import Document, html_page, markdown_page
from ser_lightning.reports.sections.comparison import (
    class_changes,
    comparison_with_papers,
    hyper_parameters,
    significance,
)
from ser_lightning.reports.sections.groups import groups
from ser_lightning.reports.sections.learning import clusters, embeddings_and_attention, reliability, training
from ser_lightning.reports.sections.overview import left_out_section, opening, run_facts
from ser_lightning.reports.sections.spread import classes, folds, speakers
from ser_lightning.reports.systems import AbsentRow, ReportedSystem
from ser_lightning.runs.gathering import LeftOut
from ser_lightning.runs.names import DEFAULT_ROW
from ser_lightning.runs.summary import corpus_title

PAGE, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
FIGURES_FILE = "figures.json"  # lists the report's files in figures/


def write_report(
    systems: Sequence[ReportedSystem],
    out: Path,
    title: str = "",
    absent: Sequence[AbsentRow] = (),
    left_out: Sequence[LeftOut] = (),
    baseline: str = "",
) -> Path:
    """Write a report of systems.

    Args:
        systems: At least one, with unique names, as ``find_systems`` returns them.
        out: The folder of ``report.html``, ``report.md``, ``figures/`` and ``figures.json``, which lists its files.
        title: Title of the page; by default the experiment, or the number of systems.
        absent: Rows of a published table that were not run.
        left_out: Folders that cannot be shown; the page names them with the reason.
        baseline: Name of the system with which recalls of classes are compared; by default none.

    Returns:
        The page, which is self-contained.

    Raises:
        ConfigurationError: If ``out`` cannot be written, or its ``figures.json`` cannot be read.
    """
    document = compose(systems, title, absent, left_out, baseline)
    files = {f"{picture.name}.png": picture.png for picture in document.pictures()}
    for picture in document.pictures():
        if picture.numbers is not None:
            files[f"{picture.name}.csv"] = csv_file(picture.numbers)
    try:
        outdated = _figures_written(out) - set(files)
        for name, content in files.items():
            write_atomically(out / FIGURES / name, content)
        write_atomically(out / MARKDOWN, markdown_page(document, FIGURES).encode())
        write_atomically(out / PAGE, html_page(document).encode())
        for name in outdated:
            (out / FIGURES / name).unlink()
        write_atomically(out / FIGURES_FILE, f"{json.dumps(sorted(files), indent=2)}\n".encode())
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror or error}; choose another --out") from error
    return out / PAGE


def _figures_written(out: Path) -> set[str]:
    """Return the files in ``figures/`` that an earlier report wrote; the folder may contain others."""
    path = out / FIGURES_FILE
    try:
        names = set(read_json(path)) if path.is_file() else set()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a list of file names ({error}); delete it") from error
    return {figure.name for figure in (out / FIGURES).glob("*")} & names


def compose(
    systems: Sequence[ReportedSystem],
    title: str = "",
    absent: Sequence[AbsentRow] = (),
    left_out: Sequence[LeftOut] = (),
    baseline: str = "",
) -> Document:
    """Return the report as a document."""
    first = systems[0].summary
    corpora = list(dict.fromkeys(corpus_title(system.summary) for system in systems))
    papers = [paper for paper in dict.fromkeys(system.summary.paper for system in systems) if paper]
    if len(systems) == 1:
        row = [] if first.row == DEFAULT_ROW else [f"row {first.row}"]
        heading, names = f"{first.experiment} on {corpora[0]}", [first.system, *row]
    else:
        heading, names = f"{len(systems)} systems on {', '.join(corpora)}", [system.name for system in systems]
    return Document(
        title or heading,
        "; ".join([*names, *papers]),  # names hold commas
        [
            opening(systems, left_out),
            *comparison_with_papers(systems, absent),
            *significance(systems),
            *hyper_parameters(systems, absent),
            classes(systems),
            *class_changes(systems, baseline),
            folds(systems),
            speakers(systems),
            *groups(systems),
            training(systems),
            reliability(systems),
            *clusters(systems),
            *embeddings_and_attention(systems),
            run_facts(systems),
            *left_out_section(systems, left_out),
        ],
    )
