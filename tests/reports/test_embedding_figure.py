"""The figure of embeddings, and the command that draws it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from torch import Tensor

from ser_lightning.cli.__main__ import main
from ser_lightning.reports import embedding_figure as module
from ser_lightning.reports.embedding_figure import COLOURS, EmbeddingMap, embedding_figure, embedding_map
from ser_lightning.reports.figures import png
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.scores import write_embeddings

CLASSES = ("neutral", "calm", "happy", "sad")


def spoken(count: int = 60, speakers: int = 2, class_names: tuple[str, ...] = CLASSES) -> Predictions:
    targets = torch.arange(count) % len(class_names)
    return Predictions.collect(
        utterances=[f"u{index:03d}" for index in range(count)],
        speakers=[f"{index // 4 % speakers:02d}" for index in range(count)],
        fold=0,
        targets=targets,
        predicted=targets,
        probabilities=torch.full((count, len(class_names)), 1 / len(class_names)),
        class_names=class_names,
    )


def clustered(predictions: Predictions) -> Tensor:
    """Embeddings [N, 16] near a direction for each emotion, of any length."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(len(predictions.class_names), 16, generator=generator)
    of = [predictions.class_names.index(name) for name in predictions.table["target"]]
    noise = torch.randn(len(of), 16, generator=generator)
    return (centres[of] + 0.1 * noise) * torch.rand(len(of), 1, generator=generator).add(0.5)


def drawn(**changes: int) -> EmbeddingMap:
    predictions = spoken(**changes)
    return embedding_map("S5\nfold 0", clustered(predictions), predictions)


def test_a_map_keeps_neighbours_and_lists_every_utterance() -> None:
    table = drawn().table
    assert list(table) == ["utterance", "speaker", "emotion", "x", "y"]
    assert table["utterance"].tolist() == [f"u{index:03d}" for index in range(60)]
    assert table["emotion"].tolist() == [CLASSES[index % 4] for index in range(60)]
    places = torch.tensor(table[["x", "y"]].to_numpy(copy=True))
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert all(table["emotion"][int(near)] == table["emotion"][row] for row, near in enumerate(distances.argmin(1)))


def test_equal_directions_give_equal_maps_and_figures() -> None:
    predictions = spoken()
    embeddings = clustered(predictions)
    one, two = (embedding_map("S5", embeddings, predictions) for _ in range(2))
    pd.testing.assert_frame_equal(one.table, two.table)
    assert png(embedding_figure([one], "x")) == png(embedding_figure([two], "x"))
    longer = embedding_map("S5", 4 * embeddings, predictions)  # a power of two is exact
    pd.testing.assert_frame_equal(one.table, longer.table)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_handful_of_utterances_is_drawn(count: int) -> None:
    found = drawn(count=count)
    assert found.table[["x", "y"]].notna().all(axis=None)
    assert png(embedding_figure([found], "x")).startswith(b"\x89PNG")


def test_collapsed_embeddings_are_drawn_in_one_place() -> None:
    found = embedding_map("S4", torch.ones(60, 16), spoken())
    assert (found.table[["x", "y"]] == 0).all(axis=None)


def test_colours_are_emotions_and_shapes_are_speakers() -> None:
    figure = embedding_figure([drawn(), drawn(speakers=3)], "x")
    for axes, count in zip(figure.axes, (2, 3), strict=True):
        assert len({group.get_paths()[0].vertices.tobytes() for group in axes.collections}) == count  # type: ignore[union-attr]
        for group, (_, expected) in zip(axes.collections, drawn(speakers=count).table.groupby("speaker"), strict=True):
            assert group.get_offsets().tolist() == expected[["x", "y"]].to_numpy().tolist()  # type: ignore[union-attr]
            fills = [to_hex(colour) for colour in group.get_facecolor()]  # type: ignore[union-attr]
            assert fills == [COLOURS[CLASSES.index(emotion)] for emotion in expected["emotion"]]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["emotion", *CLASSES, "speaker", "00", "01", "02"]


@pytest.mark.parametrize(("maps", "speakers"), [(1, 2), (1, 10), (3, 2), (2, 40)])
def test_no_text_overlaps_or_is_cut_off(maps: int, speakers: int) -> None:
    predictions = spoken(80, speakers, tuple("abcdefgh"))
    title = "emotion_constrained_metric_learning, a rather long row\nfold 0"
    found = embedding_map(title, clustered(predictions), predictions)
    figure = embedding_figure([found] * maps, "Embeddings of test utterances, ravdess, SYNTHETIC speech")
    FigureCanvasAgg(figure).draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    boxes += [figure.legends[0].get_window_extent(), *(text.get_window_extent() for text in figure.texts)]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1)), f"{one} and {other}"
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_more_classes_than_the_palette_get_distinct_colours() -> None:
    predictions = spoken(60, 2, tuple("abcdefghijk"))
    figure = embedding_figure([embedding_map("x", clustered(predictions), predictions)], "x")
    fills = {to_hex(colour) for group in figure.axes[0].collections for colour in group.get_facecolor()}  # type: ignore[union-attr]
    assert len(fills) == 11


