"""Mocanu et al. 2021, S1 to S3: invariances, and which weights of earlier stages are loaded or rejected."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import AMSoftmax, Criterion, TripletLoss, WeightedCrossEntropy
from ser_lightning.nn.encoders import ThinSEResNet34
from ser_lightning.nn.heads import CosineHead
from ser_lightning.nn.pooling import GhostVLAD, NetVLAD
from ser_lightning.systems import MetricLearning, SEResNetVLAD, SpeakerIdentification
from ser_lightning.types import Batch

pytestmark = pytest.mark.usefixtures("small_pictures")

EMOTIONS = ("neutral", "happy", "sad", "angry")
SPEAKERS = ("01", "02", "03", "04", "05", "06")
NUM_BINS = 34
LENGTHS = torch.tensor([60, 21, 1, 33])
Train = Callable[..., Trainer]


def narrow(num_features: int) -> ThinSEResNet34:
    return ThinSEResNet34(num_features, channels=2)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=5e-3)


def three(dim: int) -> NetVLAD:
    return NetVLAD(dim, 3)


def three_and_two_ghosts(dim: int) -> GhostVLAD:
    return GhostVLAD(dim, 3, 2)


def build(pooling: Any = three, criterion: Criterion | None = None, encoder: Any = narrow, **more: Any) -> SEResNetVLAD:
    torch.manual_seed(0)
    settled: dict[str, Any] = {"normalisation": "per_frame", "optimizer": adam, "embedding_dim": 6}
    return SEResNetVLAD(
        NUM_BINS, EMOTIONS, encoder, pooling, criterion or WeightedCrossEntropy("none"), **settled | more
    )


def metric_learning(pooling: Any = three_and_two_ghosts, **more: Any) -> MetricLearning:
    torch.manual_seed(0)
    settled: dict[str, Any] = {"normalisation": "per_frame", "optimizer": adam, "embedding_dim": 6}
    return MetricLearning(NUM_BINS, EMOTIONS, narrow, pooling, lambda c: TripletLoss(c, 0.2), **settled | more)


def speaker_identification(encoder: Any = narrow, pooling: Any = three, **more: Any) -> SpeakerIdentification:
    torch.manual_seed(1)
    settled: dict[str, Any] = {"normalisation": "per_frame", "optimizer": adam, "embedding_dim": 6}
    criterion = WeightedCrossEntropy("none")
    return SpeakerIdentification(NUM_BINS, SPEAKERS, encoder, pooling, criterion, **settled | more)


def settle(model: nn.Module) -> None:
    """Let batch norms shift and scale, so that zeros do not stay zero."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if "norm" in name:
                tensor.uniform_(0.5, 1.5)


SYSTEMS: dict[str, Callable[[], SEResNetVLAD]] = {
    "S1": build,
    "S3": lambda: build(three_and_two_ghosts),
    "S3, AM-softmax": lambda: build(three_and_two_ghosts, AMSoftmax(10.0, 0.3)),
}


@pytest.fixture(params=SYSTEMS)
def model(request: pytest.FixtureRequest) -> SEResNetVLAD:
    model = SYSTEMS[request.param]()
    settle(model)
    return model


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(4, 60, NUM_BINS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).abs()


