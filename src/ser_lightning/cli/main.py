"""The ``ser`` command.

Only what a call needs is imported, inside its function: ``ser --help`` answers at once.
"""

import argparse
import errno
import gc
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ser_lightning.cli import corpora, inference, results, training
from ser_lightning.cli.command_line import (
    LIGHTNING_COMMANDS,
    CommandLine,
    list_lightning_commands,
    parse_suite_options,
    run_lightning,
)
from ser_lightning.errors import SerError

DESCRIPTION = "Speech emotion recognition: corpora in, cross-validated and comparable results out."
TRACEBACK = "SER_TRACEBACK"
"""Variable of the environment: if it is set, what the machine refuses is shown with the code that asked for it."""
EXAMPLES = """\
examples:
  ser synth ravdess .cache/synthetic/ravdess --speakers 8
  ser audit --config experiments/quickstart.yaml
  ser cv --config experiments/quickstart.yaml --folds 0,1
  ser report runs/quickstart --out report
  ser classify runs/quickstart/ravdess-synthetic/default/seed-0/fold-00/checkpoints/best.ckpt RECORDINGS
  ser cv --config experiments/huang2020/mean.yaml --config experiments/huang2020/ravdess.yaml \\
    --data.init_args.root /data/ravdess

With SER_TRACEBACK=1 in the environment, what the file system refuses is shown with the code that asked for it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 1 an error the user can mend, 130 interrupted.

    In a job of ours an error the user can mend ends with ``job_process.USER_ERROR``, by which the runner knows it.
    """
    foreign = any(argument.startswith("--allow") for argument in sys.argv)  # corpora that may need Lightning itself
    if arguments is None and sys.argv[1:2] in (["audit"], ["prepare"]) and not foreign:
        from ser_lightning.data.module import leave_out_lightning

        leave_out_lightning()  # this process trains nothing
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    failure_status = 1
    if "--end-with-parent" in arguments:
        from ser_lightning.jobs.process import USER_ERROR, end_with_parent

        failure_status = USER_ERROR  # 1 is also what a crash of Python ends with, which the runner tries again
        arguments.remove("--end-with-parent")
        end_with_parent()
    try:
        return _run(arguments)
    except SerError as error:
        print(f"error: {error}", file=sys.stderr)
        return failure_status
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        if error.filename is None or TRACEBACK in os.environ:
            raise
        print(f"error: {_system_error_message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130


def _system_error_message(error: OSError) -> str:
    """Return what the machine refuses, for which file, and the way out; what is no place's fault may be ours."""
    place = "choose another place, such as another --runs, --out or --data.init_args.feature_folder"
    ways = {
        errno.EACCES: f"change its permissions, or {place}",
        errno.EPERM: f"change its permissions, or {place}",
        errno.EROFS: place,
        errno.ENOSPC: f"free space there, or {place}",
        errno.EDQUOT: f"free space there, or {place}",
    }
    way = ways.get(error.errno or 0, f"{TRACEBACK}=1 in the environment shows which code asked for it")
    return f"{os.fsdecode(error.filename)}: {error.strerror}; {way}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``function`` and ``takes_overrides`` are among its options."""
    commands = CommandLine(DESCRIPTION, EXAMPLES)
    commands.parser.add_argument("--version", action=_Version, help="show the version, and the commit in a clone")
    list_lightning_commands(commands)
    for file in (training, corpora, results, inference):
        file.add_commands(commands)
    return commands.parser


class _Version(argparse.Action):
    """As argparse's own, but the version is only looked up when it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from ser_lightning.runs.folder import code_version

        print(f"ser-lightning {code_version()}")
        parser.exit()


def _run(arguments: list[str]) -> int:
    # Imports make a million objects that stay; the default thresholds examine them again and again.
    gc.set_threshold(10_000, 20, 20)
    all_commands = parser()
    if arguments and arguments[0] in LIGHTNING_COMMANDS:
        options, rest = parse_suite_options(arguments[1:])
        _check_config_files(rest)
        _prepare_process(options)
        return run_lightning(arguments[0], options, rest)
    options, rest = all_commands.parse_known_args(arguments)
    if rest and not options.takes_overrides:
        all_commands.error(f"unrecognized arguments: {' '.join(rest)}")
    _check_config_files(rest)
    _prepare_process(options)
    status: int = options.function(options, rest)
    return status


def _check_config_files(arguments: Sequence[str]) -> None:
    """Refuse a misspelt ``--config`` before anything heavy is imported."""
    from ser_lightning.training.experiment_file import config_files, read_experiment_file

    for path in config_files(arguments):
        read_experiment_file(path)


def _prepare_process(options: argparse.Namespace) -> None:
    _quiet_libraries()
    if getattr(options, "allow", None):
        sys.path.append(os.getcwd())  # last: a file here hides no library


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
