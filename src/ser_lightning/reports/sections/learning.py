"""Training curves, reliability, clusters, embeddings and attention."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from ser_lightning.metrics import calibration
from ser_lightning.reports.cluster_figure import cluster_figure
from ser_lightning.reports.curves import reliability_figure, reliability_table
from ser_lightning.reports.document import Block, Paragraph, Picture, Section, SideBySide
from ser_lightning.reports.figures import MAX_SYSTEMS_PER_FIGURE, png, training_figure
from ser_lightning.reports.systems import ReportedSystem, picture_groups
from ser_lightning.runs.assignment import read_assignment
from ser_lightning.runs.facts import read_history
from ser_lightning.runs.folder import ATTENTION_PICTURE, EMBEDDINGS_FILE, EMBEDDINGS_PICTURE
from ser_lightning.runs.gathering import FoldRun
from ser_lightning.runs.predictions import tensors
from ser_lightning.runs.summary import corpus_title

PNG = b"\x89PNG"


def training(systems: Sequence[ReportedSystem]) -> Section:
    """Return the section of training curves."""
    blocks: list[Block] = []
    pictures = []
    for system in systems:
        found = {(fold.facts.seed, fold.facts.fold): read_history(fold.folder) for fold in _folds(system)}
        histories = {f"seed {seed}, fold {fold}": table for (seed, fold), table in found.items() if table is not None}
        without = [f"seed {seed}, fold {fold}" for (seed, fold), table in found.items() if table is None]
        if without:
            whose = f"{system.name}: no" if len(systems) > 1 else "No"
            blocks.append(Paragraph(f"{whose} readable metrics.csv in: {'; '.join(without)}."))
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
                    "Thin lines: folds; thick line: their mean, up to the epoch where the first fold stops.",
                    pd.concat(numbers),
                )
            )
    return Section("Training", [*blocks, *pictures])


def reliability(systems: Sequence[ReportedSystem]) -> Section:
    """Return the section of accuracy as a function of confidence."""
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
                "Confidence is the probability of the predicted class. Below the dotted line the system is "
                "overconfident; dots of few utterances (lower panel) are mostly noise. Folds are pooled: their errors "
                "in opposite directions cancel here, but not in the mean over folds.",
                reliability_table(found),
            )
        )
    return Section("Reliability", [SideBySide(pictures)] if len(pictures) > 1 else pictures)


def clusters(systems: Sequence[ReportedSystem]) -> list[Section]:
    """Return the section of mean cluster assignments by class, of each system's first fold that has them."""
    pictures = []
    for system in systems:
        found = next(_assignments(system), None)
        if found is None:
            continue
        fold, numbers = found
        which = f"{system.name}, seed {fold.facts.seed}, fold {fold.facts.fold}"
        title = f"{system.name}\nseed {fold.facts.seed}, fold {fold.facts.fold}: {corpus_title(system.summary)}"
        pictures.append(
            Picture(
                _named("clusters", system, systems),
                png(cluster_figure(numbers, title)),
                f"{which}: " + "; ".join(f"{name}: {_largest(row)}" for name, row in numbers.iterrows()),
                f"{which}: soft assignment to clusters, mean over each utterance's steps, then over the test "
                "utterances of a class. Another training's clusters are others, so folds are not averaged.",
                numbers.reset_index(),
            )
        )
    blocks: list[Block] = [SideBySide(pictures)] if len(pictures) > 1 else [*pictures]
    return [Section("Clusters", blocks)] if blocks else []


def _assignments(system: ReportedSystem) -> Iterator[tuple[FoldRun, pd.DataFrame]]:
    for fold in _folds(system):
        table = read_assignment(fold.folder, fold.facts.class_names)
        if table is not None:
            yield fold, table


def _largest(shares: "pd.Series[float]") -> str:
    """Return the cluster with the largest share in words, as a text alternative."""
    shares = shares.drop("utterances").dropna()
    if shares.empty:
        return "no utterance"
    return f"most in {str(shares.idxmax()).replace('_', ' ')}, {100 * shares.max():.0f}%"


def embeddings_and_attention(systems: Sequence[ReportedSystem]) -> list[Section]:
    """Return the section of embeddings and of the attention pictures in run folders, if there are any."""
    attention = [
        picture for system in systems if (picture := _run_picture(ATTENTION_PICTURE, "Attention", system, systems))
    ]
    blocks: list[Block] = []
    for pictures in (_embeddings(systems), attention):
        blocks += [SideBySide(pictures)] if len(pictures) > 1 else pictures
    return [Section("Embeddings and attention", blocks)] if blocks else []


def _embeddings(systems: Sequence[ReportedSystem]) -> list[Picture]:
    """Return one picture for the systems on the same split (Mocanu et al. 2021, figure 6), and one for each other.

    Pictures are redrawn if the run has its embeddings: t-SNE differs between machines, and a picture must match the
    numbers next to it.
    """
    parts = picture_groups([s for s in systems if _embedded(s)], lambda system: system.split, MAX_SYSTEMS_PER_FIGURE)
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
    others = [system for system in systems if not _embedded(system)]
    copied = (_run_picture(EMBEDDINGS_PICTURE, "Embeddings", system, systems) for system in others)
    return [*pictures, *(picture for picture in copied if picture)]


def _map_picture(name: str, folds: Mapping[str, FoldRun], systems: Sequence[ReportedSystem]) -> Picture:
    """Draw the test embeddings of one fold of each of ``systems``, all on the same split, side by side."""
    # scikit-learn is imported only if there are embeddings.
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
        f"t-SNE of the test embeddings of {which}: {', '.join(maps)}.",
        f"t-SNE of the test embeddings of {which} of {', '.join(maps)}, each system separately; colours are emotions, "
        "shapes are speakers.",
        pd.concat([drawn.table.assign(system=called) for called, drawn in maps.items()]),
    )


def _run_picture(file: str, title: str, system: ReportedSystem, systems: Sequence[ReportedSystem]) -> Picture | None:
    """Return a picture in a run's folder, of the first fold that has it."""
    first = next((fold for fold in _folds(system) if _is_picture(fold, file)), None)
    if first is None:
        return None
    where = f"{system.name}, seed {first.facts.seed}, fold {first.facts.fold}"
    return Picture(
        _named(title.lower(), system, systems),
        (first.folder / file).read_bytes(),
        f"{title} of {where}.",
        f"{title}: {where}, copied from the run.",
        None,
    )


def _folds(system: ReportedSystem) -> list[FoldRun]:
    return [fold for run in system.runs for fold in run.folds]


def _embedded(system: ReportedSystem) -> dict[int, FoldRun]:
    """Return the folds with embeddings by index; with several seeds, those of the first."""
    return {fold.facts.fold: fold for fold in reversed(_folds(system)) if (fold.folder / EMBEDDINGS_FILE).is_file()}


def _is_picture(fold: FoldRun, file: str) -> bool:
    path = fold.folder / file
    return path.is_file() and path.read_bytes()[: len(PNG)] == PNG


def _named(stem: str, system: ReportedSystem, systems: Sequence[ReportedSystem]) -> str:
    return f"{stem}_{system.key}" if len(systems) > 1 else stem
