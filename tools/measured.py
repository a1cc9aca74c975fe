"""The file of measured scores, with run, commit, hardware and split of each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from omegaconf import MISSING, OmegaConf

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import load_file, schema_errors
from ser_lightning.runs.names import DEFAULT_ROW


@dataclass
class Measured:
    """The scores of one run, named like its folder.

    Attributes:
        paper: Paper of the run.
        experiment: Experiment of the run.
        corpus: Corpus of the run.
        row: Row of the run.
        scores: UA and WA in percent, mean over folds and seeds.
        deviation: Standard deviation over folds (ddof 0), if there are several.
        folds: Number of folds, such as ``10 of 10``.
        seeds: Seeds of the run.
        protocol: Name of the protocol.
        protocol_hash: Hash of the splits.
        commit: Commit of the code.
        hardware: Hardware of the run.
        note: Differences from the experiment's file, and their effect.
    """

    paper: str = MISSING
    experiment: str = MISSING
    corpus: str = MISSING
    row: str = DEFAULT_ROW
    scores: dict[str, float] = MISSING
    deviation: dict[str, float] = field(default_factory=dict)
    folds: str = MISSING
    seeds: list[int] = MISSING
    protocol: str = MISSING
    protocol_hash: str = MISSING
    commit: str = MISSING
    hardware: str = MISSING
    note: str = ""

    def in_words(self) -> str:
        """Return a text such as "ravdess: UA 56.1 ± 6.9 (10 of 10 folds)"."""
        shown = (
            f"{name} {value:.1f}" + (f" ± {self.deviation[name]:.1f}" if name in self.deviation else "")
            for name, value in self.scores.items()
        )
        return f"{self.corpus}: {', '.join(shown)} ({self.folds} folds)"


@dataclass
class _File:
    runs: list[Measured] = MISSING


def read_measured(path: Path) -> list[Measured]:
    """Read a file of measured scores.

    Raises:
        ConfigurationError: Naming file and key, if a key is unknown, missing or of the wrong type, or a run occurs
            twice.
    """
    kind = "file of measured scores"
    with schema_errors(path):
        loaded = OmegaConf.merge(OmegaConf.structured(_File), load_file(path, kind))
        runs = cast(_File, OmegaConf.to_object(loaded)).runs
    known: set[tuple[str, str, str, str]] = set()
    for run in runs:
        key = (run.paper, run.experiment, run.corpus, run.row)
        if key in known:
            raise ConfigurationError(f"{path}: runs: {'/'.join(key)} occurs twice; remove one")
        known.add(key)
    return runs
