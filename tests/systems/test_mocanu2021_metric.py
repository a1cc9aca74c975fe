"""Metric learning and its SVM (S4, S5): checkpoints, resume, predictions and errors."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F

from ser_lightning.cli.__main__ import main
from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import EmotionConstraint, MetricLoss, TripletLoss
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.pooling import NetVLAD
from ser_lightning.runs.predictions import Predictions, tensors
from ser_lightning.systems import MetricLearning
from ser_lightning.systems import mocanu2021_metric as metric_learning
from ser_lightning.systems.checkpoint import load_system
from ser_lightning.systems.classifier import Decision
from ser_lightning.training import results
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.training.fold import run_fold
from ser_lightning.types import Batch

pytestmark = pytest.mark.usefixtures("small_pictures")

EMOTIONS = ("neutral", "happy", "sad", "angry")
NUM_BINS = 34
LENGTHS = torch.tensor([60, 21, 1, 33])
Train = Callable[..., Trainer]


def constraint(class_names: Any) -> MetricLoss:
    return EmotionConstraint(class_names, 0.1, 0.15, {"negative": ["sad", "angry"]})


def triplets(class_names: Any) -> MetricLoss:
    return TripletLoss(class_names, 0.1)


def narrow(num_features: int) -> ThinSEResNet34:
    return ThinSEResNet34(num_features, channels=2)


def build(metric_loss: Any = constraint, rate: float = 5e-3, **changes: Any) -> MetricLearning:
    torch.manual_seed(0)

    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=rate)

    settled: dict[str, Any] = {"normalisation": "per_frame", "optimizer": adam, "embedding_dim": 6}
    return MetricLearning(NUM_BINS, EMOTIONS, narrow, lambda dim: NetVLAD(dim, 3), metric_loss, **settled | changes)


def stored(folder: Path, name: str = "best") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return checkpoint


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def decisions(system: MetricLearning, batches: Any) -> list[Decision]:
    with torch.no_grad():
        return [system.eval().decide(batch) for batch in batches]


@pytest.fixture(scope="module")
def finished(noise: Any, train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of three epochs."""
    folder = tmp_path_factory.mktemp("finished")
    train(build(), noise(), folder, max_epochs=3)
    return folder


def test_the_best_checkpoint_holds_the_svm_and_its_parameters(finished: Path) -> None:
    checkpoint = stored(finished)
    machine = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("svm.")}
    assert machine["svm.support_vectors"].shape[1] == 6
    assert machine["svm.support_vectors"].dtype == torch.float64
    assert machine["svm.classes"].tolist() == [0, 1, 2, 3]
    chosen = checkpoint["ser_lightning"]["svm"]
    assert chosen["support_vectors"] == len(machine["svm.support_vectors"])
    assert machine["svm.gamma"].item() == chosen["gamma"]
    assert not len(stored(finished, "last")["state_dict"]["svm.support_vectors"])


def test_the_svm_is_fitted_on_the_best_epochs_embeddings(finished: Path, noise: Any) -> None:
    system, data = build().eval(), noise()
    system.load_state_dict(stored(finished)["state_dict"])
    batches = [*data.evaluation_dataloader("train")]
    with torch.no_grad():
        embeddings = F.normalize(torch.cat([system.embed(batch) for batch in batches]).double(), dim=1)
    distances = torch.cdist(system.svm.support_vectors, embeddings)
    assert distances.min(1).values.max() < 1e-6


