"""Commands that show results: ``report``, ``embeddings``."""

import argparse
from pathlib import Path

from ser_lightning.cli.command_line import CommandLine, add_out


def add_commands(commands: CommandLine) -> None:
    """Add the commands of this file."""
    command = commands.add("report", _report, "write a page about runs on disk, and compare them if there are several")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders with runs in or below them")
    add_out(
        command, "report", "DIR", "where to write report.html, report.md and figures/, each picture with its numbers"
    )
    command = commands.add(
        "embeddings", _embeddings, "draw the test embeddings of runs side by side, coloured by emotion"
    )
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="folder of a fold, or of a seed: its first fold"
    )
    command.add_argument("--fold", type=int, metavar="N", help="draw this fold instead; each fold has its own space")
    command.add_argument("--titles", nargs="+", default=[], metavar="TITLE", help="what to call the runs, one for each")
    add_out(command, "embeddings", "FOLDER", "where to write embeddings.png and embeddings.csv")


def _report(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.published.lookup import EXPERIMENTS, publications
    from ser_lightning.reports.report import write_report

    print(write_report(options.runs, options.out, publications(EXPERIMENTS)))
    return 0


def _embeddings(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.reports.embedding_figure import write_embedding_figure

    print(write_embedding_figure(options.runs, options.out, options.titles, options.fold))
    return 0
