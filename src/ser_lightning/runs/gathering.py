"""Find finished folds on disk and group them into cross-validations that may be averaged."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.assignment import read_assignment
from ser_lightning.runs.configuration import relevant
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import (
    CONFIG_FILE,
    EMBEDDINGS_FILE,
    FACTS_FILE,
    FILES,
    divergence,
    fold_folders,
    read_config,
)
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.scores import read_embeddings, read_scores

# Facts that must agree before scores are averaged over folds or seeds, the most informative first.
SAME_EXPERIMENT = (
    *("experiment", "corpus", "synthetic", "class_names", "protocol_hash"),
    *("paper", "row", "system", "protocol", "speakers_disjoint", "num_folds"),
)


@dataclass(frozen=True)
class FoldRun:
    """One finished fold.

    Attributes:
        folder: The fold's folder.
        facts: Content of ``run.json``.
        predictions: Content of ``predictions.csv``.
    """

    folder: Path
    facts: RunFacts
    predictions: Predictions

    @classmethod
    def read(cls, folder: Path, whole: bool = False) -> Self:
        """Read a fold's folder.

        Args:
            folder: The fold's folder.
            whole: Whether to read the other files that a report shows too, to find a damaged one up front.

        Raises:
            ConfigurationError: If a file is missing or malformed, the two files disagree, or training diverged.
        """
        predictions = Predictions.read(folder / FILES["test"])
        facts = RunFacts.read(folder / FACTS_FILE)
        if facts.diverged:
            raise ConfigurationError(facts.diverged)
        if predictions.class_names != facts.class_names:
            names = f"{list(predictions.class_names)} in predictions.csv, {list(facts.class_names)} in run.json"
            raise ConfigurationError(f"{folder}: classes {names}; delete the folder and run the fold again")
        folds = sorted(set(predictions.table["fold"]))
        if folds != [facts.fold] or not 0 <= facts.fold < facts.num_folds:
            message = f"folds {folds} in predictions.csv, fold {facts.fold} of {facts.num_folds} in run.json"
            raise ConfigurationError(f"{folder}: {message}; delete the folder and run the fold again")
        fold = cls(folder, facts, predictions)
        if whole:
            read_scores(folder)
            fold.configuration()
            if (folder / EMBEDDINGS_FILE).is_file():
                read_embeddings(folder)
            read_assignment(folder, facts.class_names)
        return fold

    def configuration(self) -> dict[str, Any]:
        """Return the values of ``config.yaml`` that affect the result, by key; empty without the file."""
        return relevant(read_config(self.folder)) if (self.folder / CONFIG_FILE).exists() else {}


@dataclass(frozen=True)
class CrossValidation:
    """The finished folds of one experiment under one seed.

    Attributes:
        folder: The seed's folder.
        folds: The finished folds by index, at least one.
    """

    folder: Path
    folds: tuple[FoldRun, ...]

    @property
    def facts(self) -> RunFacts:
        """Facts of the first finished fold; those about the experiment hold for all folds."""
        return self.folds[0].facts

    @property
    def missing(self) -> tuple[int, ...]:
        """Folds of the protocol that are not finished."""
        present = {run.facts.fold for run in self.folds}
        return tuple(fold for fold in range(self.facts.num_folds) if fold not in present)


@dataclass(frozen=True)
class LeftOut:
    """A folder that is excluded.

    Attributes:
        folder: A fold's folder, or a parent.
        reason: Why; names the file or key, and the way out.
    """

    folder: Path
    reason: str


def finished_folds(folder: Path) -> list[Path]:
    """Return the folders of the finished folds in or below ``folder``, sorted.

    Raises:
        ConfigurationError: If the folder is missing or has no finished fold.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder; give the folder of a run")
    finished = tested_folds(folder)
    if not finished:
        raise ConfigurationError(f"{folder} holds no finished fold (fold-*/{FILES['test']}); run one first")
    return finished


def tested_folds(folder: Path) -> list[Path]:
    """Return the ``fold_folders`` that contain test predictions."""
    return [entry for entry in fold_folders(folder.resolve()) if (entry / FILES["test"]).is_file()]


