"""The systems of a report, found on disk, with the papers' results."""

import hashlib
import itertools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.paired_tests import SAME_SPLIT
from ser_lightning.runs.gathering import CrossValidation, LeftOut, diverged_folds, finished_folds, folds_in_all, gather
from ser_lightning.runs.summary import Summary, corpus_title, summarize

_LONGEST_KEY = 100  # bytes
_PER_FOLD_KEYS = ("seed_everything", "data.init_args.seed", "data.init_args.fold")


@dataclass(frozen=True)
class Configured:
    """A system's configuration.

    Attributes:
        names: Paper, experiment and corpus, as in run folders.
        settings: The values that affect the result, by key, without fold and seed.
    """

    names: tuple[str, str, str]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, names: tuple[str, str, str], relevant: Mapping[str, Any]) -> "Configured":
        """Build from a configuration's relevant values, dropping the keys of fold and seed."""
        return cls(names, {key: value for key, value in relevant.items() if key not in _PER_FOLD_KEYS})


@dataclass(frozen=True)
class PaperResult:
    """A paper's result for a system.

    Attributes:
        source: Table and row.
        corpus: The corpus of the numbers.
        scores: UA and WA in percent, as far as reported.
        note: Caveat for readers.
        differences: Keys and values in which our configuration differs from the row's file.
    """

    source: str
    corpus: str
    scores: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    differences: Sequence[str] = ()


@dataclass(frozen=True)
class ReportedSystem:
    """One system of a report.

    Attributes:
        name: Its name, unique in the report.
        runs: Its cross-validations by seed, at least one.
        summary: Their summary.
        published: The papers' results for it, if any.
    """

    name: str
    runs: Sequence[CrossValidation]
    summary: Summary
    published: Sequence[PaperResult] = ()

    @classmethod
    def of(
        cls, runs: Sequence[CrossValidation], published: Sequence[PaperResult] = (), name: str = ""
    ) -> "ReportedSystem":
        """Return the system whose seeds are ``runs``, by default named after experiment and row."""
        return cls(name or runs[0].facts.title, runs, summarize(runs), published)

    @property
    def key(self) -> str:
        """Its name in file names."""
        key = "_".join("".join(c if c.isalnum() or c in ".=-" else " " for c in self.name).split())
        if len(key.encode()) <= _LONGEST_KEY:
            return key
        # File names have at most 255 bytes. The digest keeps long names distinct.
        start = key.encode()[: _LONGEST_KEY - 9].decode(errors="ignore")
        return f"{start}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    @property
    def configured(self) -> Configured:
        """Configuration of its first fold; without settings if ``config.yaml`` is missing."""
        facts = self.runs[0].facts
        names = (facts.paper, facts.experiment, facts.corpus_name)
        return Configured.of(names, self.runs[0].folds[0].configuration())

    @property
    def split(self) -> tuple[Hashable, ...]:
        """Facts that systems in one picture must share."""
        return tuple(getattr(self.summary, name) for name in SAME_SPLIT)

    @property
    def pooled_over(self) -> str:
        """The folds that pooled scores include, in words."""
        finished = {tuple(fold.facts.fold for fold in run.folds) for run in self.runs}
        common = folds_in_all(self.runs)
        if not any(run.missing for run in self.runs):
            folds = "all folds"
        elif len(finished) == 1:
            folds = "the finished folds"
        elif common:
            folds = f"the folds finished in all seeds (fold {', '.join(map(str, common))})"
        else:
            folds = "the finished folds, which differ between seeds"
        return folds + (f" and added up over {len(self.runs)} seeds" if len(self.runs) > 1 else "")


def find_systems(folders: Sequence[Path]) -> tuple[list[ReportedSystem], list[LeftOut]]:
    """Return the systems in or below ``folders``, in order, and the folders left out.

    Folds that cannot be read, or must not be averaged with the rest, are left out.

    Args:
        folders: Folds, seeds or parent folders.

    Raises:
        ConfigurationError: If a folder does not exist, or no fold can be shown.
    """
    left_out: list[LeftOut] = []
    by_experiment: dict[Path, dict[Path, None]] = {}
    for folder in folders:
        left_out += [one for one in diverged_folds(folder) if one not in left_out]
        try:
            found = finished_folds(folder)
        except ConfigurationError as error:
            if not folder.is_dir():
                raise
            left_out.append(LeftOut(folder, str(error)))
            continue
        for fold in found:
            by_experiment.setdefault(fold.parents[1], {})[fold] = None
    systems = []
    for folds in by_experiment.values():
        runs, others = gather(list(folds), whole=True)
        left_out += others
        if runs:
            systems.append(ReportedSystem.of(runs))
    if not systems:
        raise ConfigurationError("\n".join([one.reason for one in left_out] or ["no folder of a run was given"]))
    return with_unique_names(systems), left_out


def picture_groups(
    systems: Sequence[ReportedSystem], key: Callable[[ReportedSystem], Hashable], most: int
) -> list[list[ReportedSystem]]:
    """Group systems with equal ``key`` for one picture each, evenly divided into at most ``most``."""
    groups: dict[Hashable, list[ReportedSystem]] = {}
    for system in systems:
        groups.setdefault(key(system), []).append(system)
    parts = []
    for group in groups.values():
        number = -(-len(group) // most)
        edges = [len(group) * part // number for part in range(number + 1)]
        parts += [group[start:end] for start, end in itertools.pairwise(edges)]
    return parts


def with_unique_names(systems: Sequence[ReportedSystem]) -> list[ReportedSystem]:
    """Return the systems with unique names: equal names get the corpus, paper or folder in which they differ."""
    for addition in (
        lambda system, alike: corpus_title(system.summary),
        lambda system, alike: system.summary.paper,
        _folder_among,
    ):
        by_name: dict[str, list[ReportedSystem]] = {}
        for system in systems:
            by_name.setdefault(system.name, []).append(system)
        systems = [_with_addition(system, by_name[system.name], addition) for system in systems]
    return list(systems)


def _with_addition(
    system: ReportedSystem,
    alike: Sequence[ReportedSystem],
    addition: Callable[[ReportedSystem, Sequence[ReportedSystem]], str],
) -> ReportedSystem:
    added = addition(system, alike)
    if not added or len({addition(other, alike) for other in alike}) == 1:
        return system
    return replace(system, name=f"{system.name} ({added})")


def _folder_among(system: ReportedSystem, alike: Sequence[ReportedSystem]) -> str:
    """Return the system's folder, relative to the common parent."""
    above = Path(os.path.commonpath([other.runs[0].folder.parent for other in alike]))
    return str(system.runs[0].folder.parent.relative_to(above))


@dataclass(frozen=True)
class AbsentRow:
    """A row of a published table that has no runs.

    Attributes:
        name: Name of the row.
        published: The paper's result.
        state: "not run", or "quoted" if the paper itself quotes the number.
        configured: Its configuration; None for a quoted number.
    """

    name: str
    published: PaperResult
    state: str
    configured: Configured | None = None
