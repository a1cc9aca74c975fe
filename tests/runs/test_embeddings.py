"""A fold's embeddings on disk."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.scores import read_embeddings, write_embeddings

COUNT = 8  # utterances of the first fold


@pytest.fixture
def fold(seed_folder: Path) -> Path:
    return seed_folder / "fold-00"


def test_embeddings_are_read_back_bit_exact(fold: Path) -> None:
    embeddings = torch.randn(COUNT, 5).T.contiguous().T  # of any memory layout
    assert write_embeddings(fold, embeddings.requires_grad_()) == fold / "embeddings.safetensors"
    assert torch.equal(read_embeddings(fold), embeddings)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(fold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_embeddings(fold, torch.ones(COUNT, 5))
    before = {path.name for path in fold.iterdir()}

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_embeddings(fold, torch.zeros(COUNT, 5))
    assert {path.name for path in fold.iterdir()} == before
    assert torch.equal(read_embeddings(fold), torch.ones(COUNT, 5))


def test_a_fold_without_embeddings_says_how_to_get_them(fold: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"fold-00/embeddings\.safetensors.*`ser test`"):
        read_embeddings(fold)


@pytest.mark.parametrize("shape", [(COUNT - 1, 5), (COUNT, 5, 2), (COUNT,)])
def test_embeddings_of_another_shape_are_rejected(shape: tuple[int, ...], fold: Path) -> None:
    write_embeddings(fold, torch.zeros(shape))
    numbers = " x ".join(map(str, shape))
    with pytest.raises(ConfigurationError, match=rf"safetensors.* {numbers};.*predictions\.csv.* 8 "):
        read_embeddings(fold)


def test_embeddings_without_predictions_are_rejected(fold: Path) -> None:
    write_embeddings(fold, torch.zeros(COUNT, 5))
    (fold / "predictions.csv").unlink()
    with pytest.raises(ConfigurationError, match=r"predictions\.csv"):
        read_embeddings(fold)


def test_a_damaged_file_is_rejected(fold: Path) -> None:
    path = write_embeddings(fold, torch.zeros(COUNT, 5))
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[:-4], b"PK" + whole):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"fold-00/embeddings\.safetensors"):
            read_embeddings(fold)
    save_file({"frames": torch.zeros(COUNT, 5)}, path)
    with pytest.raises(ConfigurationError, match=r"embeddings\.safetensors.*\('embeddings'\)"):
        read_embeddings(fold)


def test_embeddings_must_be_finite(fold: Path) -> None:
    embeddings = torch.zeros(COUNT, 5)
    embeddings[3, 2] = torch.nan
    write_embeddings(fold, embeddings)
    with pytest.raises(ConfigurationError, match=r"embeddings\.safetensors.*fold0-003.*finite"):
        read_embeddings(fold)
