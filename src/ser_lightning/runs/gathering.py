"""Finished folds on disk, gathered into cross-validations that may be averaged."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import yaml

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import relevant
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.predictions import Predictions

FOLD_FOLDER = re.compile(r"fold-\d+")

# What must agree before scores are averaged, the most telling first: over folds, and over seeds.
SAME_EXPERIMENT = (
    *("experiment", "corpus", "synthetic", "class_names", "protocol_hash"),
    *("paper", "row", "system", "protocol", "speakers_disjoint", "num_folds"),
)


@dataclass(frozen=True)
class FoldRun:
    """One finished fold.

    Attributes:
        folder: Where it lies.
        facts: What ``run.json`` says.
        predictions: What ``predictions.csv`` says.
    """

    folder: Path
    facts: RunFacts
    predictions: Predictions

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a fold's folder.

        Raises:
            ConfigurationError: If a file is missing or faulty, or the two files do not belong together.
        """
        predictions = Predictions.read(folder / "predictions.csv")
        facts = RunFacts.read(folder / "run.json")
        if predictions.class_names != facts.class_names:
            names = f"{list(predictions.class_names)} in predictions.csv, {list(facts.class_names)} in run.json"
            raise ConfigurationError(f"{folder}: classes {names}; delete the folder and run the fold again")
        folds = sorted(set(predictions.table["fold"]))
        if folds != [facts.fold] or not 0 <= facts.fold < facts.num_folds:
            message = f"folds {folds} in predictions.csv, fold {facts.fold} of {facts.num_folds} in run.json"
            raise ConfigurationError(f"{folder}: {message}; delete the folder and run the fold again")
        return cls(folder, facts, predictions)

    def configuration(self) -> dict[str, Any]:
        """Return what of ``config.yaml`` matters for the result, values by key; nothing where there is no file."""
        path = self.folder / "config.yaml"
        try:
            return relevant(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else {}
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
            raise ConfigurationError(f"{path} holds no configuration ({error}); put back the one it had") from error

    def history(self) -> pd.DataFrame | None:
        """Return what ``metrics.csv`` says, one row for each epoch by its index, or None where there is no such file.

        An epoch that was repeated after an interruption counts as its last repetition.

        Raises:
            ConfigurationError: If the file has no column ``epoch``.
        """
        path = self.folder / "metrics.csv"
        if not path.is_file() or not path.stat().st_size:
            return None
        table = pd.read_csv(path)
        if "epoch" not in table:
            raise ConfigurationError(f"{path}: no column 'epoch', only {', '.join(map(str, table.columns))}")
        return table.groupby("epoch").last()


@dataclass(frozen=True)
class CrossValidation:
    """The finished folds of one experiment under one seed.

    Attributes:
        folder: The seed's folder.
        folds: The finished folds by ascending index, at least one.
    """

    folder: Path
    folds: tuple[FoldRun, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read every finished fold in a seed's folder.

        Raises:
            ConfigurationError: If there is none, one is faulty, or they do not belong together.
        """
        found = [entry for entry in folder.glob("fold-*") if FOLD_FOLDER.fullmatch(entry.name)]
        return cls.gather(folder, found)

    @classmethod
    def gather(cls, folder: Path, fold_folders: Sequence[Path]) -> Self:
        """Read the finished ones among ``fold_folders``, folders of one seed's ``folder``.

        Raises:
            ConfigurationError: As ``read``.
        """
        finished = [entry for entry in sorted(fold_folders) if (entry / "predictions.csv").is_file()]
        if not finished:
            raise ConfigurationError(f"{folder} holds no finished fold (fold-*/predictions.csv); run one first")
        folds = sorted((FoldRun.read(entry) for entry in finished), key=lambda run: run.facts.fold)
        _refuse_difference(folds, (*SAME_EXPERIMENT, "seed"))
        _refuse_repetition(folds)
        return cls(folder, tuple(folds))

    @property
    def facts(self) -> RunFacts:
        """What the first finished fold says; what is about the experiment holds for all."""
        return self.folds[0].facts

    @property
    def missing(self) -> tuple[int, ...]:
        """Folds of the protocol that are not finished."""
        present = {run.facts.fold for run in self.folds}
        return tuple(fold for fold in range(self.facts.num_folds) if fold not in present)


def find_cross_validations(folders: Sequence[Path]) -> list[CrossValidation]:
    """Return the cross-validations in or below ``folders``, by ascending seed, all of one experiment.

    A folder may be a fold, a seed or anything above; what is found twice counts once.

    Raises:
        ConfigurationError: If a folder is missing or holds no finished fold, or if what was found must not be
            averaged: another experiment, corpus, protocol or list of classes, or the same seed twice.
    """
    by_seed_folder: dict[Path, list[Path]] = {}
    for entry in finished_folds(folders):
        by_seed_folder.setdefault(entry.parent, []).append(entry)
    gathered = [CrossValidation.gather(folder, sorted(found)) for folder, found in by_seed_folder.items()]
    gathered.sort(key=lambda run: (run.facts.seed, run.folder))
    _refuse_difference([run.folds[0] for run in gathered], SAME_EXPERIMENT)
    for first, second in itertools.pairwise(gathered):
        if first.facts.seed == second.facts.seed:
            message = f"{first.folder} and {second.folder} both have seed {first.facts.seed}: give one of them"
            raise ConfigurationError(message)
    return gathered


def finished_folds(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of the finished folds in or below ``folders``, each once, in the order of ``folders``.

    Raises:
        ConfigurationError: If none is given, a folder is missing, or it holds no finished fold.
    """
    found: dict[Path, None] = {}
    for folder in (folder.resolve() for folder in folders):
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is no folder; give the folder of a run")
        below = [folder] if FOLD_FOLDER.fullmatch(folder.name) else sorted(folder.rglob("fold-*"))
        finished = [e for e in below if FOLD_FOLDER.fullmatch(e.name) and (e / "predictions.csv").is_file()]
        if not finished:
            raise ConfigurationError(f"{folder} holds no finished fold (fold-*/predictions.csv); run one first")
        found |= dict.fromkeys(finished)
    if not found:
        raise ConfigurationError("no folder of a run was given; give at least one")
    return list(found)


def folds_in_all(runs: Sequence[CrossValidation]) -> list[int]:
    """Return the folds that each of ``runs`` has finished, ascending."""
    return sorted(set.intersection(*({fold.facts.fold for fold in run.folds} for run in runs)))


def _refuse_difference(runs: Sequence[FoldRun], keys: Sequence[str]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for key in keys:
            ours, theirs = getattr(first.facts, key), getattr(run.facts, key)
            if ours != theirs:
                raise ConfigurationError(
                    f"these runs must not be averaged, {key} differs: {ours!r} in {first.folder}, "
                    f"{theirs!r} in {run.folder}; report each by itself"
                )


def _refuse_repetition(folds: Sequence[FoldRun]) -> None:
    """Refuse folds of one seed that test an utterance twice: pooled scores would count it twice."""
    folder_by_fold: dict[int, Path] = {}
    folder_by_utterance: dict[str, Path] = {}
    for run in folds:
        other = folder_by_fold.setdefault(run.facts.fold, run.folder)
        if other != run.folder:
            raise ConfigurationError(f"{other} and {run.folder} both are fold {run.facts.fold}: remove one of them")
        for utterance in run.predictions.table["utterance"]:
            other = folder_by_utterance.setdefault(utterance, run.folder)
            if other != run.folder:
                message = f"utterance {utterance!r} is tested in {other} and again in {run.folder}"
                raise ConfigurationError(f"{message}: pooled scores would count it twice; remove the wrong fold")
