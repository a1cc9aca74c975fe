"""The ``ser`` command.

Only what a call needs is imported, inside its function: ``ser --help`` answers at once.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_lightning.errors import ConfigurationError, SerError

if TYPE_CHECKING:
    from rich.console import Console

    from ser_lightning.cross_validation.cross_validate import Choice

LIGHTNING_COMMANDS = {
    "fit": "train on one fold (LightningCLI)",
    "validate": "score a checkpoint on the fold's validation set (LightningCLI)",
    "test": "score a checkpoint on the fold's test set (LightningCLI)",
    "predict": "predict the whole corpus with a checkpoint (LightningCLI)",
}
EXAMPLES = """\
examples:
  ser synth ravdess data/synthetic --speakers 6
  ser audit --config experiments/quickstart.yaml
  ser fit --config experiments/quickstart.yaml --data.init_args.fold 1
  ser cv --config experiments/huang2020/ravdess/netvlad_unigram.yaml --data.init_args.root RAVDESS
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 1 an error the user can mend, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--end-with-parent" in arguments:
        from ser_lightning.cross_validation.worker import end_with_parent

        arguments.remove("--end-with-parent")
        end_with_parent()
    try:
        return _run(arguments)
    except SerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"error: no permission to write {error.filename}; choose another folder", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    parser = _parser()
    if arguments and arguments[0] in LIGHTNING_COMMANDS:
        row, allow, rest = _own_options(arguments[1:])
        return _lightning(arguments[0], rest, row, allow)
    options, rest = parser.parse_known_args(arguments)
    _quiet_libraries()
    if rest and not options.takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    status: int = options.function(options, rest)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ser",
        description="Speech emotion recognition: corpora in, cross-validated and comparable results out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in LIGHTNING_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)

    def add(name: str, text: str, takes_overrides: bool = False) -> argparse.ArgumentParser:
        more = " Further arguments are LightningCLI's: --config EXPERIMENT.yaml and any --key value."
        command = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + "." + more * takes_overrides, allow_abbrev=False
        )
        command.set_defaults(function=_FUNCTIONS[name], takes_overrides=takes_overrides)
        if takes_overrides:
            command.add_argument("--row", default="default", help="name of a table's row, part of the run's folder")
            command.add_argument(
                "--allow", action="append", default=[], metavar="MODULE", help="trust classes of a module in YAML"
            )
        return command

    command = add("run-fold", "fit, validate and test one fold, going on where it stopped", takes_overrides=True)
    command.add_argument("--no-test", action="store_true", help="end with the validation set; a later run tests")
    command.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="so long for a process that has this fold (default: 0)"
    )
    command = add("cv", "run all folds that are not done, then summary and report", takes_overrides=True)
    _add_choice(command)
    add("prepare", "extract features into the store", takes_overrides=True)
    add("audit", "show every fold's utterances, speakers and hours; fail if a speaker is in two sets", True)
    command = add("table", "train what is missing of a published table, and show ours beside the paper's", True)
    command.add_argument("action", choices=["run", "show"], help="show: only what is on disk")
    command.add_argument("file", type=Path, metavar="FILE", help="a table file, experiments/<paper>/<table>.yaml")
    command.epilog = (
        "key=value, anywhere behind FILE, overrides a key of the table file, such as corpus=ravdess. Rows that are "
        "trained once, for pre-training, take --config and --trainer arguments, and all that stand behind --once, such "
        "as --once --data.init_args.root /data/VoxCeleb2."
    )
    command.add_argument("--rows", action="append", default=[], metavar="NAME", help="run only this row (repeatable)")
    _add_choice(command)
    command = add("sweep", "run the trials of a sweep without a W&B server, and test the winner", True)
    command.add_argument("file", type=Path, metavar="FILE", help="in W&B's format, such as experiments/sweeps/*.yaml")
    command.add_argument("--trials", type=int, metavar="N", help="trials at most (default: the whole grid, or run_cap)")
    command.add_argument("--storage", metavar="URL", help="database that machines share (default: a file)")
    command.epilog = (
        "key=value, anywhere behind FILE, overrides a key of the sweep file, such as method=random. All options of "
        "`ser cv` (--folds, --seeds, --runs, --jobs, ...) hold for every trial."
    )
    command = add("report", "write a page about runs on disk, and compare them if there are several")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders with runs in or below them")
    command.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="where to write report.html, report.md and figures/, each picture with its numbers (default: report)",
    )
    command = add("reproduction", "write the ledger of published rows: command, corpus, the paper's number, ours")
    command.add_argument("--measured", type=Path, default=Path("docs/measured.yaml"), metavar="FILE", help="our scores")
    command.add_argument(
        "--out", type=Path, default=Path("docs/reproduction.md"), metavar="FILE", help="where to write it"
    )
    command = add("attention", "draw where in recordings the systems of checkpoints look")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recordings, drawn side by side")
    command.add_argument(
        "--checkpoint",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help="a run's checkpoints/best.ckpt (repeatable: one below another)",
    )
    command.add_argument("--out", type=Path, default=Path("attention.png"), metavar="FILE", help="where to write it")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help="trust classes of a module")
    command = add("embeddings", "draw the test embeddings of runs side by side, coloured by emotion")
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="folder of a fold, or of a seed: its first fold"
    )
    command.add_argument("--fold", type=int, metavar="N", help="draw this fold instead; each fold has its own space")
    command.add_argument("--titles", nargs="+", default=[], metavar="TITLE", help="what to call the runs, one for each")
    command.add_argument(
        "--out",
        type=Path,
        default=Path("embeddings"),
        metavar="FOLDER",
        help="where to write embeddings.png and embeddings.csv",
    )
    command = add("classify", "say which emotions are heard in recordings, by the system of a checkpoint")
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's checkpoints/best.ckpt")
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE|FOLDER", help="recordings, and folders with recordings below them"
    )
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--csv", dest="format", action="store_const", const="csv", help="write CSV instead of a table")
    kind.add_argument("--json", dest="format", action="store_const", const="json", help="write JSON instead of a table")
    command.add_argument("--out", type=Path, metavar="FILE", help="write there; .csv and .json say which of the two")
    command.add_argument("--window", type=float, metavar="SECONDS", help="tell emotions over time, in windows so long")
    command.add_argument("--hop", type=float, metavar="SECONDS", help="from one window to the next (default: a window)")
    command.add_argument("--plot", type=Path, metavar="FILE.png", help="draw emotions over time; needs --window")
    command.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help="trust classes of a module")
    command.epilog = (
        "Exit status 0: every file was classified. 1: some could not be, and say why on standard error; the others "
        "were. Recordings above 60 s are averaged over windows of 4 s unless --window says otherwise."
    )
    command = add("export", "write the system of a checkpoint as ONNX, from features to probabilities, and check it")
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's checkpoints/best.ckpt")
    command.add_argument("file", type=Path, metavar="FILE.onnx", help="where to write it")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help="trust classes of a module")
    command = add("download", "show a corpus's licence, then fetch it where that is allowed, or say how to come by it")
    command.add_argument("corpus", help="ravdess, crema_d, iemocap, voxceleb2, or another corpus that is installed")
    command.add_argument("folder", type=Path, help="where to put it")
    command.add_argument("--yes", action="store_true", help="agree to the licence without being asked")
    command = add("synth", "write a synthetic corpus in a corpus's true layout")
    command.add_argument("corpus", help="ravdess, crema_d, iemocap, audio_files, or another corpus that is installed")
    command.add_argument("folder", type=Path, help="where to write")
    command.add_argument("--speakers", type=int, default=6, help="number of speakers (default: 6)")
    command.add_argument("--clips-per-speaker", type=int, metavar="N", help="clips of each (default: as the release)")
    command.add_argument("--seed", type=int, default=0, help="seed of voices and clips (default: 0)")
    return parser


