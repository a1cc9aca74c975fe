"""Speaker identification: its scores, its job without predictions, and its checkpoint."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from rich.console import Console
from torch import Tensor

from ser_lightning.cli.__main__ import main
from ser_lightning.cross_validation.planner import RunOptions, plan_experiment
from ser_lightning.errors import ProtocolError
from ser_lightning.jobs.plan import Job, is_done
from ser_lightning.losses import AMSoftmax, Criterion, WeightedCrossEntropy
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.heads import CosineHead
from ser_lightning.nn.pooling import NetVLAD
from ser_lightning.systems import SpeakerIdentification
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.training.fold import run_fold
from ser_lightning.types import Batch

pytestmark = pytest.mark.usefixtures("small_pictures")

SPEAKERS = ("01", "02", "03", "04", "05", "06")
NUM_BINS = 34
LENGTHS = torch.tensor([60, 21, 1, 33])
Arguments = Callable[..., list[str]]
CRITERIA: dict[str, Callable[[], Criterion]] = {
    "softmax": lambda: WeightedCrossEntropy("none"),
    "AM-softmax": lambda: AMSoftmax(30.0, 0.2),
}


def build(criterion: Criterion) -> SpeakerIdentification:
    torch.manual_seed(0)

    def narrow(num_features: int) -> ThinSEResNet34:
        return ThinSEResNet34(num_features, channels=2)

    return SpeakerIdentification(
        NUM_BINS, SPEAKERS, narrow, lambda dim: NetVLAD(dim, 3), criterion, "per_frame", embedding_dim=6
    )


@pytest.fixture(params=CRITERIA)
def model(request: pytest.FixtureRequest) -> SpeakerIdentification:
    return build(CRITERIA[request.param]())


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(4, 60, NUM_BINS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).abs()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_padding_batch_mates_and_order_never_change_a_prediction(
    model: SpeakerIdentification, dtype: torch.dtype, tolerance: float, frames: Tensor
) -> None:
    model, frames = model.to(dtype).eval(), frames.to(dtype)
    together = model(frames, LENGTHS)
    reordered = model(frames.flip(0), LENGTHS.flip(0)).flip(0)
    longer = model(torch.cat([frames, torch.full((4, 30, NUM_BINS), 1e4, dtype=dtype)], 1), LENGTHS)
    torch.testing.assert_close(reordered, together, atol=tolerance, rtol=0)
    torch.testing.assert_close(longer, together, atol=tolerance, rtol=0)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(frames[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=tolerance, rtol=0)


def test_am_softmax_has_a_cosine_head_with_its_scale(frames: Tensor) -> None:
    model = build(CRITERIA["AM-softmax"]()).double().eval()
    assert isinstance(model.output[1], CosineHead)
    cosines = model(frames, LENGTHS)
    assert (cosines.abs() <= 1).all()
    torch.testing.assert_close(model.criterion.probabilities(cosines), (30 * cosines).float().softmax(1))


def test_scores_equal_those_of_a_plain_loop_over_held_out_clips(
    noise: Any, train: Callable[..., Trainer], tmp_path: Path
) -> None:
    data = noise(recognise="speaker")
    model = build(CRITERIA["softmax"]())
    train(model, data, tmp_path, max_epochs=2)
    found = {speaker: [0, 0, 0] for speaker in range(len(SPEAKERS))}
    with torch.no_grad():
        for batch in data.val_dataloader():
            for row in range(batch.size):
                length = int(batch.lengths[row])
                logits = model.eval()(batch.inputs[row : row + 1, :length], batch.lengths[row : row + 1])[0].tolist()
                label = int(batch.labels[row])
                better = sum(other > logits[label] for other in logits)
                counts = found[label]
                found[label] = [counts[0] + 1, counts[1] + (better < 1), counts[2] + (better < 5)]
    total = [sum(column) for column in zip(*found.values(), strict=True)]
    row = pd.read_csv(tmp_path / "metrics.csv").iloc[-1]
    assert row["validation/WA"] == pytest.approx(total[1] / total[0])
    assert row["validation/top_5"] == pytest.approx(total[2] / total[0])
    assert row["validation/UA"] == pytest.approx(sum(right / all_ for all_, right, _ in found.values()) / len(SPEAKERS))
    assert 0 < total[2] / total[0] < 1 or total[1] < total[2]


def test_a_step_hands_on_no_embeddings_and_sums_of_one(model: SpeakerIdentification, frames: Tensor) -> None:
    rows = torch.arange(4)
    outputs = model.eval().validation_step(Batch(frames.float(), LENGTHS, rows, torch.eye(6)[:4], rows), 0)
    assert set(outputs) == {"indices", "probabilities", "predicted"}
    torch.testing.assert_close(outputs["probabilities"].sum(1), torch.ones(4))


@pytest.fixture(scope="module")
def job_arguments(synthetic_ravdess: Path, feature_folder: Path) -> Arguments:
    """LightningCLI's arguments for a short, narrow pre-training on an emotion corpus's speakers."""

    def make(folder: Path, *more: str) -> list[str]:
        return [
            "--config=experiments/mocanu2021/speaker_id.yaml",
            "--config=experiments/mocanu2021/crema_d_speakers.yaml",
            "--config=experiments/trainer/cpu.yaml",
            "--data=data_modules.ravdess.RAVDESS",
            f"--data.init_args.root={synthetic_ravdess}",
            f"--data.init_args.feature_folder={feature_folder}",
            "--data.init_args.recognise=speaker",
            "--data.init_args.crop_frames=50",
            "--data.init_args.batch_size=16",
            "--data.init_args.extractor=ser_lightning.features.LogMelFilterbank",
            "--data.init_args.extractor.init_args.num_mels=40",
            "--model.init_args.encoder.init_args.channels=2",
            "--model.init_args.embedding_dim=6",
            "--trainer.max_epochs=1",
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}",
            *more,
        ]

    return make


@pytest.fixture(scope="module")
def finished(job_arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pre-training."""
    return run_fold(job_arguments(tmp_path_factory.mktemp("once"), "--trainer.logger=false"))


