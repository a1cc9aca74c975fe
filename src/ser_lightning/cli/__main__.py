"""The ``ser`` command, also ``python -m ser_lightning.cli``.

Heavy imports are inside functions, so that ``ser --help`` is fast.
"""

import argparse
import errno
import gc
import os
import pwd
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from ser_lightning.cli import corpora, results, training
from ser_lightning.cli.command_line import CommandLine, reject_abbreviations
from ser_lightning.errors import SerError
from ser_lightning.jobs.fork_server import OPTION, serve
from ser_lightning.jobs.process import USER_ERROR, Termination, end_with_parent, sigterm_raises

DESCRIPTION = "Speech emotion recognition: cross-validated, comparable results of published systems."
TRACEBACK = "SER_TRACEBACK"
"""Environment variable: if set, unexpected errors are shown with a traceback."""
_WITHOUT_LIGHTNING = (["audit"], ["prepare"], ["synth"], ["download"])
MOST_CHARACTERS = 500  # of an unexpected error's message
EXAMPLES = """\
examples:
  ser synth ravdess .cache/synthetic/ravdess --speakers 8
  ser audit --config experiments/quickstart.yaml
  ser cv --config experiments/quickstart.yaml --folds 0,1
  ser report runs/quickstart --out report
  ser classify runs/quickstart/ravdess-synthetic/default/seed-0/fold-00/checkpoints/best.ckpt RECORDINGS
  ser cv --config experiments/huang2020/mean.yaml --config experiments/huang2020/ravdess.yaml \\
    --data.init_args.root /data/ravdess

With SER_TRACEBACK=1 in the environment, unexpected errors are shown with a traceback.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0: done; 1: an error that the user can fix, in a job of the runner ``jobs.process.USER_ERROR``; 130: interrupted by
    Ctrl-C; 141: the reader of standard output has exited; 143: terminated by SIGTERM.
    """
    _name_user()
    if arguments is None and sys.argv[1:2] == [OPTION]:
        serve(training.import_what_jobs_need, main)
    try:
        with sigterm_raises():
            return _main(arguments)
    except Termination:
        print("terminated; what was finished is kept", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130


def _main(arguments: Sequence[str] | None) -> int:
    has_plug_ins = any(argument.startswith("--allow") for argument in sys.argv)  # their corpora may need Lightning
    if arguments is None and sys.argv[1:2] in _WITHOUT_LIGHTNING and not has_plug_ins:
        from ser_lightning.data.module import leave_out_lightning

        leave_out_lightning()  # importing Lightning takes seconds, and this process does not train
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    failure_status = 1
    if "--end-with-parent" in arguments:
        failure_status = USER_ERROR  # not 1, the status of a Python crash, which the runner retries
        arguments.remove("--end-with-parent")
        end_with_parent()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # at exit, an error of the last write would come too late
    except SerError as error:
        print(f"error: {error}", file=sys.stderr)
        return failure_status
    except BrokenPipeError:  # the reader, such as head, has exited
        _discard_output()
        return 141
    except Exception as error:
        if TRACEBACK in os.environ:
            raise
        if failure_status == USER_ERROR:  # a job's log keeps everything
            traceback.print_exception(error)
        print(f"error: {_unexpected_error_message(error)}", file=sys.stderr)
        return 1


def _name_user() -> None:
    """Name a user without an entry in the password file, such as of ``docker run --user``, before torch asks."""
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"user-{os.getuid()}"
            os.environ.setdefault("HOME", tempfile.gettempdir())


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _unexpected_error_message(error: Exception) -> str:
    """Return what failed, and the way out."""
    if isinstance(error, OSError):
        if error.filename is not None:
            return _system_error_message(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _discard_output()  # or the rest would be written at exit
            return f"standard output or a file cannot be written: {error.strerror}; free space there"
    fault = " ".join(str(error).split())
    shown = fault if len(fault) <= MOST_CHARACTERS else f"{fault[:MOST_CHARACTERS]}..."
    name = f"{type(error).__name__}: {shown}" if shown else type(error).__name__
    return f"{name}; set {TRACEBACK}=1 in the environment to see the traceback"


def _system_error_message(error: OSError) -> str:
    """Return the file, the system's message and the way out."""
    elsewhere = "choose another folder with --runs, --out or --data.init_args.feature_folder"
    ways_out = {
        errno.EACCES: f"change its permissions, or {elsewhere}",
        errno.EPERM: f"change its permissions, or {elsewhere}",
        errno.EROFS: elsewhere,
        errno.ENOSPC: f"free space there, or {elsewhere}",
        errno.EDQUOT: f"free space there, or {elsewhere}",
    }
    way_out = ways_out.get(error.errno or 0, f"set {TRACEBACK}=1 in the environment to see the traceback")
    return f"{os.fsdecode(error.filename)}: {error.strerror}; {way_out}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; its options include ``function`` and ``takes_overrides``."""
    commands = CommandLine(DESCRIPTION, EXAMPLES)
    commands.parser.add_argument("--version", action=_Version, help="show the version, and in a clone the commit")
    for file in (training, corpora, results):
        file.add_commands(commands)
    return commands.parser


class _Version(argparse.Action):
    """Print the version, which is only looked up when it is requested."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from ser_lightning.runs.folder import code_version

        print(f"ser-lightning {code_version()}")
        parser.exit()


def _run(arguments: list[str]) -> int:
    # Imports create a million permanent objects, which the default thresholds would scan again and again.
    gc.set_threshold(10_000, 20, 20)
    all_commands = parser()
    if not arguments:
        all_commands.print_help(sys.stdout)
        return 0
    options, rest = all_commands.parse_known_args(arguments)
    if rest and not options.takes_overrides:
        all_commands.error(f"unrecognized arguments: {' '.join(rest)}")
    reject_abbreviations(options.parser, rest)
    _check_config_files(rest)
    prepare_process(options)
    status: int = options.function(options, rest)
    return status


def _check_config_files(arguments: Sequence[str]) -> None:
    """Reject a misspelt ``--config`` before heavy imports."""
    from ser_lightning.training.arguments import config_files, read_experiment_file

    for path in config_files(arguments):
        read_experiment_file(path)


def prepare_process(options: argparse.Namespace) -> None:
    """Silence libraries, and let the modules that ``--allow`` names be found in the current folder."""
    quiet_libraries()
    if getattr(options, "allow", None):
        sys.path.append(os.getcwd())  # last, so that a file here does not hide a library


def quiet_libraries() -> None:
    """Silence hints that users of this suite cannot act on."""
    import logging
    import warnings

    os.environ.setdefault("WANDB_SILENT", "true")
    for message in (
        ".*does not have many workers.*",  # features are in memory; workers would only copy them
        ".*Checkpoint directory .* exists and is not empty.*",  # expected when resuming
        ".*recommended to use `self.log.*sync_dist=True.*",  # logged values are equal in all processes
        ".*custom batch sampler .* for prediction.*",  # ours returns every utterance once
        ".*treespec, LeafSpec.*deprecated.*",  # between lightning and torch
        ".*in eval mode at the start of training.*",  # frozen encoders
        ".*`srun` command is available.*",  # under SLURM, the runner starts the training processes
    ):
        warnings.filterwarnings("ignore", message=message)
    # Announcements of missing devices, of products, and of what this command says itself when it is interrupted.
    unwanted = ("GPU available: False", "TPU available", "\N{ELECTRIC LIGHT BULB} Tip", "\nDetected KeyboardInterrupt")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not record.getMessage().startswith(unwanted)
    )
    logging.getLogger("lightning.fabric.utilities.seed").addFilter(
        lambda record: "Seed set to" not in record.getMessage()  # config.yaml holds it
    )


if __name__ == "__main__":
    sys.exit(main())