def _add_choice(command: argparse.ArgumentParser) -> None:
    command.add_argument("--folds", metavar="0,3-5", help="folds to run (default: all)")
    command.add_argument("--seeds", default="0", metavar="0,1", help="seeds to run (default: 0)")
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="folder of all runs")
    group = command.add_argument_group("many jobs at once (docs/scaling.md)")
    group.add_argument(
        "--jobs", type=int, metavar="N", help="jobs at once at most (default: 1; on a cluster as many as fit)"
    )
    group.add_argument("--address", metavar="HOST:PORT", help="run them on the Ray cluster there")
    group.add_argument(
        "--gpus-per-job", type=float, metavar="X", help="0.25: four jobs share a GPU; 2: a job trains on two (DDP)"
    )
    group.add_argument(
        "--cpus-per-job", type=int, metavar="N", help="threads of a job (default: OMP_NUM_THREADS, or 1)"
    )
    group.add_argument(
        "--retries", type=int, default=1, metavar="N", help="start a job that fails again so often (default: 1)"
    )
    group.add_argument(
        "--dry-run", dest="dry_run", action="store_const", const="text", help="print the jobs' commands and run none"
    )
    group.add_argument("--dry-run=json", dest="dry_run", action="store_const", const="json", help="the same as JSON")


def _choice(options: argparse.Namespace) -> "Choice":
    from ser_lightning.cross_validation.cross_validate import Choice
    from ser_lightning.cross_validation.resources import Resources

    # SLURM's tasks are a cluster's machines here; Lightning would take them for the processes of one training.
    os.environ.pop("SLURM_NTASKS", None)
    threads = options.cpus_per_job or int(os.environ.get("OMP_NUM_THREADS") or 1)
    resources = Resources(options.jobs, options.address, options.gpus_per_job, threads, options.retries)
    return Choice(options.folds, options.seeds, options.runs, tuple(options.allow), resources, options.dry_run)


