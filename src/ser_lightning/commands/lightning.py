"""Commands that are LightningCLI and nothing else: ``fit``, ``validate``, ``test``, ``predict``."""

import argparse
from collections.abc import Sequence

from ser_lightning.commands.command_line import CommandLine, add_allow, add_row

LIGHTNING_COMMANDS = {
    "fit": "train on one fold (LightningCLI)",
    "validate": "score a checkpoint on the fold's validation set (LightningCLI)",
    "test": "score a checkpoint on the fold's test set (LightningCLI)",
    "predict": "predict the whole corpus with a checkpoint (LightningCLI)",
}


def mention_commands(commands: CommandLine) -> None:
    """List the commands of this file, whose arguments LightningCLI reads."""
    for name, text in LIGHTNING_COMMANDS.items():
        commands.mention(name, text)


def own_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take ``--row`` and ``--allow``, which are ours, out of LightningCLI's arguments."""
    parser = argparse.ArgumentParser(prog="ser", add_help=False, allow_abbrev=False)
    add_row(parser)
    add_allow(parser)
    return parser.parse_known_args(arguments)


def run_lightning(command: str, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run ``command`` by LightningCLI, with what ``own_options`` returned."""
    from ser_lightning.experiment import ExperimentCLI

    ExperimentCLI([command, *arguments], row=options.row, allow=options.allow).finish()
    return 0
