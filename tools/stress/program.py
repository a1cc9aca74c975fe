"""What the programs share: an attempt and its outcome."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.stress.commands import Commands
from tools.stress.material import Material


@dataclass(frozen=True)
class Attempt:
    """The outcome of one attempt.

    Attributes:
        kind: What was disturbed, and what it was held against: a row of the table.
        details: What was done.
        failure: What went wrong; empty if all held.
        count: How much was disturbed at once.
    """

    kind: str
    details: str
    failure: str = ""
    count: int = 1


@dataclass(frozen=True)
class Bench:
    """Where attempts are made.

    Attributes:
        material: What undisturbed commands made.
        commands: Starts commands.
        folder: Each attempt makes its working folder here.
        seed: Seed of all attempts.
    """

    material: Material
    commands: Commands
    folder: Path
    seed: int


class Program(Protocol):
    """A series of attempts, each determined by the bench's seed and its number."""

    share: float

    def numbers(self, bench: Bench) -> Iterable[int]:
        """Return the numbers of the attempts, in order."""

    def attempt(self, bench: Bench, number: int) -> Attempt:
        """Make an attempt."""