def test_the_svm_predicts_and_its_probabilities_are_the_steps(finished: Path, noise: Any) -> None:
    system = build().eval()
    system.load_state_dict(stored(finished)["state_dict"])
    for batch in noise().test_dataloader():
        with torch.no_grad():
            outputs = system.test_step(batch, 0)
            predicted, probabilities = system.svm(system.embed(batch))
            assert torch.equal(outputs["predicted"], predicted)
            assert torch.equal(outputs["embeddings"], system.embed(batch))
            torch.testing.assert_close(outputs["probabilities"], probabilities.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("selection", ["training_speakers", "validation_set"])
def test_the_svm_is_chosen_on_the_speakers_that_its_key_names(
    selection: str, noise: Any, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    loaded: list[str] = []
    fit = metric_learning.fit_svm

    def watched(*arguments: Any) -> Any:
        given.append(arguments)
        return fit(*arguments)

    data = noise()
    system = build(svm_selection=selection)
    monkeypatch.setattr(metric_learning, "fit_svm", watched)
    monkeypatch.setattr(system, "_embed_set", lambda loader: loaded.append(loader.name) or embed(loader))
    embed = MetricLearning._embed_set.__get__(system)
    loaders = data.evaluation_dataloader

    def named(name: str) -> Any:
        loader = loaders(name)
        loader.name = name
        return loader

    monkeypatch.setattr(data, "evaluation_dataloader", named)
    train(system, data, tmp_path)
    ((embeddings, _, speakers, _, validation),) = given
    split = data.split()
    assert len(embeddings) == len(split.train)
    assert set(speakers) == set(split.speakers("train"))
    assert set(speakers).isdisjoint({*split.speakers("validation"), *split.speakers("test")})
    assert loaded == (["train"] if selection == "training_speakers" else ["train", "validation"])
    assert validation is None or len(validation[1]) == len(split.validation)


def test_too_few_training_speakers_are_named_before_training(noise: Any, train: Train, tmp_path: Path) -> None:
    data = noise()
    data.keep("train", lambda utterance: utterance.speaker == "03")
    with pytest.raises(ConfigurationError, match=r"speakers 03 .*svm_selection"):
        train(build(), data, tmp_path)


@pytest.mark.parametrize("cut", [*(pytest.param(cut, marks=pytest.mark.slow) for cut in ((1, 0), (2, 3))), (1, 2)])
def test_a_run_cut_in_the_middle_ends_with_the_same_bits(
    cut: tuple[int, int], finished: Path, noise: Any, train: Train, halt: Any, tmp_path: Path
) -> None:
    with pytest.raises(halt):
        train(build(), noise(), tmp_path, max_epochs=3, halt=cut)
    assert not len(stored(tmp_path)["state_dict"]["svm.support_vectors"])
    train(build(), noise(), tmp_path, max_epochs=3, resume=tmp_path / "checkpoints" / "last.ckpt")
    for name in ("best", "last"):
        one, other = stored(finished, name), stored(tmp_path, name)
        assert_same_weights(one["state_dict"], other["state_dict"])
        assert one["ser_lightning"] == other["ser_lightning"]
        assert one["epoch"] == other["epoch"]
    tables = [pd.read_csv(folder / "metrics.csv") for folder in (finished, tmp_path)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_run_killed_before_storing_its_svm_resumes_by_fitting(
    finished: Path, noise: Any, train: Train, halt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        raise halt

    monkeypatch.setattr(metric_learning, "fit_svm", kill)
    with pytest.raises(halt):
        train(build(), noise(), tmp_path, max_epochs=3)
    monkeypatch.undo()
    assert not len(stored(tmp_path)["state_dict"]["svm.support_vectors"])
    train(build(), noise(), tmp_path, max_epochs=3, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert_same_weights(stored(finished)["state_dict"], stored(tmp_path)["state_dict"])
    assert stored(finished)["ser_lightning"] == stored(tmp_path)["ser_lightning"]


def test_a_finished_run_keeps_its_svm_when_it_is_run_again(
    finished: Path, noise: Any, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (finished / "checkpoints" / "best.ckpt").read_bytes()
    monkeypatch.delattr(metric_learning, "fit_svm")
    system = build()
    train(system, noise(), finished, max_epochs=3, resume=finished / "checkpoints" / "last.ckpt")
    assert system.svm.is_fitted
    assert (finished / "checkpoints" / "best.ckpt").read_bytes() == before


def test_an_svm_is_discarded_when_its_network_is_trained_further(
    finished: Path, noise: Any, train: Train, tmp_path: Path
) -> None:
    """When training resumes from a best checkpoint, new epochs are scored by class means and may be the best."""
    system = build()
    resumed = tmp_path / "best.ckpt"
    checkpoint = stored(finished)
    # Any epoch is then the best.
    (score,) = (key for key in checkpoint["callbacks"] if "validation/WA" in key)
    checkpoint["callbacks"][score] |= {"best_k_models": {}, "best_model_score": None, "kth_best_model_path": ""}
    torch.save(checkpoint, resumed)
    train(system, noise(), tmp_path, max_epochs=4, resume=resumed)
    again = stored(tmp_path)
    assert again["epoch"] > checkpoint["epoch"]
    old, new = (one["state_dict"]["svm.support_vectors"] for one in (checkpoint, again))
    assert old.shape != new.shape or not torch.equal(old, new)
    assert not len(stored(tmp_path, "last")["state_dict"]["svm.support_vectors"])


def test_until_the_svm_is_fitted_the_epochs_class_means_predict(noise: Any, train: Train, tmp_path: Path) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(MetricLearning):
        def embed(self, batch: Batch) -> Tensor:
            embeddings = super().embed(batch)
            if self.training:
                seen.append((F.normalize(embeddings.detach(), dim=1), batch.labels))
            return embeddings

    torch.manual_seed(0)
    system = Watched(NUM_BINS, EMOTIONS, narrow, lambda dim: NetVLAD(dim, 3), constraint, "per_frame", embedding_dim=6)
    train(system, noise(), tmp_path, max_epochs=2)
    last = stored(tmp_path, "last")["state_dict"]
    directions, labels = (torch.cat(column) for column in zip(*seen[len(seen) // 2 :], strict=True))
    expected = torch.stack([directions[labels == index].mean(0) for index in range(4)])
    torch.testing.assert_close(last["class_means"], expected)

    alone = build()
    alone.load_state_dict(last)
    (batch,) = noise().test_dataloader()
    decision = decisions(alone, [batch])[0]
    embeddings = alone.embed(batch)
    nearest = [max(range(4), key=lambda k: F.cosine_similarity(row, expected[k], dim=0).item()) for row in embeddings]
    assert decision.predicted.tolist() == nearest
    torch.testing.assert_close(decision.probabilities, decision.logits.softmax(1))
    assert decision.logits.abs().max() <= 1 + 1e-6


def test_a_discarded_svm_leaves_no_buffers_on_another_device() -> None:
    system = build(svm_selection="validation_set").to("meta")  # a device that every machine has
    system.trainer = cast(Any, SimpleNamespace(world_size=1, datamodule=None))
    system.on_fit_start()
    assert {value.device.type for value in system.state_dict().values()} == {"meta"}


def test_a_class_without_training_utterances_is_never_predicted(noise: Any, train: Train, tmp_path: Path) -> None:
    data = noise()
    data.keep("train", lambda utterance: utterance.label != "sad")
    system = build(triplets)
    train(system, data, tmp_path)
    for decision in decisions(system, data.test_dataloader()):
        assert 2 not in decision.predicted.tolist()
        assert decision.logits.isfinite().all()
        assert (decision.probabilities[:, 2] < 1e-30).all()
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table.notna().all(axis=None), table


def test_frames_made_on_the_device_are_made_once(noise: Any, train: Train, tmp_path: Path) -> None:
    plain = noise()
    plain.frames = {name: frames.square() for name, frames in plain.frames.items()}
    train(build(), plain, tmp_path / "stored", max_epochs=2)
    train(build(), noise(squared=True), tmp_path / "device", max_epochs=2)
    assert_same_weights(stored(tmp_path / "stored")["state_dict"], stored(tmp_path / "device")["state_dict"])


def test_shares_of_violated_and_seen_constraints_are_logged(noise: Any, train: Train, tmp_path: Path) -> None:
    class Counted(TripletLoss):
        """Violates 8 of 10 constraints in every batch, and sees 2."""

        def violations(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return torch.tensor([10, 8, 2])

    train(build(lambda names: Counted(names, 0.2)), noise(), tmp_path, max_epochs=2)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["train/violated_share"].tolist() == pytest.approx([0.8, 0.8])
    assert table["train/seen_share"].tolist() == pytest.approx([0.25, 0.25])


def test_batches_without_terms_are_counted(noise: Any, train: Train, tmp_path: Path) -> None:
    class Sometimes(TripletLoss):
        """Has terms in every second batch."""

        calls = 0

        def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            self.calls += 1
            # With one class there is no triplet.
            return super().forward(embeddings, labels if self.calls % 2 else torch.zeros_like(labels))

    system = build(lambda names: Sometimes(names, 0.2))
    train(system, noise(), tmp_path, max_epochs=2)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["train/batches_without_terms"].tolist() == [2, 2]
    assert table["train/loss"].gt(0).all()
    nothing = build(lambda names: Sometimes(names, 1e-9))
    train(nothing, noise(), tmp_path / "nothing", max_epochs=2)
    table = pd.read_csv(tmp_path / "nothing" / "metrics.csv")
    assert table["train/batches_without_terms"].tolist() == [4, 4]
    assert table["train/loss"].eq(0).all()
    for name, parameter in build().named_parameters():
        torch.testing.assert_close(nothing.state_dict()[name], parameter.detach(), msg=name)


@pytest.mark.parametrize("state", ["class means", "machine"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_padding_batch_mates_and_order_never_change_a_decision(
    state: str, dtype: torch.dtype, tolerance: float, finished: Path
) -> None:
    system = build().to(dtype).eval()
    weights = stored(finished)["state_dict"]
    if state == "class means":
        weights |= {name: value for name, value in build().state_dict().items() if name.startswith("svm.")}
    system.load_state_dict(weights)
    assert system.svm.is_fitted == (state == "machine")
    frames = torch.randn(4, 60, NUM_BINS, dtype=dtype, generator=torch.Generator().manual_seed(1)).abs()

    def decide(frames: Tensor, lengths: Tensor) -> Decision:
        rows = torch.arange(len(lengths))
        with torch.no_grad():
            decision = system.decide(Batch(frames, lengths, rows, torch.eye(4)[rows], rows))
            torch.testing.assert_close(system(frames, lengths), decision.logits, atol=tolerance, rtol=0)
        return decision

    def assert_close(one: Decision, other: Decision, row: Any = slice(None)) -> None:
        assert torch.equal(one.predicted, other.predicted[row])
        for field in ("logits", "probabilities", "embeddings"):
            ours, theirs = getattr(one, field), getattr(other, field)[row]
            # Probabilities are always in float32.
            torch.testing.assert_close(ours, theirs, atol=max(tolerance, 1e-6 * (field == "probabilities")), rtol=0)

    together = decide(frames, LENGTHS)
    assert together.logits.dtype == dtype
    assert_close(decide(frames.flip(0), LENGTHS.flip(0)), together, [3, 2, 1, 0])
    assert_close(decide(torch.cat([frames, torch.full((4, 30, NUM_BINS), 1e4, dtype=dtype)], 1), LENGTHS), together)
    for row, length in enumerate(LENGTHS.tolist()):
        assert_close(decide(frames[row : row + 1, :length], LENGTHS[row : row + 1]), together, [row])


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train_and_fit_an_svm(precision: Any, noise: Any, train: Train, tmp_path: Path) -> None:
    system = build()
    train(system, noise(), tmp_path, max_epochs=2, precision=precision)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table.notna().all(axis=None), table
    assert table["train/loss"].gt(0).all()
    weights = stored(tmp_path)["state_dict"]
    assert len(weights["svm.support_vectors"])
    assert weights["network.connected.weight"].dtype == (torch.float64 if "64" in precision else torch.float32)
    assert all(value.isfinite().all() for value in weights.values())


def test_in_autocast_only_the_network_rounds(finished: Path, noise: Any) -> None:
    system = build().eval()
    weights = stored(finished)["state_dict"]
    (batch,) = noise().test_dataloader()
    for fitted in (True, False):
        unfitted = {} if fitted else {n: v for n, v in build().state_dict().items() if n.startswith("svm.")}
        system.load_state_dict(weights | unfitted)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            decision = system.decide(batch)
        assert decision.embeddings is not None
        assert {getattr(decision, f.name).dtype for f in fields(decision)} == {torch.float32, torch.int64}
        scores, predicted = system._class_scores(decision.embeddings)
        assert torch.equal(decision.logits, scores)
        assert torch.equal(decision.predicted, predicted)


@pytest.mark.slow
def test_s5_overfits_a_tiny_corpus(noise: Any, train: Train, tmp_path: Path) -> None:
    data = noise()
    data.keep("train", lambda utterance: utterance.speaker in ("03", "04"))
    data.own_split = replace(data.own_split, validation=data.own_split.train)
    system = build(rate=1e-2)
    train(system, data, tmp_path, max_epochs=40)
    assert pd.read_csv(tmp_path / "metrics.csv")["validation/WA"].max() == 1.0
    right = [d.predicted == batch.labels for d, batch in _decided(system, data)]
    assert torch.cat(right).all(), right


def _decided(system: MetricLearning, data: Any) -> list[tuple[Decision, Batch]]:
    batches = [*data.evaluation_dataloader("train")]
    return list(zip(decisions(system, batches), batches, strict=True))


@pytest.fixture(scope="module")
def fold_arguments(synthetic_ravdess: Path, feature_folder: Path) -> Callable[..., list[str]]:
    """LightningCLI's arguments for a short and narrow run of S5 in a folder."""

    def make(folder: Path, *more: str) -> list[str]:
        return [
            "--config=experiments/mocanu2021/s5_emotion_constraint.yaml",
            "--config=experiments/mocanu2021/ravdess.yaml",
            "--config=experiments/trainer/cpu.yaml",
            f"--data.init_args.root={synthetic_ravdess}",
            f"--data.init_args.feature_folder={feature_folder}",
            "--data.init_args.extractor=ser_lightning.features.LogMelFilterbank",
            "--data.init_args.extractor.init_args.num_mels=40",
            "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
            "--data.init_args.protocol.init_args.blocks=even",
            "--data.init_args.protocol.init_args.num_folds=3",
            "--data.init_args.batch_size=16",
            "--model.init_args.encoder.init_args.channels=2",
            "--model.init_args.embedding_dim=6",
            "--model.init_args.pooling=ser_lightning.nn.pooling.NetVLAD",
            "--model.init_args.pooling.init_args.clusters=2",
            "--trainer.max_epochs=1",
            "--trainer.logger=false",
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}",
            *more,
        ]

    return make


@pytest.fixture(scope="module")
def finished_fold(fold_arguments: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fold of S5 that has been fitted, validated and tested."""
    return run_fold(fold_arguments(tmp_path_factory.mktemp("fold")))


def test_a_fold_writes_its_svms_predictions_and_embeddings(finished_fold: Path) -> None:
    assert {path.name for path in finished_fold.iterdir()} >= {
        "predictions.csv",
        "validation_predictions.csv",
        "embeddings.safetensors",
        "embeddings.png",
        "run.json",
    }


def test_a_checkpoint_predicts_as_its_run_did(
    finished_fold: Path, fold_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    system = load_system(finished_fold / "checkpoints" / "best.ckpt")
    assert isinstance(system, MetricLearning)
    data = ExperimentCLI(fold_arguments(tmp_path), run=False).datamodule
    data.setup("test")
    table = Predictions.read(finished_fold / "predictions.csv").table
    for batch, decision in zip(data.test_dataloader(), decisions(system, data.test_dataloader()), strict=True):
        rows = table.iloc[batch.indices.tolist()]
        assert [data.class_names[index] for index in decision.predicted] == rows["predicted"].tolist()
        probabilities, _, _ = tensors(rows, data.class_names)
        torch.testing.assert_close(decision.probabilities.double(), probabilities, atol=1e-6, rtol=0)
    best = f"--ckpt_path={finished_fold}/checkpoints/best.ckpt"
    for command, file in (("validate", results.FILES["validation"]), ("test", results.FILES["test"])):
        assert main([command, *fold_arguments(tmp_path, best)]) == 0
        assert (tmp_path / file).read_bytes() == (finished_fold / file).read_bytes()


@pytest.mark.slow
def test_a_checkpoint_without_svm_predicts_and_its_fold_resumes(
    finished_fold: Path,
    fold_arguments: Callable[..., list[str]],
    halt: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill(*_: Any) -> None:
        raise halt

    monkeypatch.setattr(metric_learning, "fit_svm", kill)
    with pytest.raises(halt):
        run_fold(fold_arguments(tmp_path))
    monkeypatch.undo()
    system = load_system(tmp_path / "checkpoints" / "best.ckpt")
    assert isinstance(system, MetricLearning)
    assert not system.svm.is_fitted
    best = f"--ckpt_path={tmp_path}/checkpoints/best.ckpt"
    assert main(["test", *fold_arguments(tmp_path / "early", best)]) == 0
    table = Predictions.read(tmp_path / "early" / "predictions.csv").table
    data = ExperimentCLI(fold_arguments(tmp_path), run=False).datamodule
    data.setup("test")
    for batch, decision in zip(data.test_dataloader(), decisions(system, data.test_dataloader()), strict=True):
        predicted = table.iloc[batch.indices.tolist()]["predicted"].tolist()
        assert [data.class_names[index] for index in decision.predicted] == predicted
    run_fold(fold_arguments(tmp_path))
    for file in results.FILES["validation"], results.FILES["test"]:
        assert (tmp_path / file).read_bytes() == (finished_fold / file).read_bytes()


def test_resuming_a_checkpoint_of_another_system_is_rejected(
    noise: Any, train: Train, finished: Path, tmp_path: Path
) -> None:
    checkpoint = stored(finished, "last")
    checkpoint["ser_lightning"]["system"] = "ser_lightning.systems.SEResNetVLAD"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(ConfigurationError, match=r"SEResNetVLAD.*MetricLearning"):
        train(build(), noise(), tmp_path, max_epochs=4, resume=tmp_path / "other.ckpt")
