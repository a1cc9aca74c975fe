"""Errors that a user can fix: each names the file, key or value, and what to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar


class SerError(Exception):
    """Base of every error whose message is meant for the user.

    The command line prints the message without a traceback and exits with status 1.
    """


class CorpusError(SerError):
    """A corpus folder is missing, empty, unreadable, of another corpus, or has unknown file names."""


class AudioError(SerError):
    """One or more audio files are unusable.

    The message names the first ``MOST_SHOWN`` files and ends with what to do.

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
            + "\nFix them, or skip them with --data.init_args.on_bad_audio skip (`ser audit` lists them)"
        )

    def __reduce__(self) -> tuple[type["AudioError"], tuple[dict[Path, str]]]:
        """Keep ``problems`` when the error crosses a process border."""
        return type(self), (self.problems,)


class ProtocolError(SerError):
    """A split cannot be made: a fold out of range, too few speakers, or a speaker on both sides."""


class ConfigurationError(SerError):
    """A setting, a command-line value or a checkpoint is invalid."""


class DivergenceError(SerError):
    """Training diverged: a loss, a weight or an output is not a finite number."""


class CorpusWarning(UserWarning):
    """A corpus folder is incomplete or has unsupported files; the rest is used."""
