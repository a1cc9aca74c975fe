"""What a report is about: one system, or several beside each other, and what their papers report of them."""

import hashlib
import itertools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.paired_tests import SAME_SPLIT
from ser_lightning.runs.folder import EMBEDDINGS_FILE
from ser_lightning.runs.gathering import CrossValidation, FoldRun, LeftOut, finished_folds, folds_in_all, gather
from ser_lightning.runs.scores import read_embeddings, read_scores
from ser_lightning.runs.summary import Summary, corpus_title, summarize

_LONGEST_KEY = 100  # bytes
_OF_EACH_FOLD = ("seed_everything", "data.init_args.seed", "data.init_args.fold")


@dataclass(frozen=True)
class Configured:
    """What a system was trained as.

    Attributes:
        names: Paper, experiment and corpus, as run folders call them.
        settings: What of the configuration matters for the result, by key, without fold and seed.
    """

    names: tuple[str, str, str]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, names: tuple[str, str, str], relevant: Mapping[str, Any]) -> "Configured":
        """Leave out of a configuration's relevant values what each fold and seed has of its own."""
        return cls(names, {key: value for key, value in relevant.items() if key not in _OF_EACH_FOLD})


@dataclass(frozen=True)
class Published:
    """What a paper reports of a system.

    Attributes:
        source: Table and row.
        corpus: The corpus that the numbers are on.
        scores: UA and WA in percent, what there is of them.
        note: What a reader of the numbers must know.
        differences: Where ours was configured otherwise than the row's file says, a key and both values each.
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
        name: What the report calls it; no other of the report has the name.
        runs: Its cross-validations by ascending seed, at least one.
        summary: Their summary.
        published: What papers report of it, most often one table's row, or nothing.
    """

    name: str
    runs: Sequence[CrossValidation]
    summary: Summary
    published: Sequence[Published] = ()

    @classmethod
    def of(
        cls, runs: Sequence[CrossValidation], published: Sequence[Published] = (), name: str = ""
    ) -> "ReportedSystem":
        """Return the system whose seeds are ``runs``; it is called after its experiment and row by default."""
        return cls(name or runs[0].facts.title, runs, summarize(runs), published)

    @property
    def key(self) -> str:
        """What it is called in the names of files."""
        key = "_".join("".join(c if c.isalnum() or c in ".=-" else " " for c in self.name).split())
        if len(key.encode()) <= _LONGEST_KEY:
            return key
        # File systems take 255 bytes, and names of folders may be in it. The digest keeps long names apart.
        start = key.encode()[: _LONGEST_KEY - 9].decode(errors="ignore")
        return f"{start}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    @property
    def configured(self) -> Configured:
        """What its first fold was trained as; without settings if there is no ``config.yaml``."""
        facts = self.runs[0].facts
        names = (facts.paper, facts.experiment, facts.corpus + "-synthetic" * facts.synthetic)
        return Configured.of(names, self.runs[0].folds[0].configuration())

    @property
    def split(self) -> tuple[Hashable, ...]:
        """What it shares with systems that may stand in one picture with it."""
        return tuple(getattr(self.summary, name) for name in SAME_SPLIT)

    @property
    def pooled_over(self) -> str:
        """Which folds pooled scores are over, in words."""
        finished = {tuple(fold.facts.fold for fold in run.folds) for run in self.runs}
        common = folds_in_all(self.runs)
        if not any(run.missing for run in self.runs):
            folds = "all folds"
        elif len(finished) == 1:
            folds = "the finished folds"
        elif common:
            folds = f"what all seeds have finished (fold {', '.join(map(str, common))})"
        else:
            folds = "the finished folds, which are others in each seed"
        return folds + (f" and added up over {len(self.runs)} seeds" if len(self.runs) > 1 else "")


# Of the seeds of one experiment, what papers report of it.
Publications = Callable[[Sequence[CrossValidation]], Sequence[Published]]


def find_systems(
    folders: Sequence[Path], publications: Publications | None = None
) -> tuple[list[ReportedSystem], list[LeftOut]]:
    """Return the systems in or below ``folders``, in the order of ``folders``, and by path below each.

    What cannot be read, or must not be averaged with the rest, is left out and returned with the reason.

    Args:
        folders: Folds, seeds or folders above.
        publications: What papers report.

    Raises:
        ConfigurationError: If a folder does not exist, or nothing is left to show.
    """
    left_out = []
    by_experiment: dict[Path, dict[Path, None]] = {}
    for folder in folders:
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
        runs, others = gather(list(folds), _read_whole)
        left_out += others
        if runs:
            systems.append(ReportedSystem.of(runs, publications(runs) if publications else ()))
    if not systems:
        raise ConfigurationError("\n".join([one.reason for one in left_out] or ["no folder of a run was given"]))
    return told_apart(systems), left_out


def _read_whole(folder: Path) -> FoldRun:
    """Read a fold with all that a report may show of it: what is damaged must not end the report halfway."""
    fold = FoldRun.read(folder)
    read_scores(folder)
    fold.configuration()
    fold.history()
    if (folder / EMBEDDINGS_FILE).is_file():
        read_embeddings(folder)
    return fold


def drawn_together(
    systems: Sequence[ReportedSystem], alike: Callable[[ReportedSystem], Hashable], most: int
) -> list[list[ReportedSystem]]:
    """Return groups of systems for one picture each: those that are alike, at most ``most``, evenly divided."""
    groups: dict[Hashable, list[ReportedSystem]] = {}
    for system in systems:
        groups.setdefault(alike(system), []).append(system)
    parts = []
    for group in groups.values():
        number = -(-len(group) // most)
        edges = [len(group) * part // number for part in range(number + 1)]
        parts += [group[start:end] for start, end in itertools.pairwise(edges)]
    return parts


def told_apart(systems: Sequence[ReportedSystem]) -> list[ReportedSystem]:
    """Return the systems with names that differ: to equal ones, what differs of corpus, paper or folder is added."""
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
        return system  # it tells nothing apart
    return replace(system, name=f"{system.name} ({added})")


def _folder_among(system: ReportedSystem, alike: Sequence[ReportedSystem]) -> str:
    """Return the system's folder, below the one that holds all."""
    above = Path(os.path.commonpath([other.runs[0].folder.parent for other in alike]))
    return str(system.runs[0].folder.parent.relative_to(above))


@dataclass(frozen=True)
class AbsentRow:
    """A row of a published table that has no runs.

    Attributes:
        name: What the row is called.
        published: What the paper reports of it.
        state: Why: "not run", or "quoted" of a number that the paper itself quotes.
        configured: What it would be trained as; None for a quoted number.
    """

    name: str
    published: Published
    state: str
    configured: Configured | None = None
