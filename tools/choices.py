"""Choices of details that papers leave open: a file per paper, and one for all papers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import MISSING, OmegaConf

from ser_lightning.plain_files import load_file, schema_errors

FILE = "choices.yaml"


@dataclass
class Choice:
    """A detail that a paper omits, contradicts, or that differs here.

    Attributes:
        key: A key of the experiments; or the Python name of an argument or a constant; or that of the class or
            function that decides.
        value: Value of the key, the argument's default or the constant.
        choice: The choice in words, if a class or function decides.
        reason: Reason of the choice.
        alternatives: Other possible choices: values of the key, or other keys with their values.
        section: Section of the paper.
        systems: Experiments that it applies to; all of the paper's if empty.
        corpora: Corpora that it applies to; all if empty.
    """

    key: str = MISSING
    value: Any = None
    choice: str = ""
    reason: str = MISSING
    alternatives: str = MISSING
    section: str = ""
    systems: list[str] = field(default_factory=list)
    corpora: list[str] = field(default_factory=list)

    @property
    def made_in(self) -> Literal["key", "Python", "code"]:
        """What decides: a key of the experiments, a constant or default in Python, or a class or function."""
        if self.key.partition(".")[0] not in ("ser_lightning", "data_modules"):
            return "key"
        return "code" if self.choice else "Python"

    def holds_for(self, system: str, corpus: str) -> bool:
        """Whether it applies to an experiment on a corpus."""
        return (not self.systems or system in self.systems) and (not self.corpora or corpus in self.corpora)


@dataclass
class _File:
    choices: list[Choice] = MISSING


def read_choices(path: Path) -> list[Choice]:
    """Read a file of choices.

    Raises:
        ConfigurationError: Naming file and key, if a key is unknown, missing or of the wrong type.
    """
    kind = "file of choices"
    with schema_errors(path):
        loaded = OmegaConf.merge(OmegaConf.structured(_File), load_file(path, kind))
        return cast(_File, OmegaConf.to_object(loaded)).choices
