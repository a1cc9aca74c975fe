"""What papers leave open and was chosen here: a file of entries for each paper, and one for all."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, OmegaConf

from ser_lightning.files import load_file, yaml_errors

FILE = "choices.yaml"


@dataclass
class Choice:
    """Something that a paper does not state, states otherwise, or contradicts itself in.

    Attributes:
        key: A key of the experiments, or the Python name of the class, function, argument or constant that decides it.
        value: What it is there; compared by a test, unless ``choice`` says it.
        choice: What was chosen, in words, where no single value holds it.
        reason: Why.
        section: The paper's section that leaves it open.
        alternatives: What else was possible.
        systems: Experiments that it holds for; all of the paper's if empty.
        corpora: Their corpora that it holds for; all if empty.
    """

    key: str = MISSING
    value: Any = None
    choice: str = ""
    reason: str = MISSING
    section: str = ""
    alternatives: str = ""
    systems: list[str] = field(default_factory=list)
    corpora: list[str] = field(default_factory=list)

    @property
    def is_code(self) -> bool:
        """Whether it is decided in Python, not in an experiment."""
        return self.key.partition(".")[0] in ("ser_lightning", "data_modules")

    def holds_for(self, system: str, corpus: str) -> bool:
        """Whether it holds for an experiment on a corpus."""
        return (not self.systems or system in self.systems) and (not self.corpora or corpus in self.corpora)


@dataclass
class _File:
    choices: list[Choice] = MISSING


def read_choices(path: Path) -> list[Choice]:
    """Read a file of choices.

    Raises:
        ConfigurationError: Naming the file and the key, if a key is unknown, missing or of the wrong kind.
    """
    kind = "file of choices"
    with yaml_errors(path, kind):
        loaded = OmegaConf.merge(OmegaConf.structured(_File), load_file(path, kind))
        return cast(_File, OmegaConf.to_object(loaded)).choices
