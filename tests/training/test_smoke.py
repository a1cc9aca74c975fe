"""``ser smoke``: from synthetic audio to predictions, in a folder that is deleted."""

import tempfile
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.training.smoke import smoke

pytestmark = pytest.mark.usefixtures("small_pictures")


def test_the_quick_start_is_trained_anywhere_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    said = smoke([])
    assert "predicted 8 utterances" in said  # a fold of one of four actors
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("ser-smoke")]


def test_a_corpus_without_a_synthetic_twin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("data_modules.audio_files.write_synthetic")
    with pytest.raises(ConfigurationError, match=r"data_modules\.audio_files has no write_synthetic"):
        smoke(["--config=experiments/own_corpus.yaml"])
