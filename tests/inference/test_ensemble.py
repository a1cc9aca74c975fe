"""Several trainings as one system: what is averaged, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ser_lightning import load
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogMelFilterbank
from ser_lightning.inference.export import export

Save = Callable[..., Path]
Write = Callable[..., Path]


@pytest.fixture
def write(save: Save, tmp_path: Path) -> Write:
    """Write the checkpoint of a finished fold; another fold or seed has other weights."""

    def write(fold: int, seed: int = 0, row: str = "default", **more: Any) -> Path:
        folder = tmp_path / "runs" / row / f"seed-{seed}" / f"fold-{fold:02d}"
        checkpoint = save(folder / "checkpoints" / "best.ckpt", seed=10 * seed + fold, **more)
        (folder / "predictions.csv").touch()
        return checkpoint

    return write


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.05, 16000)
    soundfile.write(tmp_path / "talk.wav", noise, 16000)
    return tmp_path / "talk.wav"


def test_probabilities_of_folds_and_seeds_are_averaged(write: Write, talk: Path) -> None:
    checkpoints = [write(fold, seed) for fold, seed in ((0, 0), (1, 0), (0, 1))]
    alone = [load(one).classify(talk).probabilities for one in checkpoints]
    assert len(set(alone)) == 3
    row = checkpoints[0].parents[3]
    for folder, members in ((row, alone), (row / "seed-0", alone[:2]), (row / "seed-0" / "fold-01", alone[1:2])):
        result = load(folder).classify(talk)
        mean = torch.tensor(members).mean(0)
        assert result.probabilities == pytest.approx(mean.tolist(), abs=1e-6)
        assert result.emotion == result.class_names[int(mean.argmax())]


def test_a_member_with_an_svm_decides_as_alone(write: Write, talk: Path) -> None:
    checkpoint = write(0, name="mocanu_svm")
    assert load(checkpoint.parents[1]).classify(talk) == load(checkpoint).classify(talk)


def test_an_ensemble_is_exported_as_one_network(write: Write, tmp_path: Path) -> None:
    import onnx

    for fold in (0, 1):
        folder = write(fold).parents[2]
    exported = export(folder, tmp_path / "model.onnx")
    assert exported.max_difference < 1e-5
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert metadata["trainings"] == "2"


def test_rows_are_not_averaged(write: Write, tmp_path: Path) -> None:
    write(0)
    write(0, row="other")
    with pytest.raises(ConfigurationError, match=r"holds 2 systems, such as .*default and .*other; give one"):
        load(tmp_path / "runs")


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"extractor": LogMelFilterbank(num_mels=20)}, "the extractor"),
        ({"name": "huang_max"}, "the arguments"),  # poolings without parameters: only the configuration differs
        ({"corpus": "crema_d"}, "the corpus"),
        ({"name": "zhou_baseline"}, "the class"),
    ],
)
def test_other_configurations_are_not_averaged(write: Write, more: dict[str, Any], key: str) -> None:
    folder = write(0).parents[2]
    write(1, **more)
    with pytest.raises(ConfigurationError, match=f"{key} of .*fold-00.* and .*fold-01.* differ"):
        load(folder)


def test_a_folder_without_a_finished_fold_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no finished fold"):
        load(tmp_path)
