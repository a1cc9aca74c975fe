"""Draw t-SNE maps of test embeddings side by side (Mocanu et al. 2021, figures 6 and 7)."""
# Shapes: N utterances, E channels of an embedding.

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import csv_file, write_atomically
from ser_lightning.reports.figures import GREY, plain, save
from ser_lightning.runs.folder import EMBEDDINGS_PICTURE, fold_folders
from ser_lightning.runs.gathering import FoldRun, finished_folds
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.scores import read_embeddings
from ser_lightning.runs.summary import corpus_title

PERPLEXITY = 30.0  # scikit-learn's default
# Okabe and Ito's palette, distinct to colour-blind readers.
COLOURS = ("#000000", "#56b4e9", "#e69f00", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#f0e442")
EDGE = 0.6  # brightness of a mark's edge: the palette's yellow is hardly visible on white
MARKS = "os^DvPX<>ph*"
TITLE_WIDTH = 40  # characters per line
LEGEND_ROWS = 18  # rows that fit next to a panel


@dataclass(frozen=True)
class EmbeddingMap:
    """The test embeddings of one fold in two dimensions.

    Attributes:
        title: Title, such as the system and the fold.
        class_names: The emotions, in the order of their colours.
        table: ``utterance``, ``speaker`` and ``emotion`` as text, ``x`` and ``y`` as float64; one row per utterance.
    """

    title: str
    class_names: tuple[str, ...]
    table: pd.DataFrame


def embedding_map(title: str, embeddings: Tensor, predictions: Predictions) -> EmbeddingMap:
    """Map L2-normalised ``embeddings`` [N, E] to two dimensions by t-SNE.

    Deterministic: initialised by PCA, with a fixed seed. The perplexity is 30, at most (N - 1) / 3.

    Args:
        title: Title.
        embeddings: In the order of ``predictions``.
        predictions: The test set.
    """
    points = F.normalize(embeddings.double(), dim=1)
    count = len(points)
    places = torch.zeros(count, 2, dtype=torch.float64)
    if points.std(0, correction=0).max() > 1e-9:  # t-SNE divides by the spread, which is 0 for a collapsed network
        perplexity = max(1.0, min(PERPLEXITY, (count - 1) / 3))
        layout = TSNE(perplexity=perplexity, init="pca", random_state=0)
        places = torch.from_numpy(layout.fit_transform(points.numpy())).double()
    table = predictions.table[["utterance", "speaker"]].copy()
    table["emotion"] = predictions.table["target"]
    table["x"], table["y"] = places[:, 0].numpy(), places[:, 1].numpy()
    return EmbeddingMap(title, predictions.class_names, table)


def embedding_figure(maps: Sequence[EmbeddingMap], title: str) -> Figure:
    """Draw maps side by side: one point per utterance, colour by emotion, shape by speaker.

    Args:
        maps: At least one, all with the same classes.
        title: Title of the figure.
    """
    class_names = maps[0].class_names
    colours = dict(zip(class_names, _colours(len(class_names)), strict=True))
    speakers = sorted({speaker for drawn in maps for speaker in drawn.table["speaker"]})
    marks = {speaker: MARKS[index % len(MARKS)] for index, speaker in enumerate(speakers)}
    columns = math.ceil((len(colours) + len(marks) + 2) / LEGEND_ROWS)
    figure = Figure(figsize=(0.6 + 4.7 * len(maps) + 1.3 * columns, 5.5), layout="constrained")
    for axes, drawn in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        _draw(axes, drawn, colours, marks)
    _legend(figure, colours, marks, columns)
    figure.suptitle(plain(title), fontsize=15, x=0.01, horizontalalignment="left")
    figure.supxlabel("t-SNE of L2-normalised embeddings; axes have no unit.", fontsize=12, color=GREY)
    return figure


def write_embedding_figure(
    folders: Sequence[Path], out: Path, titles: Sequence[str] = (), fold: int | None = None
) -> Path:
    """Draw the test embeddings of runs side by side, and write the picture and its coordinates.

    Each fold has its own embedding space, so one fold of each run is drawn.

    Args:
        folders: Folders of folds or seeds; of seeds, the first fold that all have finished is drawn.
        out: The folder of ``embeddings.png`` and ``embeddings.csv``, the latter with columns ``system`` (the title),
            ``utterance``, ``speaker``, ``emotion``, ``x`` and ``y``.
        titles: Titles of the runs; by default experiment and row.
        fold: Draw this fold of every seed.

    Returns:
        The picture.

    Raises:
        ConfigurationError: If a folder has no such fold or no embeddings, or the runs have different classes.
    """
    if titles and len(titles) != len(folders):
        raise ConfigurationError(f"{len(titles)} titles for {len(folders)} runs; give one for each, or none")
    runs = [FoldRun.read(folder) for folder in _fold_folders(folders, fold)]
    first = runs[0]
    for run in runs[1:]:
        if run.facts.class_names != first.facts.class_names:
            raise ConfigurationError(
                f"{first.folder} has classes {', '.join(first.facts.class_names)}; "
                f"{run.folder} {', '.join(run.facts.class_names)}: draw them separately"
            )
    names = list(titles) or [run.facts.title for run in runs]
    maps = [
        embedding_map(f"{name}\nfold {run.facts.fold}", read_embeddings(run.folder), run.predictions)
        for name, run in zip(names, runs, strict=True)
    ]
    tables = [drawn.table.assign(system=name) for name, drawn in zip(names, maps, strict=True)]
    columns = ["system", "utterance", "speaker", "emotion", "x", "y"]
    corpora = sorted({corpus_title(run.facts) for run in runs})
    picture = embedding_figure(maps, f"Embeddings of test utterances, {' and '.join(corpora)}")
    write_atomically(out / "embeddings.csv", csv_file(pd.concat(tables)[columns], digits=6))
    return save(picture, out / EMBEDDINGS_PICTURE)


def _fold_folders(folders: Sequence[Path], fold: int | None) -> list[Path]:
    """Return the fold of each run to draw; of seeds, the first that all have finished."""
    finished = [_finished(folder) for folder in folders]
    if fold is None:
        seeds = [set(done) for folder, done in zip(folders, finished, strict=True) if not _is_fold(folder)]
        common = set.intersection(*seeds) if seeds else set()
        if seeds and not common:
            listed = "; ".join(f"{folder}: {_listed(done)}" for folder, done in zip(folders, finished, strict=True))
            raise ConfigurationError(f"no fold is finished in all of these runs: {listed}; finish one in all of them")
        return [
            folder if _is_fold(folder) else done[min(common)] for folder, done in zip(folders, finished, strict=True)
        ]
    for folder, done in zip(folders, finished, strict=True):
        if fold not in done:
            raise ConfigurationError(f"{folder}: fold {fold} is not finished; finished are {_listed(done)}")
    return [done[fold] for done in finished]


def _finished(folder: Path) -> dict[int, Path]:
    """Return the finished folds of a run by their index, at least one."""
    done = finished_folds(folder)
    if above := sorted({entry.parent for entry in done})[1:]:
        raise ConfigurationError(f"{folder} contains several seeds, such as {above[0]}; give one seed's folder")
    return {int(entry.name.removeprefix("fold-")): entry for entry in done}


def _is_fold(folder: Path) -> bool:
    return fold_folders(folder.resolve()) == [folder.resolve()]


def _listed(finished: dict[int, Path]) -> str:
    return ", ".join(map(str, finished))


def _colours(count: int) -> Sequence[str]:
    """Return ``count`` colours: of the colour-blind palette if it has enough, else of a rainbow."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    rainbow = matplotlib.colormaps["turbo"]
    return [to_hex(rainbow(index / (count - 1))) for index in range(count)]


def _draw(axes: Axes, drawn: EmbeddingMap, colours: dict[str, str], marks: dict[str, str]) -> None:
    table = drawn.table
    size = max(24.0, min(64.0, 9000 / len(table)))
    for speaker, group in table.groupby("speaker"):
        fills = [colours[emotion] for emotion in group["emotion"]]
        edges = [_edge(fill) for fill in fills]
        mark = marks[str(speaker)]
        axes.scatter(group["x"], group["y"], s=size, marker=mark, c=fills, alpha=0.85, edgecolor=edges, linewidth=0.5)
    lines = (textwrap.fill(line, TITLE_WIDTH) for line in drawn.title.splitlines())
    axes.set_title(plain("\n".join(lines)), fontsize=14)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#c4c4c4")


def _edge(colour: str) -> str:
    red, green, blue = to_rgb(colour)
    return to_hex((EDGE * red, EDGE * green, EDGE * blue))


def _legend(figure: Figure, colours: dict[str, str], marks: dict[str, str], columns: int) -> None:
    def entry(label: str, mark: str, colour: str) -> Line2D:
        line = Line2D([], [], linestyle="none", marker=mark, color=colour, markersize=10, label=plain(label))
        line.set_markeredgecolor(_edge(colour))
        return line

    entries = [
        entry("emotion", "", GREY),
        *(entry(name, "o", colour) for name, colour in colours.items()),
        entry("speaker", "", GREY),
        *(entry(name, mark, GREY) for name, mark in marks.items()),
    ]
    legend = figure.legend(
        handles=entries, loc="outside right center", ncols=columns, frameon=False, fontsize=13, handletextpad=0.3
    )
    for text in legend.get_texts():
        if text.get_text() in ("emotion", "speaker"):
            text.set_fontweight("bold")
