"""The numbers of a cross-validation: for each fold, over folds, pooled, and over seeds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ser_lightning.files import write_atomically
from ser_lightning.metrics import scores
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import FILES
from ser_lightning.runs.gathering import CrossValidation, FoldRun, find_cross_validations
from ser_lightning.runs.predictions import Predictions, confusion
from ser_lightning.runs.scores import decision_scores, mean_soft_scores

METRICS = {"UA": "UA %", "WA": "WA %", "macro_F1": "macro F1 %"}  # name in files, and heading where it is shown

Scores = dict[str, float]


@dataclass(frozen=True)
class Statistics:
    """Scores over several folds or seeds, each between 0 and 1, for each of ``METRICS``.

    Attributes:
        mean: Every fold or seed counts the same.
        standard_deviation_ddof_0: The root of the mean squared distance from the mean (divided by their number, not by
            one less); None of a single one, which has no spread.
        minimum: The lowest.
        maximum: The highest.
    """

    mean: Scores
    standard_deviation_ddof_0: Scores | None
    minimum: Scores
    maximum: Scores

    @classmethod
    def over(cls, several: Sequence[Scores]) -> "Statistics":
        """Return the statistics of at least one set of scores."""
        table = torch.tensor([[entry[name] for name in METRICS] for entry in several], dtype=torch.float64)
        return cls(
            mean=_named(table.mean(dim=0)),
            standard_deviation_ddof_0=_named(table.std(dim=0, correction=0)) if len(several) > 1 else None,
            minimum=_named(table.amin(dim=0)),
            maximum=_named(table.amax(dim=0)),
        )


@dataclass(frozen=True)
class FoldSummary:
    """One fold.

    Attributes:
        fold: Its index.
        scores: Its scores.
        utterances: How many were tested.
        speakers: Who was tested.
        absent_classes: Classes that no tested utterance has; UA is the mean over the others.
        split_hash: Names its split.
        parameters: Trainable parameters.
        best_epoch: Epoch of the checkpoint tested, counted from 0.
        epochs: Epochs trained.
        seconds: Time it took.
    """

    fold: int
    scores: Scores
    utterances: int
    speakers: tuple[str, ...]
    absent_classes: tuple[str, ...]
    split_hash: str
    parameters: int
    best_epoch: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class SeedSummary:
    """The folds of one seed.

    Attributes:
        seed: Seed of the random numbers.
        folds: Each finished fold.
        folds_missing: Folds of the protocol that are not finished; no number here knows them.
        over_folds: Statistics over the finished folds.
        soft_scores: Mean over the finished folds of what their probabilities score; empty where one has none on record.
        pooled: Scores of one confusion matrix of all utterances.
        utterances: How many the pooled scores rest on.
        confusion: That matrix, reference classes in rows.
        seconds: Time of all finished folds together.
    """

    seed: int
    folds: tuple[FoldSummary, ...]
    folds_missing: tuple[int, ...]
    over_folds: Statistics
    soft_scores: Scores
    pooled: Scores
    utterances: int
    confusion: tuple[tuple[int, ...], ...]
    seconds: float


@dataclass(frozen=True)
class Summary:
    """Everything about one experiment that is a number or a word; ``summary.json`` holds exactly this.

    Attributes:
        experiment: Name of the experiment.
        paper: The paper it rebuilds.
        row: Row of a table, or "default".
        system: Name of the system.
        corpus: Name of the corpus.
        synthetic: Whether the audio was generated.
        protocol: How the corpus was split, in words.
        speakers_disjoint: Whether no speaker occurs in two sets of a fold.
        protocol_hash: Names the splits of all folds.
        num_folds: Folds that the protocol has.
        class_names: The classes, in the order of the confusion matrices.
        seeds: Each seed.
        over_seeds_of_the_mean_over_folds: Statistics of the seeds' means; None for one seed.
        over_seeds_of_pooled: Statistics of the seeds' pooled scores; None for one seed.
        seconds: Time of all finished folds of all seeds together.
        code_versions: Versions of the code that ran; more than one if it changed on the way.
        hardware: What they ran on.
        skipped_audio: Reason by file that could not be used.
        faulty_left_out: Utterances left out: faulty in the corpus's release, or without audio.
    """

    experiment: str
    paper: str
    row: str
    system: str
    corpus: str
    synthetic: bool
    protocol: str
    speakers_disjoint: bool
    protocol_hash: str
    num_folds: int
    class_names: tuple[str, ...]
    seeds: tuple[SeedSummary, ...]
    over_seeds_of_the_mean_over_folds: Statistics | None
    over_seeds_of_pooled: Statistics | None
    seconds: float
    code_versions: tuple[str, ...]
    hardware: tuple[str, ...]
    skipped_audio: dict[str, str]
    faulty_left_out: tuple[str, ...]

    @property
    def statistics(self) -> Statistics:
        """What is quoted: over folds, or of several seeds over the seeds' means over folds."""
        return self.over_seeds_of_the_mean_over_folds or self.seeds[0].over_folds

    def is_on(self, corpus: str) -> bool:
        """Return whether the scores are on recordings of ``corpus``, as a paper's are."""
        return self.corpus == corpus and not self.synthetic


