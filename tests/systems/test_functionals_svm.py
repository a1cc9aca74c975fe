"""The baseline: functionals by hand, an SVM that is fitted once, and its checkpoint."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ser_lightning import load
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.predictions import Predictions
from ser_lightning.systems import FunctionalsSVM
from ser_lightning.systems.svm_fitting import fit_svm
from ser_lightning.training.fold import run_fold

pytestmark = pytest.mark.usefixtures("small_pictures")
Run = Callable[..., Path]


def system(**more: Any) -> FunctionalsSVM:
    return FunctionalsSVM(3, ("angry", "sad"), **more)


def test_functionals_are_mean_and_deviation_of_real_frames() -> None:
    frames = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    found = system().double().functionals(frames, mask)
    for row, real in zip(found, (frames[0], frames[1, :2]), strict=True):
        torch.testing.assert_close(row, torch.cat([real.mean(0), real.std(0, correction=0)]))
    torch.testing.assert_close(system(statistics=["deviation"]).functionals(frames, mask), found[:, 3:])


@pytest.mark.parametrize("statistics", [[], ["mean", "mean"]])
def test_statistics_are_named_once(statistics: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="statistics are"):
        system(statistics=statistics)


@pytest.fixture(scope="module")
def run(synthetic_ravdess: Path, feature_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train a fold on log-Mel frames of the synthetic corpus."""

    def run(*more: str) -> Path:
        return run_fold(
            [
                "--config=experiments/svm_baseline.yaml",
                f"--data.init_args.root={synthetic_ravdess}",
                f"--data.init_args.feature_folder={feature_folder}",
                "--data.init_args.extractor=ser_lightning.features.LogMelFilterbank",
                "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
                "--data.init_args.protocol.init_args.blocks=even",
                "--data.init_args.protocol.init_args.num_folds=3",
                "--model.init_args.statistics=[mean,deviation]",
                "--trainer.enable_progress_bar=false",
                "--trainer.logger=false",
                f"--trainer.default_root_dir={tmp_path_factory.mktemp('svm')}",
                *more,
            ]
        )

    return run


def test_a_fold_is_above_chance_whatever_its_batches(run: Run, synthetic_ravdess: Path) -> None:
    first, second = run(), run("--data.init_args.batch_size=7")
    whole, other = (Predictions.read(folder / "predictions.csv").table for folder in (first, second))
    assert (whole["target"] == whole["predicted"]).mean() > 0.4  # eight emotions
    pd.testing.assert_frame_equal(whole, other, atol=1e-5)
    metrics = pd.read_csv(first / "metrics.csv")
    assert metrics["train/loss"].item() < metrics["validation/loss"].item()
    classifier = load(first / "checkpoints" / "best.ckpt", device="cpu")
    row = whole.iloc[0]
    (path,) = synthetic_ravdess.rglob(f"{row['utterance']}.wav")
    result = classifier.classify(path)
    assert result.emotion == row["predicted"]
    assert result.by_emotion["calm"] == pytest.approx(row["probability_calm"], abs=1e-3)


def test_a_finished_fold_is_not_trained_again(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    folder = run("--model.init_args.costs=[1.0]", "--model.init_args.gammas=[1.0]")
    before = (folder / "checkpoints" / "best.ckpt").read_bytes()
    with caplog.at_level(logging.INFO):
        run("--model.init_args.costs=[1.0]", "--model.init_args.gammas=[1.0]", f"--trainer.default_root_dir={folder}")
    assert (folder / "checkpoints" / "best.ckpt").read_bytes() == before


def test_one_candidate_needs_no_selection() -> None:
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    machine, record = fit_svm(points, torch.tensor([0, 0, 0, 1, 1, 1]), ["a"] * 6, 2, costs=[10.0], gammas=[0.5])
    assert machine.is_fitted
    assert (record["C"], record["gamma_multiple"]) == (10.0, 0.5)
