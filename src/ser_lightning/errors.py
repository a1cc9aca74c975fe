"""The errors a user can mend: each names the file, key or value, and the way out."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar


class SerError(Exception):
    """Base of every error whose message is meant for the user.

    The command line prints the message without a traceback and exits with status 1. Messages say what was found,
    where, and what to do about it.
    """


class CorpusError(SerError):
    """A corpus folder is missing, empty, unreadable, of another corpus, or holds what its grammar does not know."""


class AudioError(SerError):
    """One audio file, or many, cannot be used.

    The message names the first ``MOST_SHOWN`` files, and ends with the way out, where a terminal shows it.

    Args:
        problems: Reason by file, one entry for each faulty file.
    """

    MOST_SHOWN: ClassVar[int] = 50

    def __init__(self, problems: Mapping[Path, str]) -> None:
        self.problems = dict(problems)
        count = len(self.problems)
        lines = [f"  {path}: {reason}" for path, reason in sorted(self.problems.items())[: self.MOST_SHOWN]]
        if count > self.MOST_SHOWN:
            lines.append(f"  and {count - self.MOST_SHOWN} more")
        super().__init__(
            f"{count} audio {'file is' if count == 1 else 'files are'} unusable:\n"
            + "\n".join(lines)
            + "\nMend them. --data.init_args.on_bad_audio skip leaves out what a set can do without (`ser audit`: what)"
        )

    def __reduce__(self) -> tuple[type["AudioError"], tuple[dict[Path, str]]]:
        """Keep ``problems`` when the error crosses a process border."""
        return type(self), (self.problems,)


class ProtocolError(SerError):
    """A split cannot be made: a fold out of range, too few speakers, or a speaker on both sides."""


class ConfigurationError(SerError):
    """A setting, a command-line value or a checkpoint does not fit."""
