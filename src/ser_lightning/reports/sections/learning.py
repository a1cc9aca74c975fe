"""How it learned and what it knows: training curves, reliability, embeddings, attention."""

from collections.abc import Sequence

import pandas as pd
import torch

from ser_lightning.reports.document import Block, Paragraph, Picture, Section, SideBySide
from ser_lightning.reports.figures import png, training_figure
from ser_lightning.reports.predictions import PROBABILITY
from ser_lightning.reports.reliability import expected_calibration_error, reliability_figure, reliability_table
from ser_lightning.reports.runs import FoldRun
from ser_lightning.reports.systems import ReportedSystem

EMBEDDINGS, ATTENTION = "embeddings.png", "attention.png"
PNG = b"\x89PNG"


def training(systems: Sequence[ReportedSystem]) -> Section:
    """Return the training curves of each system."""
    blocks: list[Block] = []
    pictures = []
    for system in systems:
        found = {(run.facts.seed, fold.facts.fold): fold.history() for run in system.runs for fold in run.folds}
        histories = {f"seed {seed}, fold {fold}": table for (seed, fold), table in found.items() if table is not None}
        without = [f"seed {seed}, fold {fold}" for (seed, fold), table in found.items() if table is None]
        if without:
            whose = f"{system.name}: no" if len(systems) > 1 else "No"
            blocks.append(Paragraph(f"{whose} metrics.csv in: {'; '.join(without)}."))
        if histories:
            title = f"Training: {system.name}" if len(systems) > 1 else "Training"
            numbers = [
                table.reset_index().assign(seed=seed, fold=fold)
                for (seed, fold), table in found.items()
                if table is not None
            ]
            pictures.append(
                Picture(
                    _named("training", system, systems),
                    png(training_figure(histories, title)),
                    f"Loss and UA by epoch for {len(histories)} folds.",
                    "A thin line for each fold; their mean is thick and ends where the first fold stops training.",
                    pd.concat(numbers),
                )
            )
    return Section("Training", [*blocks, *pictures])


def reliability(systems: Sequence[ReportedSystem]) -> Section:
    """Return how often each system is right when it says that it is sure to some degree."""
    pictures = []
    for system in systems:
        names = system.summary.class_names
        table = pd.concat([fold.predictions.table for run in system.runs for fold in run.folds])
        probabilities = torch.tensor(table[[f"{PROBABILITY}{name}" for name in names]].to_numpy(copy=True))
        labels = torch.tensor([names.index(name) for name in table["target"]])
        bins = reliability_table(probabilities, labels)
        error = 100 * expected_calibration_error(bins)
        pictures.append(
            Picture(
                _named("reliability", system, systems),
                png(reliability_figure(bins, system.name)),
                f"{system.name}: expected calibration error {error:.1f}% over {len(table)} utterances.",
                "Below the dotted line the system is surer than it is right; where utterances are few (lower picture), "
                "a dot is mostly chance. All folds together: their errors in opposite directions cancel here, not in "
                "the mean over folds.",
                bins,
            )
        )
    return Section("Reliability", [SideBySide(pictures)] if len(pictures) > 1 else pictures)


def left_pictures(systems: Sequence[ReportedSystem]) -> list[Section]:
    """Return the pictures of embeddings and attention that runs left, of each system the first fold's."""
    blocks: list[Block] = []
    for file, title in ((EMBEDDINGS, "Embeddings"), (ATTENTION, "Attention")):
        pictures = []
        for system in systems:
            folds = [fold for run in system.runs for fold in run.folds]
            left = next((fold for fold in folds if _is_picture(fold, file)), None)
            if left:
                where = f"{system.name}, seed {left.facts.seed}, fold {left.facts.fold}"
                pictures.append(
                    Picture(
                        _named(title.lower(), system, systems),
                        (left.folder / file).read_bytes(),
                        f"{title} of {where}.",
                        f"{title}: {where}, as the run left it.",
                        _numbers(left, file),
                    )
                )
        blocks += [SideBySide(pictures)] if len(pictures) > 1 else pictures
    return [Section("Embeddings and attention", blocks)] if blocks else []


def _is_picture(fold: FoldRun, file: str) -> bool:
    path = fold.folder / file
    return path.is_file() and path.read_bytes()[: len(PNG)] == PNG


def _numbers(fold: FoldRun, file: str) -> pd.DataFrame | None:
    """Return where the picture's points lie, for embeddings that are there."""
    if file != EMBEDDINGS or not (fold.folder / "embeddings.safetensors").is_file():
        return None
    # Only systems with embeddings wait for scikit-learn's part.
    from ser_lightning.reports.embedding_figure import embedding_map
    from ser_lightning.reports.embeddings import read_embeddings

    return embedding_map("", read_embeddings(fold.folder), fold.predictions).table


def _named(stem: str, system: ReportedSystem, systems: Sequence[ReportedSystem]) -> str:
    return f"{stem}_{system.key}" if len(systems) > 1 else stem
