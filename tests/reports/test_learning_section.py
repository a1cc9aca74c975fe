"""The sections of clusters, embeddings and attention."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from ser_lightning.reports import embedding_figure as module
from ser_lightning.reports.cluster_figure import cluster_figure
from ser_lightning.reports.document import Picture, Section, SideBySide
from ser_lightning.reports.embedding_figure import EmbeddingMap
from ser_lightning.reports.sections.learning import clusters, embeddings_and_attention
from ser_lightning.reports.systems import find_systems
from ser_lightning.runs.assignment import write_assignment
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.scores import write_embeddings

pytestmark = pytest.mark.usefixtures("small_pictures")

WriteFold = Callable[..., Path]
FOUR = ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 2))
RAVDESS, CREMA_D = ("neutral", "happy", "sad", "calm"), ("neutral", "happy", "sad", "angry")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[EmbeddingMap]:
    """The maps drawn, in order."""
    maps: list[EmbeddingMap] = []
    draw = module.embedding_figure

    def figure(found: list[EmbeddingMap], title: str) -> object:
        maps.extend(found)
        return draw(found, title)

    monkeypatch.setattr(module, "embedding_figure", figure)
    return maps


def _write(write_fold: WriteFold, folder: Path, *folds: int, **facts: object) -> None:
    for fold in folds:
        written = write_fold(folder / "seed-0", fold, FOUR, experiment=folder.name, **facts)
        write_embeddings(written, torch.randn(8, 5, generator=torch.Generator().manual_seed(fold)))
        Image.new("RGB", (2, 2)).save(written / "embeddings.png")


def _pictures(*folders: Path) -> dict[str, Picture]:
    sections: list[Section] = embeddings_and_attention(find_systems(folders)[0])
    blocks = [block for section in sections for block in section.blocks]
    found = [p for block in blocks for p in (block.pictures if isinstance(block, SideBySide) else [block])]
    assert all(isinstance(picture, Picture) for picture in found)
    return {picture.name: picture for picture in found if isinstance(picture, Picture)}


def test_systems_with_other_classes_have_separate_pictures(tmp_path: Path, write_fold: WriteFold) -> None:
    _write(write_fold, tmp_path / "crema", 0, corpus="crema_d", class_names=CREMA_D, protocol_hash="c")
    _write(write_fold, tmp_path / "ravdess", 0, corpus="ravdess", class_names=RAVDESS, protocol_hash="r")
    found = _pictures(tmp_path)
    assert set(found) == {"embeddings_crema", "embeddings_ravdess"}
    for name, picture in found.items():
        assert picture.numbers is not None
        assert set(picture.numbers["system"]) == {name.removeprefix("embeddings_")}


def test_only_systems_on_one_split_share_a_picture(tmp_path: Path, write_fold: WriteFold) -> None:
    _write(write_fold, tmp_path / "a", 0, 1)
    _write(write_fold, tmp_path / "b", 1, 2)
    _write(write_fold, tmp_path / "c", 0, protocol_hash="another")
    write_fold(tmp_path / "d" / "seed-0", 0, FOUR, experiment="d")  # has no embeddings
    found = _pictures(tmp_path)
    assert set(found) == {"embeddings_a", "embeddings_c"}
    assert "fold 1 of a, b," in found["embeddings_a"].caption
    assert "seed 0, fold 0 of c" in found["embeddings_c"].caption
    assert set(_pictures(tmp_path / "a", tmp_path / "b")) == {"embeddings"}


def test_systems_without_a_common_fold_have_separate_pictures(tmp_path: Path, write_fold: WriteFold) -> None:
    _write(write_fold, tmp_path / "a", 1, 2)
    _write(write_fold, tmp_path / "b", 0)
    found = _pictures(tmp_path)
    assert set(found) == {"embeddings_a", "embeddings_b"}
    assert "seed 0, fold 1 of a" in found["embeddings_a"].caption


def test_the_numbers_next_to_a_picture_match_it(
    tmp_path: Path, write_fold: WriteFold, drawn: list[EmbeddingMap]
) -> None:
    _write(write_fold, tmp_path / "a", 0)
    (picture,) = _pictures(tmp_path).values()
    assert picture.png != (tmp_path / "a" / "seed-0" / "fold-00" / "embeddings.png").read_bytes()
    assert picture.numbers is not None
    pd.testing.assert_frame_equal(picture.numbers.drop(columns="system"), drawn[0].table)


def test_without_embeddings_the_runs_picture_is_copied(tmp_path: Path, write_fold: WriteFold) -> None:
    _write(write_fold, tmp_path / "a", 0)
    fold = tmp_path / "a" / "seed-0" / "fold-00"
    (fold / "embeddings.safetensors").unlink()
    (fold / "attention.png").write_bytes((fold / "embeddings.png").read_bytes())
    found = _pictures(tmp_path)
    assert set(found) == {"embeddings", "attention"}
    assert found["embeddings"].png == (fold / "embeddings.png").read_bytes()
    assert found["embeddings"].numbers is None
    assert "copied from the run" in found["embeddings"].caption


def test_clusters_are_drawn_of_the_first_fold_that_has_them(tmp_path: Path, write_fold: WriteFold) -> None:
    for fold, ghosts in ((0, None), (1, 2), (2, 0)):
        folder = write_fold(tmp_path / "a" / "seed-0", fold, FOUR, experiment="a")
        if ghosts is not None:
            shares = torch.tensor([0.6, 0.3, 0.1, 0.0]).repeat(8, 1)
            write_assignment(folder, shares, ghosts, Predictions.read(folder / "predictions.csv"))
    write_fold(tmp_path / "b" / "seed-0", 0, FOUR, experiment="b")
    (section,) = clusters(find_systems([tmp_path])[0])
    (picture,) = section.blocks
    assert isinstance(picture, Picture)
    assert picture.name == "clusters_a"
    assert "a, seed 0, fold 1" in picture.caption
    assert "neutral: most in cluster 1, 60%" in picture.alternative
    assert picture.numbers is not None
    assert list(picture.numbers.columns) == ["class", "utterances", "cluster_1", "cluster_2", "ghost_1", "ghost_2"]
    assert clusters(find_systems([tmp_path / "b"])[0]) == []


def test_ghosts_have_a_panel_of_their_own() -> None:
    table = pd.DataFrame(
        {"utterances": [3, 0], "cluster_1": [0.7, None], "cluster_2": [0.2, None], "ghost_1": [0.1, None]},
        index=["sad", "calm"],
    )
    figure = cluster_figure(table, "costs $5")
    assert [axes.get_xlabel() for axes in figure.axes] == ["cluster", "ghost"]
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["70.0", "20.0", "-", "-"], ["10.0", "-"]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["sad\nn = 3", "calm\nn = 0"]
    figure.draw_without_rendering()  # the title is text, not mathematics
    assert [axes.get_xlabel() for axes in cluster_figure(table.drop(columns="ghost_1"), "").axes] == ["cluster"]
