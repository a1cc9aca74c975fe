"""Scores of a cross-validation: per fold, over folds, pooled, and over seeds."""

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
from ser_lightning.runs.gathering import CrossValidation, FoldRun
from ser_lightning.runs.predictions import Predictions, confusion, decision_scores
from ser_lightning.runs.scores import mean_soft_scores

SUMMARY_FILE = "summary.json"
METRICS = {"UA": "UA %", "WA": "WA %", "macro_F1": "macro F1 %"}  # heading by name in files

Scores = dict[str, float]


@dataclass(frozen=True)
class Statistics:
    """Statistics of ``METRICS`` over folds or seeds, between 0 and 1.

    Attributes:
        mean: Unweighted mean.
        standard_deviation_ddof_0: Population standard deviation (ddof 0); None for a single fold or seed.
        minimum: The lowest score.
        maximum: The highest score.
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
        fold: Index of the fold.
        scores: Its scores.
        utterances: Number of test utterances.
        speakers: Test speakers.
        absent_classes: Classes without a test utterance; UA is the mean over the others.
        same_audio_across_sets: Pairs of utterances with the same audio in two of its sets.
        untrained_classes: Classes that it tests and never trains on.
        split_hash: Hash of its split.
        parameters: Number of trainable parameters.
        best_epoch: Epoch of the tested checkpoint, from 0.
        epochs: Epochs trained.
        seconds: Duration.
    """

    fold: int
    scores: Scores
    utterances: int
    speakers: tuple[str, ...]
    absent_classes: tuple[str, ...]
    same_audio_across_sets: int
    untrained_classes: tuple[str, ...]
    split_hash: str
    parameters: int
    best_epoch: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class SeedSummary:
    """The folds of one seed.

    Attributes:
        seed: Random seed.
        folds: The finished folds.
        folds_missing: Unfinished folds of the protocol; no number here includes them.
        over_folds: Statistics over the finished folds.
        soft_scores: Mean of the soft scores over the finished folds; empty if a fold has none.
        pooled: Scores of the pooled confusion matrix.
        utterances: Number of utterances pooled.
        confusion: The pooled confusion matrix, reference classes in rows.
        seconds: Total duration of the finished folds.
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
    """Content of ``summary.json``: one experiment.

    Attributes:
        experiment: Name of the experiment.
        paper: The paper it reproduces.
        row: Row of a table, or "default".
        system: Name of the system.
        corpus: Name of the corpus.
        synthetic: Whether the audio was generated.
        protocol: How the corpus was split, in words.
        speakers_disjoint: Whether no speaker occurs in two sets of a fold.
        protocol_hash: Hash of the splits of all folds.
        num_folds: Number of folds of the protocol.
        class_names: The classes, in the order of the confusion matrices.
        seeds: The seeds.
        over_seeds_of_the_mean_over_folds: Statistics of the seeds' means; None for one seed.
        over_seeds_of_pooled: Statistics of the seeds' pooled scores; None for one seed.
        seconds: Total duration of the finished folds of all seeds.
        code_versions: Versions of the code that ran.
        hardware: Devices and processors, each with the precision.
        skipped_audio: Reason by unusable file.
        faulty_left_out: Utterances left out: faulty in the corpus's release, or without audio.
        one_speaker_classes: Classes that only one speaker of the corpus has.
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
    one_speaker_classes: tuple[str, ...]

    @property
    def statistics(self) -> Statistics:
        """The statistics to quote: over folds, or with several seeds over the seeds' means."""
        return self.over_seeds_of_the_mean_over_folds or self.seeds[0].over_folds

    def is_on(self, corpus: str) -> bool:
        """Return whether the scores are on real recordings of ``corpus``."""
        return self.corpus == corpus and not self.synthetic


def summarize(runs: Sequence[CrossValidation]) -> Summary:
    """Summarize the seeds of one experiment, as ``gather`` returns them."""
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
        hardware=tuple(sorted({f"{entry.hardware}, {entry.precision}" for entry in every})),
        skipped_audio={path: reason for entry in every for path, reason in sorted(entry.skipped_audio.items())},
        faulty_left_out=tuple(sorted({name for entry in every for name in entry.faulty_left_out})),
        one_speaker_classes=tuple(sorted({name for entry in every for name in entry.one_speaker_classes})),
    )


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write ``summary.json`` into a seed's folder, atomically; return its path."""
    path = folder / SUMMARY_FILE
    content = json.dumps(asdict(summary), indent=2, allow_nan=False)
    write_atomically(path, f"{content}\n".encode())
    return path


def pooled_confusion(run: CrossValidation) -> Tensor:
    """Return the confusion matrix [C, C] pooled over the finished folds of one seed."""
    return torch.stack([confusion(fold.predictions, fold.facts.class_names) for fold in run.folds]).sum(dim=0)


def corpus_title(facts: RunFacts | Summary) -> str:
    """Return the corpus's name, marked if its speech is synthetic."""
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
        same_audio_across_sets=facts.same_audio_across_sets,
        untrained_classes=facts.untrained_classes,
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


# Metric by its key in the W&B summary run of a cross-validation.
OBJECTIVES = {f"cv/validation_{name}_mean": name for name in METRICS}


def validation_scores(fold: Path) -> Scores:
    """Return the best checkpoint's scores on the fold's validation set.

    Raises:
        ConfigurationError: If the folder has no predictions of the validation set.
    """
    return decision_scores(Predictions.read(fold / FILES["validation"]))


def over_folds(folds: Sequence[Path]) -> Statistics:
    """Return statistics of the validation scores over at least one fold's folder."""
    return Statistics.over([validation_scores(fold) for fold in folds])