def _own_options(arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Take ``--row`` and ``--allow`` out of LightningCLI's arguments."""
    parser = argparse.ArgumentParser(prog="ser", add_help=False, allow_abbrev=False)
    parser.add_argument("--row", default="default")
    parser.add_argument("--allow", action="append", default=[])
    options, rest = parser.parse_known_args(arguments)
    _quiet_libraries()
    return options.row, options.allow, rest


def _lightning(command: str, arguments: Sequence[str], row: str, allow: Sequence[str]) -> int:
    _quiet_libraries()
    from ser_lightning.experiment import ExperimentCLI

    ExperimentCLI([command, *arguments], row=row, allow=allow).finish()
    return 0


def _run_fold(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.worker import run_fold

    print(run_fold(overrides, options.row, options.allow, tested=not options.no_test, wait_seconds=options.wait))
    return 0


def _cv(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.cross_validate import cross_validate
    from ser_lightning.cross_validation.summary_run import agents_row

    choice = _choice(options)
    return cross_validate(overrides, agents_row(options.row), choice, _console(choice.dry_run))


def _table(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.tables import run_table, show_table

    keys, overrides = _table_keys(overrides)
    choice = _choice(options)
    if options.action == "run":
        return run_table(options.file, keys, overrides, options.rows, choice, _console(choice.dry_run))
    show_table(options.file, keys, overrides, choice, _console())
    return 0


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.sweep_file import read_sweep

    try:
        from ser_lightning.cross_validation.sweep import Setting, run_sweep
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"ser sweep needs {error.name}: pip install 'ser-lightning[sweeps]'") from error
    keys, overrides = _table_keys(overrides)
    sweep = read_sweep(options.file, keys)
    # A trial is `ser cv` with the file's arguments, then the caller's, then its parameters.
    allowed = [f"--allow={module}" for module in options.allow]
    rows = [] if options.row == "default" else [f"--row={options.row}"]
    of_cv, arguments = _parser().parse_known_args(["cv", *sweep.arguments, *rows, *allowed, *overrides])
    choice = _choice(of_cv)
    return run_sweep(
        Setting(sweep, tuple(arguments), of_cv.row, choice, _console(choice.dry_run)), options.trials, options.storage
    )


def _table_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell ``key=value`` of the table file from LightningCLI's arguments, and write these as ``--key=value``.

    argparse cannot: positional arguments that are optional are taken only directly behind those that are not.
    """
    keys: list[str] = []
    others: list[str] = []
    awaits_value = False
    for argument in arguments:
        if argument.startswith("--") or argument == "-c":
            others.append("--config" if argument == "-c" else argument)
            awaits_value = "=" not in argument and argument not in ("--once", "--dry-run")
        elif awaits_value:
            others[-1] += f"={argument}"
            awaits_value = False
        elif re.match(r"\w[\w.]*=", argument):
            keys.append(argument)
        else:
            raise ConfigurationError(
                f"'{argument}' is neither a key=value of the table file nor the value of a --key before it"
            )
    return keys, others


def _prepare(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.audit import prepare

    return prepare(overrides, options.allow, _console())


def _audit(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.audit import audit

    return audit(overrides, options.allow, _console())


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


def _classify(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.inference.classification import Classifier
    from ser_lightning.inference.command import Output, classify
    from ser_lightning.inference.recordings import Windowing
    from ser_lightning.inference.tables import Format

    if options.hop is not None and options.window is None:
        raise ConfigurationError("--hop is the distance between windows; say how long these are with --window")
    windowing = None
    if options.window is not None:
        windowing = Windowing(options.window, options.window if options.hop is None else options.hop)
    ending = options.out.suffix.lower().removeprefix(".") if options.out else ""
    by_ending: dict[str, Format] = {"csv": "csv", "json": "json"}
    kind: Format = options.format or by_ending.get(ending, "table")
    classifier = Classifier(options.checkpoint, options.device, options.allow)
    return classify(classifier, options.files, windowing, Output(kind, options.out, options.plot))


def _export(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.inference.export import export

    print(export(options.checkpoint, options.file, options.allow))
    return 0


def _download(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.data.download import obtain

    return obtain(_corpus(options.corpus), options.folder, options.yes, _console())


def _synth(options: argparse.Namespace, _: list[str]) -> int:
    written = _corpus(options.corpus).write_synthetic(
        options.folder, options.speakers, options.seed, options.clips_per_speaker, progress=True
    )
    print(f"{options.folder}: {written} clips written" if written else f"{options.folder}: already there")
    return 0


def _corpus(name: str) -> Any:
    """Return the module of a corpus, which is a plug-in."""
    from ser_lightning.data.corpora import find_corpus

    return find_corpus(name)


def _console(dry_run: str | None = None) -> "Console":
    from rich.console import Console

    if dry_run == "json":  # standard output is for it alone
        return Console(width=160, stderr=True)
    # Not a terminal: lines of a log, which nobody wants broken at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=160)


def _quiet_libraries() -> None:
    """Leave out hints that tell users of this suite nothing they can act on."""
    import logging
    import warnings

    os.environ.setdefault("WANDB_SILENT", "true")
    for message in (
        ".*does not have many workers.*",  # features come from memory; workers would only copy them
        ".*Checkpoint directory .* exists and is not empty.*",  # that is what resuming means
        ".*recommended to use `self.log.*sync_dist=True`.*",  # what is logged is the same in every process
        ".*custom batch sampler .* for prediction.*",  # ours returns every utterance once
        ".*treespec, LeafSpec.*deprecated.*",  # between lightning and torch
        ".*in eval mode at the start of training.*",  # encoders that are frozen on purpose
        ".*`srun` command is available.*",  # what is planned under SLURM is trained by processes of the runner
    ):
        warnings.filterwarnings("ignore", message=message)
    # Announcements of devices that are not there, and of products.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: (
            not record.getMessage().startswith(("GPU available: False", "TPU available", "\N{ELECTRIC LIGHT BULB} Tip"))
        )
    )
    logging.getLogger("lightning.fabric.utilities.seed").addFilter(
        lambda record: not record.getMessage().startswith("Seed set to")  # config.yaml says so
    )


_FUNCTIONS = {
    "run-fold": _run_fold,
    "cv": _cv,
    "table": _table,
    "sweep": _sweep,
    "prepare": _prepare,
    "audit": _audit,
    "report": _report,
    "reproduction": _reproduction,
    "attention": _attention,
    "embeddings": _embeddings,
    "classify": _classify,
    "export": _export,
    "download": _download,
    "synth": _synth,
}

if __name__ == "__main__":
    sys.exit(main())
