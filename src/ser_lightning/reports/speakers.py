"""What each speaker's utterances were taken for: the units that uncertainty is measured over.

Utterances of a speaker are not independent, so that intervals and tests resample or flip speakers, never utterances.
"""
# Shapes: R seeds, S speakers, C classes.

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ser_lightning.metrics import unweighted_accuracy, weighted_accuracy
from ser_lightning.reports.runs import CrossValidation, folds_in_all

SCORES = {"UA": unweighted_accuracy, "WA": weighted_accuracy}


@dataclass(frozen=True)
class SpeakerCounts:
    """Confusion matrices of speakers.

    Attributes:
        speakers: Who was tested, sorted.
        counts: A confusion matrix for each seed and speaker [R, S, C, C], over all folds that test the speaker.
    """

    speakers: tuple[str, ...]
    counts: Tensor

    @classmethod
    def of(cls, runs: Sequence[CrossValidation], folds: Collection[int] | None = None) -> "SpeakerCounts":
        """Count what the seeds of one experiment recognised.

        Args:
            runs: The seeds.
            folds: Folds to count; if None, those that all seeds have finished, or else the seeds' means would be
                over other speakers each. Where seeds have none in common, each counts what it has.
        """
        counted = folds_in_all(runs) if folds is None else folds
        tables = [
            pd.concat([run.predictions.table for run in seed.folds if not counted or run.facts.fold in counted])
            for seed in runs
        ]
        speakers = tuple(sorted({speaker for table in tables for speaker in table["speaker"]}))
        class_names = runs[0].facts.class_names
        counts = torch.zeros(len(runs), len(speakers), len(class_names), len(class_names), dtype=torch.long)
        for seed, table in zip(counts, tables, strict=True):
            places = (
                torch.from_numpy(pd.Categorical(column, categories=list(names)).codes.astype("int64"))
                for column, names in (
                    (table["speaker"], speakers),
                    (table["target"], class_names),
                    (table["predicted"], class_names),
                )
            )
            seed.index_put_(tuple(places), torch.ones(len(table), dtype=torch.long), accumulate=True)
        return cls(speakers, counts)

    def scores(self) -> pd.DataFrame:
        """Return ``UA`` and ``WA`` of each speaker, the mean over seeds, and ``utterances``, by speaker.

        UA is the mean over the classes that the speaker's utterances have.
        """
        columns = {name: score(self.counts).nanmean(dim=0).numpy() for name, score in SCORES.items()}
        utterances = self.counts.sum(dim=(-2, -1)).amax(dim=0).numpy()
        return pd.DataFrame(columns | {"utterances": utterances}, index=pd.Index(self.speakers, name="speaker"))
