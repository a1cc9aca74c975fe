"""How it learned and what it knows: training curves, reliability, embeddings, attention."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ser_lightning.metrics import calibration
from ser_lightning.reports.document import Block, Paragraph, Picture, Section, SideBySide
from ser_lightning.reports.figures import png, training_figure
from ser_lightning.reports.predictions import tensors
from ser_lightning.reports.reliability import reliability_figure, reliability_table
from ser_lightning.reports.runs import FoldRun
from ser_lightning.reports.systems import ReportedSystem

if TYPE_CHECKING:
    from ser_lightning.reports.embedding_figure import EmbeddingMap

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
        table = pd.concat([fold.predictions.table for fold in _folds(system)])
        found = calibration(*tensors(table, system.summary.class_names))
        error = 100 * found.error.item()
        pictures.append(
            Picture(
                _named("reliability", system, systems),
                png(reliability_figure(found, system.name)),
                f"{system.name}: expected calibration error {error:.1f}% over {len(table)} utterances.",
                "Confidence is the probability of the class decided on. Below the dotted line the system is surer than "
                "it is right; where utterances are few (lower picture), a dot is mostly chance. All folds together: "
                "their errors in opposite directions cancel here, not in the mean over folds.",
                reliability_table(found),
            )
        )
    return Section("Reliability", [SideBySide(pictures)] if len(pictures) > 1 else pictures)


def left_pictures(systems: Sequence[ReportedSystem]) -> list[Section]:
    """Return embeddings, of several systems side by side, and pictures that runs left, of each the first fold's."""
    together = _embeddings_together(systems)
    blocks: list[Block] = [together] if together else []
    for file, title in ((EMBEDDINGS, "Embeddings"), (ATTENTION, "Attention")):
        if file == EMBEDDINGS and together:
            continue
        pictures = []
        for system in systems:
            left = next((fold for fold in _folds(system) if _is_picture(fold, file)), None)
            if left:
                where = f"{system.name}, seed {left.facts.seed}, fold {left.facts.fold}"
                pictures.append(
                    Picture(
                        _named(title.lower(), system, systems),
                        (left.folder / file).read_bytes(),
                        f"{title} of {where}.",
                        f"{title}: {where}, as the run left it.",
                        _map(left).table if file == EMBEDDINGS and _has_embeddings(left) else None,
                    )
                )
        blocks += [SideBySide(pictures)] if len(pictures) > 1 else pictures
    return [Section("Embeddings and attention", blocks)] if blocks else []


def _embeddings_together(systems: Sequence[ReportedSystem]) -> Picture | None:
    """Return the test embeddings of a fold that several systems have, side by side (Mocanu et al. 2021, figure 6)."""
    found = {s.name: {f.facts.fold: f for f in reversed(_folds(s)) if _has_embeddings(f)} for s in systems}
    found = {name: folds for name, folds in found.items() if folds}
    common = set.intersection(*(set(folds) for folds in found.values())) if len(found) > 1 else set()
    if not common:
        return None
    from ser_lightning.reports.embedding_figure import embedding_figure

    fold = min(common)
    maps = {name: _map(folds[fold], name) for name, folds in found.items()}
    return Picture(
        "embeddings",
        png(embedding_figure(list(maps.values()), f"Test embeddings, fold {fold}")),
        f"Test embeddings of fold {fold} on a plane: {', '.join(maps)}.",
        f"Test embeddings of fold {fold} by t-SNE, each system by itself; colours are emotions, shapes speakers.",
        pd.concat([drawn.table.assign(system=name) for name, drawn in maps.items()]),
    )


def _folds(system: ReportedSystem) -> list[FoldRun]:
    return [fold for run in system.runs for fold in run.folds]


def _has_embeddings(fold: FoldRun) -> bool:
    return (fold.folder / "embeddings.safetensors").is_file()


def _map(fold: FoldRun, title: str = "") -> "EmbeddingMap":
    # Only systems with embeddings wait for scikit-learn's part.
    from ser_lightning.reports.embedding_figure import embedding_map
    from ser_lightning.reports.embeddings import read_embeddings

    return embedding_map(title, read_embeddings(fold.folder), fold.predictions)


def _is_picture(fold: FoldRun, file: str) -> bool:
    path = fold.folder / file
    return path.is_file() and path.read_bytes()[: len(PNG)] == PNG


def _named(stem: str, system: ReportedSystem, systems: Sequence[ReportedSystem]) -> str:
    return f"{stem}_{system.key}" if len(systems) > 1 else stem
