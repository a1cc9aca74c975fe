"""Commands that show results: ``report``, ``embeddings``."""

import argparse
from pathlib import Path

from ser_lightning.cli.command_line import CommandLine, add_out


def add_commands(commands: CommandLine) -> None:
    """Add the commands of this file."""
    command = commands.add("report", _report, "write a page that shows and compares runs")
    command.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="runs, or folders that contain runs")
    add_out(
        command, "report", "FOLDER", "output folder of report.html, report.md and figures/, each figure with its data"
    )
    command = commands.add("embeddings", _embeddings, "draw the test embeddings of runs, coloured by emotion")
    command.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="folders of folds or seeds")
    command.add_argument("--fold", type=int, metavar="N", help="fold of a seed's folder (default: its first)")
    command.add_argument("--titles", nargs="+", default=[], metavar="TITLE", help="titles of the runs, one for each")
    add_out(command, "embeddings", "FOLDER", "output folder of embeddings.png and embeddings.csv")


def _report(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.published.lookup import EXPERIMENTS, publications
    from ser_lightning.reports.report import write_report

    print(write_report(options.runs, options.out, publications(EXPERIMENTS)))
    return 0


def _embeddings(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.reports.embedding_figure import write_embedding_figure

    print(write_embedding_figure(options.runs, options.out, options.titles, options.fold))
    return 0
