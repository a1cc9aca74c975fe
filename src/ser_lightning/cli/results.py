"""Commands on runs and their checkpoints: ``report``, ``embeddings``, ``classify``, ``export``, ``attention``."""

import argparse

from ser_lightning.cli.command_line import CHECKPOINT, TRAINED, CommandLine, add_allow, add_out, user_path
from ser_lightning.errors import ConfigurationError


def add_commands(commands: CommandLine) -> None:
    """Add the commands of this file."""
    command = commands.add("report", _report, "write a page that shows and compares runs")
    command.add_argument("runs", nargs="+", type=user_path, metavar="FOLDER", help="runs, or folders that contain runs")
    add_out(
        command, "report", "FOLDER", "output folder of report.html, report.md and figures/, each figure with its data"
    )
    command = commands.add("embeddings", _embeddings, "draw the test embeddings of runs, coloured by emotion")
    command.add_argument("runs", nargs="+", type=user_path, metavar="FOLDER", help="folders of folds or seeds")
    command.add_argument("--fold", type=int, metavar="N", help="fold of a seed's folder (default: its first)")
    command.add_argument("--titles", nargs="+", default=[], metavar="TITLE", help="titles of the runs, one for each")
    add_out(command, "embeddings", "FOLDER", "output folder of embeddings.png and embeddings.csv")
    command = commands.add(
        "classify",
        _classify,
        "classify emotions in recordings with a checkpoint, or with all folds of a run",
        "Exit status 0: every file was classified. 1: some were not, for reasons on standard error. Without --window, "
        "probabilities are averaged over windows of 4 s for recordings above 60 s, and over windows of the system's "
        "longest input for recordings above that.",
    )
    command.add_argument("checkpoint", type=user_path, metavar="CHECKPOINT|FOLDER", help=TRAINED)
    command.add_argument(
        "files", nargs="+", type=user_path, metavar="FILE|FOLDER", help="recordings, or folders that contain recordings"
    )
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--csv", dest="format", action="store_const", const="csv", help="write CSV instead of a table")
    kind.add_argument("--json", dest="format", action="store_const", const="json", help="write JSON instead of a table")
    command.add_argument("--out", type=user_path, metavar="FILE", help="output file; .csv or .json sets the format")
    command.add_argument("--window", type=float, metavar="SECONDS", help="window length, for emotions over time")
    command.add_argument("--hop", type=float, metavar="SECONDS", help="step between windows (default: --window)")
    command.add_argument(
        "--plot", type=user_path, metavar="FILE.png", help="figure of emotions over time; needs --window"
    )
    command.add_argument("--device", default="auto", help="cpu, cuda or cuda:1 (default: a GPU if available)")
    add_allow(command)
    command = commands.add(
        "export", _export, "export a checkpoint's system to ONNX, from features to probabilities, and check it"
    )
    command.add_argument("checkpoint", type=user_path, metavar="CHECKPOINT|FOLDER", help=TRAINED)
    command.add_argument("file", type=user_path, metavar="FILE.onnx", help="output file")
    add_allow(command)
    command = commands.add("attention", _attention, "draw what systems attend to, or their clusters, over recordings")
    command.add_argument("files", nargs="+", type=user_path, metavar="FILE", help="recordings, drawn as columns")
    command.add_argument(
        "--checkpoint",
        action="append",
        required=True,
        type=user_path,
        metavar="CHECKPOINT",
        help=f"{CHECKPOINT}, drawn as a row (repeatable)",
    )
    add_out(command, "attention.png", "FILE", "output file; a run's report shows it if it is in a fold's folder")
    add_allow(command)


def _report(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.published.lookup import with_published
    from ser_lightning.reports.report import write_report
    from ser_lightning.reports.systems import find_systems
    from ser_lightning.reports.terminal import warn_of_left_out

    systems, left_out = find_systems(options.runs)
    warn_of_left_out(left_out)
    print(write_report(with_published(systems), options.out, left_out=left_out))
    return 0


def _embeddings(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.reports.embedding_figure import write_embedding_figure

    print(write_embedding_figure(options.runs, options.out, options.titles, options.fold))
    return 0


def _classify(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.inference.classification import Classifier
    from ser_lightning.inference.command import Output, classify
    from ser_lightning.inference.recordings import Windowing
    from ser_lightning.inference.tables import Format

    if options.hop is not None and options.window is None:
        raise ConfigurationError("--hop is the step between windows and needs their length: give --window too")
    windowing = None
    if options.window is not None:
        windowing = Windowing(options.window, options.window if options.hop is None else options.hop)
    ending = options.out.suffix.lower().removeprefix(".") if options.out else ""
    by_ending: dict[str, Format] = {"csv": "csv", "json": "json"}
    kind: Format = options.format or by_ending.get(ending, "table")
    classifier = Classifier(options.checkpoint, options.device, options.allow)
    return classify(classifier, options.files, windowing, Output(kind, options.out, options.plot))


def _attention(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.inference.attention import write_attention

    print(write_attention(options.checkpoint, options.files, options.out, options.allow))
    return 0


def _export(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.inference.export import export

    print(export(options.checkpoint, options.file, options.allow))
    return 0