def test_its_job_ends_with_its_facts_and_without_predictions(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"run.json", "metrics.csv", "checkpoints", "config.yaml"} <= names
    assert not [name for name in names if "predictions" in name or "confusion" in name]
    facts = json.loads((finished / "run.json").read_text())
    assert facts["system"] == "SpeakerIdentification"
    assert facts["class_names"] == list(SPEAKERS)
    assert facts["speakers_disjoint"] is False
    job = Job(finished, {}, "x", "default", fold=None, seed=0)
    assert not is_done(job)
    assert is_done(replace(job, scored=False))


def test_trained_once_it_is_planned_for_any_folds_of_a_corpus(job_arguments: Arguments, tmp_path: Path) -> None:
    given = [argument for argument in job_arguments(tmp_path) if "default_root_dir" not in argument]
    options = RunOptions(folds="3,5", seeds="0-1", runs=tmp_path)
    jobs = plan_experiment(given, options, Console(quiet=True), without_folds=True)
    assert [(job.fold, job.seed, job.scored, job.folder.name) for job in jobs] == [
        (None, 0, False, "once"),
        (None, 1, False, "once"),
    ]


def test_its_finished_job_is_not_run_again(finished: Path, job_arguments: Arguments) -> None:
    left = [finished / "run.json", finished / "metrics.csv", *finished.glob("checkpoints/*.ckpt")]
    before = {path: path.stat().st_mtime_ns for path in left}
    assert len(before) == 4
    run_fold(job_arguments(finished, "--trainer.logger=false"))
    assert {path: path.stat().st_mtime_ns for path in left} == before


def test_its_metrics_are_of_speakers(finished: Path) -> None:
    table = pd.read_csv(finished / "metrics.csv")
    assert {"validation/UA", "validation/WA", "validation/top_5", "validation/loss", "train/loss"} <= set(table)
    assert table.notna().all(axis=None), table


def test_its_checkpoint_names_every_speaker_it_has_heard(finished: Path) -> None:
    stored = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)["ser_lightning"]
    assert stored["origin"]["training_speakers"] == list(SPEAKERS)
    assert stored["origin"]["corpus"] == "ravdess-synthetic"
    assert stored["class_names"] == list(SPEAKERS)


def test_nothing_is_tested_and_testing_it_is_refused(finished: Path, job_arguments: Arguments) -> None:
    data = ExperimentCLI(job_arguments(finished, "--trainer.logger=false"), run=False).datamodule
    assert not data.split().test
    with pytest.raises(ProtocolError, match="nothing is tested"):
        data.setup("test")


def test_predicting_a_corpus_with_it_is_refused(
    finished: Path, job_arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *job_arguments(finished, "--trainer.logger=false", "--ckpt_path=best")]) == 1
    assert "SpeakerIdentification is pre-training" in capsys.readouterr().err
    assert not list(finished.glob("*predictions.csv"))