@pytest.mark.usefixtures("all_layers")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_padding_batch_mates_and_order_never_change_a_prediction(
    model: SEResNetVLAD, dtype: torch.dtype, tolerance: float, frames: Tensor
) -> None:
    model, frames = model.to(dtype).eval(), frames.to(dtype)
    together = model(frames, LENGTHS)
    assert together.std(0).max() > 10 * tolerance
    reordered = model(frames.flip(0), LENGTHS.flip(0)).flip(0)
    longer = model(torch.cat([frames, torch.full((4, 30, NUM_BINS), 1e4, dtype=dtype)], 1), LENGTHS)
    torch.testing.assert_close(reordered, together, atol=tolerance, rtol=0)
    torch.testing.assert_close(longer, together, atol=tolerance, rtol=0)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(frames[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=tolerance, rtol=0)


def test_loudness_never_changes_a_prediction(model: SEResNetVLAD, frames: Tensor) -> None:
    model.double().eval()
    # A single frame has no deviation; it is zero either way.
    torch.testing.assert_close(model(7 * frames + 3, LENGTHS), model(frames, LENGTHS), atol=1e-8, rtol=0)


def test_a_step_predicts_by_logits_and_returns_embeddings(model: SEResNetVLAD, frames: Tensor) -> None:
    model.eval()
    rows = torch.arange(4)
    outputs = model.validation_step(Batch(frames.float(), LENGTHS, rows, torch.eye(4), rows + 7), 0)
    logits = model(frames.float(), LENGTHS)
    assert outputs["indices"].tolist() == [7, 8, 9, 10]
    assert torch.equal(outputs["predicted"], logits.argmax(1))
    torch.testing.assert_close(outputs["probabilities"], model.criterion.probabilities(logits))
    torch.testing.assert_close(outputs["probabilities"].sum(1), torch.ones(4))
    assert outputs["embeddings"].shape == (4, 6)
    torch.testing.assert_close(model.output(outputs["embeddings"]), logits)


def test_am_softmax_works_on_cosines_and_predicts_with_its_scale(frames: Tensor) -> None:
    model = SYSTEMS["S3, AM-softmax"]().double().eval()
    assert isinstance(model.output[1], CosineHead)
    cosines = model(frames, LENGTHS)
    assert (cosines.abs() <= 1).all()
    torch.testing.assert_close(model.criterion.probabilities(cosines), F.softmax(10 * cosines.float(), 1))


def test_gradients_reach_every_parameter(model: SEResNetVLAD, frames: Tensor) -> None:
    model.double()
    model.criterion(model(frames, LENGTHS), torch.eye(4, dtype=torch.float64), model.class_prior).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_network_ends_in_two_layers_of_the_papers_sizes() -> None:
    model = SEResNetVLAD(
        257, EMOTIONS, ThinSEResNet34, lambda dim: GhostVLAD(dim, 8, 2), WeightedCrossEntropy(), "none"
    )
    assert model.network.pooling.output_dim == 8 * 512
    assert (model.network.connected.in_features, model.network.connected.out_features) == (8 * 512, 512)
    assert (model.output[1].in_features, model.output[1].out_features) == (512, 4)


@pytest.fixture(scope="module")
def stages(noise: Any, train: Train, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of earlier stages: on another corpus's speakers, and on folds of this corpus."""
    folder = tmp_path_factory.mktemp("stages")
    foreign = {"corpus_name": "voices", "recognise": "speaker"}

    def keep(name: str, system: LightningModule, data: Any) -> None:
        train(system, data, folder / name).save_checkpoint(folder / f"{name}.ckpt")

    keep("speakers", speaker_identification(), noise(**foreign))
    keep("ghosts", speaker_identification(pooling=three_and_two_ghosts), noise(**foreign))
    wider = speaker_identification(lambda dim: ThinSEResNet34(dim, channels=8))
    keep("wider", wider, noise(**foreign))
    keep("own_speakers", speaker_identification(), noise(recognise="speaker"))
    keep("fold_0", build(), noise(fold=0))
    few = noise(fold=0)
    few.keep("train", lambda utterance: utterance.speaker in ("05", "06"))
    keep("later", build(pretrained_checkpoint=folder / "fold_0.ckpt"), few)  # itself trained only on 05 and 06
    return {path.stem: path for path in folder.glob("*.ckpt")}


class Start(Callback):
    """Keeps the initial weights of training."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        trainer.should_stop = True


def start(system: LightningModule, data: Any, monkeypatch: pytest.MonkeyPatch, train: Train, folder: Path) -> Start:
    """Return the weights that training of ``system`` starts with."""
    begun = Start()
    monkeypatch.setattr(system, "configure_callbacks", lambda: [begun])
    train(system, data, folder)
    return begun


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that stages log."""
    lines: list[str] = []
    monkeypatch.setattr("ser_lightning.systems.stages.rank_zero_info", lines.append)
    return lines


@pytest.mark.parametrize("make", [build, metric_learning])
def test_a_netvlad_checkpoint_starts_a_ghostvlad_with_new_ghosts(
    make: Any, stages: Any, noise: Any, train: Train, said: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    fresh = make(three_and_two_ghosts, pretrained_checkpoint=stages["speakers"])
    own = {name: value.clone() for name, value in fresh.state_dict().items()}
    weights = start(fresh, noise(), monkeypatch, train, tmp_path).weights
    there = torch.load(stages["speakers"], weights_only=True)["state_dict"]
    ghosts = {name for name in own if name.startswith("network.pooling.ghost")}
    assert ghosts == {f"network.pooling.ghost_assignment.{kind}" for kind in ("weight", "bias")}, ghosts
    for name, value in weights.items():
        source = there if name.startswith("network.") and name not in ghosts else own
        if name != "class_prior":
            assert torch.equal(value, source[name]), name
    (lines,) = said
    assert f"weights of {stages['speakers']}:" in lines
    assert "2 newly initialised, because the checkpoint lacks them: " in lines
    assert "pooling.ghost" in lines
    assert "of layers of another shape" not in lines
    assert "of the checkpoint alone" not in lines


@pytest.mark.parametrize("make", [build, metric_learning])
def test_pre_trained_ghosts_are_loaded_to_the_bit(
    make: Any, stages: Any, noise: Any, train: Train, said: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    system = make(three_and_two_ghosts, pretrained_checkpoint=stages["ghosts"])
    fresh = {name: value.clone() for name, value in system.state_dict().items()}
    weights = start(system, noise(), monkeypatch, train, tmp_path).weights
    there = torch.load(stages["ghosts"], weights_only=True)["state_dict"]
    network = [name for name in weights if name.startswith("network.")]
    assert all(torch.equal(weights[name], there[name]) for name in network)
    ghost = "network.pooling.ghost_assignment.weight"
    assert ghost in network
    assert not torch.equal(fresh[ghost], there[ghost])
    (lines,) = said
    assert "newly initialised" not in lines


def test_with_other_clusters_all_other_weights_are_loaded(
    stages: Any, noise: Any, train: Train, said: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    system = build(lambda dim: NetVLAD(dim, 5), pretrained_checkpoint=stages["speakers"])
    own = {name: value.clone() for name, value in system.state_dict().items()}
    weights = start(system, noise(), monkeypatch, train, tmp_path).weights
    there = torch.load(stages["speakers"], weights_only=True)["state_dict"]
    sized = {f"network.{name}" for name in ("pooling.assignment.weight", "pooling.assignment.bias", "pooling.centres")}
    sized |= {"network.connected.weight", "network.connected.bias"}  # the bias fits, but its layer does not
    for name, value in weights.items():
        if name.startswith("network."):
            assert torch.equal(value, (own if name in sized else there)[name]), name
    (lines,) = said
    assert "5 newly initialised, because the checkpoint's layer has another shape: " in lines
    assert "not there" not in lines


def test_ghosts_of_a_ghostvlad_are_unused_in_a_netvlad(
    noise: Any, train: Train, said: list[str], tmp_path: Path
) -> None:
    train(build(three_and_two_ghosts), noise(corpus_name="other"), tmp_path / "first")
    source = tmp_path / "first" / "checkpoints" / "best.ckpt"
    train(build(three, pretrained_checkpoint=source), noise(), tmp_path / "second")
    assert "2 only in the checkpoint, and not used: pooling.ghost" in said[0]


def test_nothing_that_fits_is_an_error(stages: Any, noise: Any, train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"wider\.ckpt .*SpeakerIdentification"):
        train(build(pretrained_checkpoint=stages["wider"]), noise(), tmp_path)


def test_a_missing_or_unsuitable_stage_is_rejected(stages: Any, noise: Any, train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pretrained_checkpoint .*gone\.ckpt"):
        train(build(pretrained_checkpoint=tmp_path / "gone.ckpt"), noise(), tmp_path)
    trainer = train(metric_learning(), noise(corpus_name="other"), tmp_path / "metric")
    trainer.save_checkpoint(tmp_path / "metric.ckpt")
    named = r"metric\.ckpt.*MetricLearning.*SpeakerIdentification.*SEResNetVLAD"
    with pytest.raises(ConfigurationError, match=named):
        train(build(pretrained_checkpoint=tmp_path / "metric.ckpt"), noise(), tmp_path / "a")
    train(metric_learning(pretrained_checkpoint=tmp_path / "metric.ckpt"), noise(), tmp_path / "b")
    with pytest.raises(ConfigurationError, match=r"speakers\.ckpt .*0\.004.*0\.003"):
        train(build(pretrained_checkpoint=stages["speakers"]), noise(window_seconds=0.003), tmp_path / "c")


@pytest.mark.parametrize(("earlier", "named"), [({"normalisation": "per_bin"}, "per_bin"), ({}, "not given")])
def test_a_stage_with_another_normalisation_is_rejected(
    earlier: dict[str, str], named: str, stages: Any, noise: Any, train: Train, tmp_path: Path
) -> None:
    checkpoint = torch.load(stages["speakers"], weights_only=True)
    system = build(pretrained_checkpoint=tmp_path / "other.ckpt")
    system.configuration = {"init_args": {"normalisation": "per_frame"}}
    checkpoint["ser_lightning"]["configuration"] = {"init_args": earlier}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(ConfigurationError, match=rf"other\.ckpt .*normalisation {named}.*per_frame"):
        train(system, noise(), tmp_path)


@pytest.mark.parametrize("make", [build, metric_learning])
@pytest.mark.parametrize(
    ("source", "fold", "named"),
    [
        ("own_speakers", 0, r"own_speakers\.ckpt .*trained on 02\b.*validation"),
        ("fold_0", 2, r"fold_0\.ckpt .*trained on 04\b.*validation"),
        ("later", 2, r"later\.ckpt .*trained on 04\b.*validation"),
    ],
)
def test_a_stage_trained_on_evaluation_speakers_is_rejected(
    make: Any, source: str, fold: int, named: str, stages: Any, noise: Any, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        train(make(three, pretrained_checkpoint=stages[source]), noise(fold=fold), tmp_path)


def test_a_test_speaker_two_stages_earlier_is_enough_to_reject(
    stages: Any, noise: Any, train: Train, tmp_path: Path
) -> None:
    data = noise(fold=3)
    data.own_split = type(data.own_split)(3, data.own_split.train, noise(fold=0).split().validation, data.split().test)
    with pytest.raises(ConfigurationError, match=r"later\.ckpt .*trained on 04\b.*test"):
        train(metric_learning(three, pretrained_checkpoint=stages["later"]), data, tmp_path)


def test_a_chain_of_stages_records_all_speakers(stages: Any, noise: Any, train: Train, tmp_path: Path) -> None:
    second = build(pretrained_checkpoint=stages["speakers"])
    train(second, noise(), tmp_path / "second").save_checkpoint(tmp_path / "second.ckpt")
    third = metric_learning(pretrained_checkpoint=tmp_path / "second.ckpt")
    train(third, noise(), tmp_path / "third")
    origin = torch.load(tmp_path / "third" / "checkpoints" / "best.ckpt", weights_only=True)["ser_lightning"]["origin"]
    (before,) = origin["earlier"]
    (first,) = before["earlier"]
    assert [one["corpus"] for one in (origin, before, first)] == ["noise", "noise", "voices"]
    assert first["training_speakers"] == list(SPEAKERS)
    assert "earlier" not in first


@pytest.mark.parametrize("cut", [pytest.param((0, 2), marks=pytest.mark.slow), (1, 1)])
def test_fine_tuning_resumes_without_its_first_checkpoint(
    cut: tuple[int, int], stages: Any, noise: Any, train: Train, halt: Any, said: list[str], tmp_path: Path
) -> None:
    source = tmp_path / "source.ckpt"
    source.write_bytes(stages["speakers"].read_bytes())
    train(build(pretrained_checkpoint=source), noise(), tmp_path / "calm", max_epochs=3)
    with pytest.raises(halt):
        train(build(pretrained_checkpoint=source), noise(), tmp_path / "cut", max_epochs=3, halt=cut)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    if last.exists():  # else training starts again
        source.unlink()
    resume = last if last.exists() else None
    train(build(pretrained_checkpoint=source), noise(), tmp_path / "cut", max_epochs=3, resume=resume)
    assert len(said) == (2 if resume else 3)
    one, other = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("calm", "cut")
    )
    assert one["ser_lightning"] == other["ser_lightning"]
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


class Rates(Callback):
    """Keeps the learning rate of each epoch."""

    def __init__(self) -> None:
        self.of_epoch: dict[int, float] = {}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.of_epoch[trainer.current_epoch] = trainer.optimizers[0].param_groups[0]["lr"]


class TinyNetwork(SEResNetVLAD):
    """Skip everything but the schedule, to save time."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.output[1].weight.square().sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        self.evaluation_scores.update(batch.labels, batch.labels)
        self.evaluation_loss.update(torch.zeros(()))
        return {}

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("validation")


def test_the_rate_drops_tenfold_on_schedule_despite_resume(
    noise: Any, train: Train, halt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def by_ten(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.StepLR:
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)

    def run(folder: Path, **options: Any) -> dict[int, float]:
        torch.manual_seed(0)
        criterion = WeightedCrossEntropy("none")
        system = TinyNetwork(
            NUM_BINS, EMOTIONS, narrow, three, criterion, "per_frame", adam, scheduler=by_ten, embedding_dim=3
        )
        rates = Rates()
        monkeypatch.setattr(system, "configure_callbacks", lambda: [rates])
        with contextlib.suppress(halt):
            train(system, noise(), folder, max_epochs=5, **options)
        return rates.of_epoch

    calm = run(tmp_path / "calm")
    expected = {epoch: 5e-3 * 0.1 ** (epoch // 2) for epoch in range(5)}
    assert calm == pytest.approx(expected, rel=1e-9)
    weights = torch.load(tmp_path / "calm" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    # In the epoch after a division of the rate, in the one before, and elsewhere.
    for cut in ((2, 0), (1, 2), (3, 1), (4, 3)):
        folder = tmp_path / f"cut_{cut[0]}_{cut[1]}"
        begun = run(folder, halt=cut)
        rest = run(folder, resume=folder / "checkpoints" / "last.ckpt")
        assert begun | rest == calm, cut
        again = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name, value in weights.items():
            assert torch.equal(value, again[name]), (cut, name)


def test_a_constant_rate_needs_no_schedule() -> None:
    optimizer = build().configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train(precision: Any, noise: Any, train: Train, tmp_path: Path) -> None:
    train(build(three_and_two_ghosts), noise(), tmp_path, max_epochs=2, precision=precision)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table.notna().all(axis=None), table
    weights = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.slow
def test_s1_overfits_a_tiny_corpus(noise: Any, train: Train, tmp_path: Path) -> None:
    data = noise()
    data.keep("train", lambda utterance: utterance.speaker in ("03", "04"))
    system = build(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2))
    train(system, data, tmp_path, max_epochs=60)
    right, total = 0, 0
    with torch.no_grad():
        for batch in data.evaluation_dataloader("train"):
            right += int((system.eval()(batch.inputs, batch.lengths).argmax(1) == batch.labels).sum())
            total += batch.size
    assert right == total == 16, f"{right} of {total}"
