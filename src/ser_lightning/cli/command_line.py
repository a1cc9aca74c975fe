"""The parser of ``ser``, and options shared by several commands."""

import argparse
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_lightning.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

from collections.abc import Sequence

# Options and LightningCLI's arguments in, exit status out.
Function = Callable[[argparse.Namespace, list[str]], int]

CHECKPOINT = "a run's checkpoints/best.ckpt"
TRAINED = f"{CHECKPOINT}, or a folder of folds or seeds, whose probabilities are averaged"


def user_path(text: str) -> Path:
    """Return a path with its ``~``, which shells do not expand in ``--option=~/folder``."""
    return Path(text).expanduser()


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            (file or sys.stderr).write(message)  # argparse would ignore that help cannot be written


class CommandLine:
    """The parser of ``ser``, to which each file of this package adds its commands.

    Attributes:
        parser: The parser; its options include the command's ``function``, ``takes_overrides`` and ``parser``.
    """

    def __init__(self, description: str = "", epilog: str = "") -> None:
        self.parser = _Parser(
            prog="ser",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._commands = self.parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        self,
        name: str,
        function: Function,
        text: str,
        epilog: str = "",
        overrides: str = "",
        add_help: bool = True,
    ) -> argparse.ArgumentParser:
        """Add a command.

        Args:
            name: Its name.
            function: What it runs.
            text: What it does, in a few words.
            epilog: What its help ends with.
            overrides: What LightningCLI's ``--config`` files are for, if the command takes its arguments.
            add_help: Whether it has its own ``--help``, or passes that to ``function``.
        """
        command = self._commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=epilog or None,
            allow_abbrev=False,
            add_help=add_help,
        )
        command.set_defaults(function=function, takes_overrides=bool(overrides), parser=command)
        if overrides:
            group = command.add_argument_group("experiment (docs/configuration.md)")
            _show(group, "--config", "FILE", overrides)
            _show(group, "--KEY", "VALUE", "any key of these files, such as --trainer.max_epochs 10 (repeatable)")
        return command


def _show(group: argparse._ArgumentGroup, option: str, metavar: str, text: str) -> None:
    """Show an option of LightningCLI in a help, without parsing it."""
    action = argparse.Action([option], dest=argparse.SUPPRESS, metavar=metavar, help=text)
    group._actions.append(action)
    group._group_actions.append(action)


def add_allow(command: argparse.ArgumentParser) -> None:
    """Add ``--allow``, which trusts modules whose classes a YAML file or a checkpoint may use."""
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="trust classes of this module, installed or in the current folder (repeatable)",
    )


def add_row(command: argparse.ArgumentParser) -> None:
    """Add ``--row``, which names a variant of an experiment."""
    command.add_argument(
        "--row", metavar="NAME", help="name of this variant, part of its folder (default: as configured)"
    )


def row_argument(row: str | None) -> list[str]:
    """Return the value of ``--row`` as an argument of LightningCLI; empty if it was not given."""
    return [] if row is None else [f"--run.row={row}"]


def add_out(command: argparse.ArgumentParser, default: str, metavar: str, text: str) -> None:
    """Add ``--out``, the file or folder to write."""
    command.add_argument(
        "--out", type=user_path, default=Path(default), metavar=metavar, help=f"{text} (default: {default})"
    )


def console(dry_run: str | None = None) -> "Console":
    """Return the console for messages."""
    from rich.console import Console

    if dry_run == "json":  # standard output holds the JSON only
        return Console(width=160, stderr=True)
    # Not a terminal: a log, whose lines must not wrap at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=160)


def reject_abbreviations(parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
    """Reject abbreviations and misspellings of ``parser``'s options among LightningCLI's arguments, such as ``--fold``.

    Raises:
        ConfigurationError: Naming the argument and the full option.
    """
    for key in (argument.partition("=")[0] for argument in rest if argument.startswith("--")):
        options = list(parser._option_string_actions)
        full = [option for option in options if option.startswith(key)] or get_close_matches(key, options, 1, 0.8)
        if full and key not in ("--", "--run"):  # --run is LightningCLI's
            raise ConfigurationError(f"{key} is not an option; give its full name, {' or '.join(full)}")