def summarize(runs: Sequence[CrossValidation]) -> Summary:
    """Return the summary of one experiment's seeds, as ``find_cross_validations`` finds them."""
    seeds = tuple(_summarize_seed(run) for run in runs)
    facts = runs[0].facts
    every = [fold.facts for run in runs for fold in run.folds]
    several = len(seeds) > 1
    return Summary(
        experiment=facts.experiment,
        paper=facts.paper,
        row=facts.row,
        system=facts.system,
        corpus=facts.corpus,
        synthetic=facts.synthetic,
        protocol=facts.protocol,
        speakers_disjoint=facts.speakers_disjoint,
        protocol_hash=facts.protocol_hash,
        num_folds=facts.num_folds,
        class_names=facts.class_names,
        seeds=seeds,
        over_seeds_of_the_mean_over_folds=Statistics.over([s.over_folds.mean for s in seeds]) if several else None,
        over_seeds_of_pooled=Statistics.over([s.pooled for s in seeds]) if several else None,
        seconds=sum(seed.seconds for seed in seeds),
        code_versions=tuple(sorted({entry.code_version for entry in every})),
        hardware=tuple(sorted({entry.hardware for entry in every})),
        skipped_audio={path: reason for entry in every for path, reason in sorted(entry.skipped_audio.items())},
        faulty_left_out=tuple(sorted({name for entry in every for name in entry.faulty_left_out})),
    )


def write_summary(folder: Path) -> Path:
    """Summarise what is finished in or below ``folder`` into its ``summary.json``, atomically.

    Args:
        folder: A seed's folder, or one that holds several seeds of one experiment.

    Returns:
        The file written.

    Raises:
        ConfigurationError: If nothing is finished, or what is there must not be averaged.
    """
    path = folder / "summary.json"
    content = json.dumps(asdict(summarize(find_cross_validations([folder]))), indent=2, allow_nan=False)
    write_atomically(path, f"{content}\n".encode())
    return path


def pooled_confusion(run: CrossValidation) -> Tensor:
    """Return the confusion matrix [C, C] of all utterances that the finished folds of one seed tested."""
    return torch.stack([confusion(fold.predictions, fold.facts.class_names) for fold in run.folds]).sum(dim=0)


def corpus_title(facts: RunFacts | Summary) -> str:
    """Return the corpus's name, which says so when its speech is synthetic."""
    return f"{facts.corpus}, SYNTHETIC speech" if facts.synthetic else facts.corpus


def _named(values: Tensor) -> Scores:
    return dict(zip(METRICS, values.tolist(), strict=True))


def _score(counts: Tensor) -> Scores:
    return {name: value.item() for name, value in scores(counts).items()}


def _summarize_fold(run: FoldRun) -> FoldSummary:
    facts, table = run.facts, run.predictions.table
    present = set(table["target"])
    return FoldSummary(
        fold=facts.fold,
        scores=decision_scores(run.predictions),
        utterances=len(table),
        speakers=tuple(sorted(set(table["speaker"]))),
        absent_classes=tuple(name for name in facts.class_names if name not in present),
        split_hash=facts.split_hash,
        parameters=facts.parameters,
        best_epoch=facts.best_epoch,
        epochs=facts.epochs,
        seconds=facts.seconds,
    )


def _summarize_seed(run: CrossValidation) -> SeedSummary:
    folds = tuple(_summarize_fold(fold) for fold in run.folds)
    counts = pooled_confusion(run)
    return SeedSummary(
        seed=run.facts.seed,
        folds=folds,
        folds_missing=run.missing,
        over_folds=Statistics.over([fold.scores for fold in folds]),
        soft_scores=mean_soft_scores([fold.folder for fold in run.folds]),
        pooled=_score(counts),
        utterances=int(counts.sum()),
        confusion=tuple(map(tuple, counts.tolist())),
        seconds=sum(fold.seconds for fold in folds),
    )


# Score by key in the summary run of a cross-validation.
OBJECTIVES = {f"cv/validation_{name}_mean": name for name in METRICS}


def validation_scores(fold: Path) -> Scores:
    """Return what the best checkpoint of a fold scores on the fold's validation set.

    Args:
        fold: The fold's folder; it is validated, and need not be tested.

    Raises:
        ConfigurationError: If the fold has no predictions of its validation set.
    """
    return decision_scores(Predictions.read(fold / FILES["validation"]))


def over_folds(folds: Sequence[Path]) -> Statistics:
    """Return mean and spread of the validation sets' scores over folds, each of which counts the same.

    Args:
        folds: Folders of the folds, at least one.
    """
    return Statistics.over([validation_scores(fold) for fold in folds])
