"""The report: one page in HTML and in Markdown, and every picture with its numbers, from runs on disk."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.reports.document import Document
from ser_lightning.reports.render import html_page, markdown_page
from ser_lightning.reports.sections.facts import not_shown, opening, what_was_run
from ser_lightning.reports.sections.learning import left_pictures, reliability, training
from ser_lightning.reports.sections.scores import beside_the_paper, hyper_parameters, which_differ
from ser_lightning.reports.sections.spread import classes, folds, speakers
from ser_lightning.reports.systems import AbsentRow, Publications, ReportedSystem, find_systems
from ser_lightning.runs.gathering import LeftOut
from ser_lightning.runs.summary import corpus_title

PAGE, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
FIGURES_FILE = "figures.json"  # names the files in figures/ that are the report's


def write_report(run_folders: Sequence[Path], out: Path, publications: Publications | None = None) -> Path:
    """Write the report about what is in or below ``run_folders``: one experiment, or several next to each other.

    Args:
        run_folders: Folds, seeds or folders above.
        out: The folder of ``report.html``, ``report.md`` and ``figures/``.
        publications: What papers report of a run.

    Returns:
        The page, which needs no network and no other file. What cannot be read or averaged is left out; the page and
        standard error name it with the reason.

    Raises:
        ConfigurationError: If a folder does not exist, or nothing can be shown; nothing is written then.
    """
    systems, left_out = find_systems(run_folders, publications)
    for one in left_out:
        print(f"warning: {one.folder} is left out: {one.reason}", file=sys.stderr)
    return write_systems(systems, out, left_out=left_out)


def write_systems(
    systems: Sequence[ReportedSystem],
    out: Path,
    title: str = "",
    absent: Sequence[AbsentRow] = (),
    left_out: Sequence[LeftOut] = (),
) -> Path:
    """Write the report about systems.

    Args:
        systems: At least one, with names that differ.
        out: The folder of ``report.html``, ``report.md``, ``figures/`` and ``figures.json``, which lists its files.
        title: Title of the page; by default the experiment, or that it is a comparison.
        absent: Rows of a published table that were not run.
        left_out: Folders that cannot be shown.

    Returns:
        The page.

    Raises:
        ConfigurationError: If ``out`` cannot be written, or its ``figures.json`` cannot be read.
    """
    document = compose(systems, title, absent, left_out)
    files = {f"{picture.name}.png": picture.png for picture in document.pictures()}
    for picture in document.pictures():
        if picture.numbers is not None:
            text = picture.numbers.to_csv(index=False, float_format="%.9g", lineterminator="\n")
            files[f"{picture.name}.csv"] = text.encode()
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
    """Return the files in ``figures/`` that belong to an earlier report; the folder may hold others."""
    path = out / FIGURES_FILE
    try:
        names = set(json.loads(path.read_text())) if path.is_file() else set()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a list of file names ({error}); delete it") from error
    return {figure.name for figure in (out / FIGURES).glob("*")} & names


def compose(
    systems: Sequence[ReportedSystem],
    title: str = "",
    absent: Sequence[AbsentRow] = (),
    left_out: Sequence[LeftOut] = (),
) -> Document:
    """Return the report as a document."""
    first = systems[0].summary
    corpora = list(dict.fromkeys(corpus_title(system.summary) for system in systems))
    papers = [paper for paper in dict.fromkeys(system.summary.paper for system in systems) if paper]
    if len(systems) == 1:
        heading, names = f"{first.experiment} on {corpora[0]}", [first.system]
    else:
        heading, names = f"{len(systems)} systems on {', '.join(corpora)}", [system.name for system in systems]
    return Document(
        title or heading,
        "; ".join([*names, *papers]),  # names hold commas
        [
            opening(systems, left_out),
            what_was_run(systems),
            beside_the_paper(systems, absent),
            *which_differ(systems),
            *hyper_parameters(systems, absent),
            folds(systems),
            classes(systems),
            speakers(systems),
            training(systems),
            reliability(systems),
            *left_pictures(systems),
            *not_shown(systems, left_out),
        ],
    )
