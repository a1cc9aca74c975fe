"""How it learned and what it knows: training curves, reliability, embeddings, attention."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ser_lightning.metrics import calibration
from ser_lightning.reports.curves import reliability_figure, reliability_table
from ser_lightning.reports.document import Block, Paragraph, Picture, Section, SideBySide
from ser_lightning.reports.figures import MOST_TOGETHER, png, training_figure
from ser_lightning.reports.systems import ReportedSystem, drawn_together
from ser_lightning.runs.folder import ATTENTION_PICTURE, EMBEDDINGS_FILE, EMBEDDINGS_PICTURE
from ser_lightning.runs.gathering import FoldRun
from ser_lightning.runs.predictions import tensors
from ser_lightning.runs.summary import corpus_title

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
    """Return embeddings, of systems on the same split in one picture, and the attention pictures that lie in runs."""
    attention = [picture for system in systems if (picture := _left(ATTENTION_PICTURE, "Attention", system, systems))]
    blocks: list[Block] = []
    for pictures in (_embeddings(systems), attention):
        blocks += [SideBySide(pictures)] if len(pictures) > 1 else pictures
    return [Section("Embeddings and attention", blocks)] if blocks else []


def _embeddings(systems: Sequence[ReportedSystem]) -> list[Picture]:
    """Return a picture for systems on the same split (Mocanu et al. 2021, figure 6), and for each of the others.

    They are drawn anew wherever the embeddings themselves are there: t-SNE differs from machine to machine, and the
    numbers beside a picture shall be its own.
    """
    parts = drawn_together([s for s in systems if _embedded(s)], lambda system: system.split, MOST_TOGETHER)
    pictures = []
    for part in parts:
        common = set.intersection(*(set(_embedded(system)) for system in part))
        if len(part) > 1 and common:
            name = "embeddings" if len(parts) == 1 else f"embeddings_{part[0].key}"
            pictures.append(_map_picture(name, {s.name: _embedded(s)[min(common)] for s in part}, part))
        else:
            for system in part:
                first = _embedded(system)[min(_embedded(system))]
                pictures.append(_map_picture(_named("embeddings", system, systems), {system.name: first}, [system]))
    left = (_left(EMBEDDINGS_PICTURE, "Embeddings", system, systems) for system in systems if not _embedded(system))
    return [*pictures, *(picture for picture in left if picture)]


def _map_picture(name: str, folds: Mapping[str, FoldRun], systems: Sequence[ReportedSystem]) -> Picture:
    """Return the test embeddings of a fold of each of ``systems``, all on the same split, side by side."""
    # Only systems with embeddings wait for scikit-learn's part.
    from ser_lightning.reports.embedding_figure import embedding_figure, embedding_map
    from ser_lightning.runs.scores import read_embeddings

    maps = {
        called: embedding_map(
            called if len(folds) == 1 else f"{called}\nseed {fold.facts.seed}",
            read_embeddings(fold.folder),
            fold.predictions,
        )
        for called, fold in folds.items()
    }
    first = next(iter(folds.values())).facts
    which = f"fold {first.fold}" if len(folds) > 1 else f"seed {first.seed}, fold {first.fold}"
    corpus = corpus_title(systems[0].summary)
    return Picture(
        name,
        png(embedding_figure(list(maps.values()), f"Test embeddings, {which}: {corpus}")),
        f"Test embeddings of {which} on a plane: {', '.join(maps)}.",
        f"Test embeddings of {which} of {', '.join(maps)} by t-SNE, each system by itself; colours are emotions, "
        "shapes speakers.",
        pd.concat([drawn.table.assign(system=called) for called, drawn in maps.items()]),
    )


def _left(file: str, title: str, system: ReportedSystem, systems: Sequence[ReportedSystem]) -> Picture | None:
    """Return a picture that a run left, of the first fold that has it."""
    left = next((fold for fold in _folds(system) if _is_picture(fold, file)), None)
    if left is None:
        return None
    where = f"{system.name}, seed {left.facts.seed}, fold {left.facts.fold}"
    return Picture(
        _named(title.lower(), system, systems),
        (left.folder / file).read_bytes(),
        f"{title} of {where}.",
        f"{title}: {where}, as the run left it.",
        None,
    )


def _folds(system: ReportedSystem) -> list[FoldRun]:
    return [fold for run in system.runs for fold in run.folds]


def _embedded(system: ReportedSystem) -> dict[int, FoldRun]:
    """Return the folds with embeddings by number, of several seeds the first one's."""
    return {fold.facts.fold: fold for fold in reversed(_folds(system)) if (fold.folder / EMBEDDINGS_FILE).is_file()}


def _is_picture(fold: FoldRun, file: str) -> bool:
    path = fold.folder / file
    return path.is_file() and path.read_bytes()[: len(PNG)] == PNG


def _named(stem: str, system: ReportedSystem, systems: Sequence[ReportedSystem]) -> str:
    return f"{stem}_{system.key}" if len(systems) > 1 else stem