def embed(seed_folder: Path) -> None:
    for folder in seed_folder.glob("fold-*"):
        write_embeddings(folder, clustered(Predictions.read(folder / "predictions.csv")))


@pytest.fixture
def seeds(seed_folder: Path, write_fold: Callable[..., Path]) -> list[Path]:
    """Runs of two systems; fold 0 of the second is not finished."""
    other = seed_folder.parents[2] / "other" / "ravdess" / "default" / "seed-0"
    for fold in (1, 2):
        matrix = ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 2))
        write_fold(other, fold, matrix, experiment="other", row="k_8")
    for folder in (seed_folder, other):
        embed(folder)
    return [seed_folder, other]


def titles_of(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A list of the titles of each figure and its maps."""
    found: list[list[str]] = []
    draw = module.embedding_figure

    def watched(maps: list[EmbeddingMap], title: str) -> object:
        found.append([title, *(part.title for part in maps)])
        return draw(maps, title)

    monkeypatch.setattr(module, "embedding_figure", watched)
    return found


def test_the_command_draws_runs_and_writes_the_numbers(
    seeds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = titles_of(monkeypatch)
    out = tmp_path / "new" / "pictures"
    assert main(["embeddings", *map(str, seeds), f"--out={out}"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "embeddings.png")
    assert (out / "embeddings.png").read_bytes().startswith(b"\x89PNG")
    above = "Embeddings of test utterances, ravdess, SYNTHETIC speech"
    assert titles == [[above, "transfer\nfold 1", "other, k 8\nfold 1"]]  # the first that both have finished
    table = pd.read_csv(out / "embeddings.csv", dtype={"speaker": str})
    assert list(table) == ["system", "utterance", "speaker", "emotion", "x", "y"]
    for system, folder in (("transfer", seeds[0]), ("other, k 8", seeds[1])):
        predictions = Predictions.read(folder / "fold-01" / "predictions.csv").table
        ours = table[table["system"] == system]
        assert ours["utterance"].tolist() == predictions["utterance"].tolist()
        assert ours["speaker"].tolist() == predictions["speaker"].tolist()
        assert ours["emotion"].tolist() == predictions["target"].tolist()


def test_the_fold_is_given_by_option_or_folder(
    seeds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = titles_of(monkeypatch)
    monkeypatch.chdir(tmp_path)
    one, two = map(str, seeds)
    for given in ([one], [f"{one}/fold-02"], [one, two, "--fold=2", "--titles", "S3", "S5"], [f"{one}/fold-00", two]):
        assert main(["embeddings", *given]) == 0
    assert [found[1:] for found in titles] == [
        ["transfer\nfold 0"],
        ["transfer\nfold 2"],
        ["S3\nfold 2", "S5\nfold 2"],
        ["transfer\nfold 0", "other, k 8\nfold 1"],
    ]
    assert {path.name for path in (tmp_path / "embeddings").iterdir()} == {"embeddings.png", "embeddings.csv"}


def test_what_cannot_be_drawn_is_rejected(
    seeds: list[Path], write_fold: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = map(str, seeds)
    (seeds[0] / "fold-02" / "embeddings.safetensors").unlink()
    names = ("happy", "sad")
    foreign = write_fold(tmp_path / "seed-0", 0, ((2, 0), (0, 2)), class_names=names)
    write_embeddings(foreign, clustered(Predictions.read(foreign / "predictions.csv")))
    for given, named in (
        ([one, "--fold=7"], "seed-0: fold 7 is not finished; finished are 0, 1, 2"),
        ([f"{one}/fold-01", "--fold=0"], "fold-01: fold 0 is not finished; finished are 1"),
        ([one, "--fold=2"], "fold-02/embeddings.safetensors"),
        ([str(tmp_path / "gone")], "gone is not a folder"),
        ([str(tmp_path)], "give one seed's folder"),
        ([one, two, "--titles", "S3"], "1 titles for 2 runs"),
        ([f"{one}/fold-00", str(foreign)], "draw them separately"),
        ([two, str(foreign.parent)], "no fold is finished in all of these runs"),
    ):
        assert main(["embeddings", *given, f"--out={tmp_path / 'out'}"]) == 1
        assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
