"""Commands that show results: ``report``, ``reproduction``, ``attention``, ``embeddings``."""

import argparse
from pathlib import Path

from ser_lightning.commands.command_line import CHECKPOINT, CommandLine, add_allow, add_out


def add_commands(commands: CommandLine) -> None:
    """Add the commands of this file."""
    command = commands.add("report", _report, "write a page about runs on disk, and compare them if there are several")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders with runs in or below them")
    add_out(
        command, "report", "DIR", "where to write report.html, report.md and figures/, each picture with its numbers"
    )
    command = commands.add(
        "reproduction",
        _reproduction,
        "write the ledger of published rows: command, corpus, the paper's number, ours",
    )
    command.add_argument("--measured", type=Path, default=Path("docs/measured.yaml"), metavar="FILE", help="our scores")
    add_out(command, "docs/reproduction.md", "FILE", "where to write it")
    command = commands.add("attention", _attention, "draw where in recordings the systems of checkpoints look")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recordings, drawn side by side")
    command.add_argument(
        "--checkpoint",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help=f"{CHECKPOINT} (repeatable: one below another)",
    )
    add_out(
        command, "attention.png", "FILE", "where to write it; a run's report shows it if it lies in a fold's folder"
    )
    add_allow(command)
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
    from ser_lightning.cross_validation.published import EXPERIMENTS, publications
    from ser_lightning.reports.report import write_report

    print(write_report(options.runs, options.out, publications(EXPERIMENTS)))
    return 0


def _reproduction(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.atomic_file import write_atomically
    from ser_lightning.cross_validation.ledger import reproduction_ledger
    from ser_lightning.cross_validation.published import EXPERIMENTS

    write_atomically(options.out, reproduction_ledger(EXPERIMENTS, options.measured).encode())
    print(options.out)
    return 0


def _attention(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.attention import write_attention

    print(write_attention(options.checkpoint, options.files, options.out, options.allow))
    return 0


def _embeddings(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.reports.embedding_figure import write_embedding_figure

    print(write_embedding_figure(options.runs, options.out, options.titles, options.fold))
    return 0