def diverged_folds(folder: Path) -> list[LeftOut]:
    """Return the folds in or below ``folder`` whose training diverged, and which were therefore not tested."""
    folds = [fold for fold in fold_folders(folder.resolve()) if not (fold / FILES["test"]).is_file()]
    return [LeftOut(fold, reason) for fold in folds if (reason := divergence(fold))]


def gather(folders: Sequence[Path], whole: bool = False) -> tuple[list[CrossValidation], list[LeftOut]]:
    """Return the cross-validations that may be averaged, by seed, and the folders left out.

    A fold that cannot be read is left out. Where folds disagree in a fact of ``SAME_EXPERIMENT``, the largest group
    stays.

    Args:
        folders: Folders of finished folds of one experiment, of one or several seeds.
        whole: Whether a fold must be readable in full, as ``FoldRun.read`` says.
    """
    left_out: list[LeftOut] = []
    folds: list[FoldRun] = []
    for folder in sorted(folders):
        try:
            folds.append(FoldRun.read(folder, whole))
        except ConfigurationError as error:
            left_out.append(LeftOut(folder, str(error)))
        except OSError as error:
            left_out.append(LeftOut(folder, f"{error.filename}: {error.strerror}"))
    by_seed_folder: dict[Path, list[FoldRun]] = {}
    for run in _alike(folds, SAME_EXPERIMENT, left_out):
        by_seed_folder.setdefault(run.folder.parent, []).append(run)
    by_seed: dict[int, CrossValidation] = {}
    for folder, group in by_seed_folder.items():
        kept = _tested_once(_alike(group, ("seed",), left_out), left_out)
        found = CrossValidation(folder, tuple(kept))
        other = by_seed.setdefault(found.facts.seed, found)
        if other is not found:
            message = f"{other.folder} and {folder} both have seed {found.facts.seed}: give one of them"
            left_out.append(LeftOut(folder, message))
    return [by_seed[seed] for seed in sorted(by_seed)], left_out


def folds_in_all(runs: Sequence[CrossValidation]) -> list[int]:
    """Return the folds that all of ``runs`` have finished, sorted."""
    return sorted(set.intersection(*({fold.facts.fold for fold in run.folds} for run in runs)))


def _alike(folds: Sequence[FoldRun], keys: Sequence[str], left_out: list[LeftOut]) -> list[FoldRun]:
    """Return the largest (of equal ones the first) group of folds that agree in ``keys``; leave the others out."""

    def values(run: FoldRun) -> tuple[object, ...]:
        return tuple(getattr(run.facts, key) for key in keys)

    if not folds:
        return []
    most, _ = Counter(map(values, folds)).most_common(1)[0]
    first = next(run for run in folds if values(run) == most)
    for run in folds:
        differing = [pair for pair in zip(keys, most, values(run), strict=True) if pair[1] != pair[2]]
        if differing:
            key, ours, theirs = differing[0]
            message = f"{key} differs: {ours!r} in {first.folder}, {theirs!r} in {run.folder}; report each by itself"
            left_out.append(LeftOut(run.folder, f"these runs must not be averaged, {message}"))
    return [run for run in folds if values(run) == most]


def _tested_once(folds: Sequence[FoldRun], left_out: list[LeftOut]) -> list[FoldRun]:
    """Return the folds of one seed by index; leave out a fold that repeats an index or a test utterance."""
    by_fold: dict[int, FoldRun] = {}
    folder_of: dict[str, Path] = {}  # by utterance
    for run in folds:
        fold, utterances = run.facts.fold, run.predictions.table["utterance"]
        again = next((name for name in utterances if name in folder_of), None)
        if fold in by_fold:
            message = f"{by_fold[fold].folder} and {run.folder} are both fold {fold}: remove one of them"
        elif again is not None:
            message = (
                f"utterance {again!r} is tested in {folder_of[again]} and in {run.folder}: pooled scores would count "
                "it twice; remove the wrong fold"
            )
        else:
            by_fold[fold] = run
            folder_of |= dict.fromkeys(utterances, run.folder)
            continue
        left_out.append(LeftOut(run.folder, message))
    return [by_fold[fold] for fold in sorted(by_fold)]
