"""An encoder that is trained on: batch mates, learning rates by layer, low-rank changes, a fold and its checkpoint."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ser_lightning.encoder_files import digest_of, load_encoder
from ser_lightning.errors import ConfigurationError
from ser_lightning.inference.classification import Classifier
from ser_lightning.losses import WeightedCrossEntropy
from ser_lightning.nn.pooling import MeanPooling
from ser_lightning.systems import FineTunedEncoder
from ser_lightning.training.fold import run_fold
from tests.encoders import LAYERS, write_encoder

pytestmark = pytest.mark.usefixtures("small_pictures")

FAMILIES = ("wav2vec2", "wavlm")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("encoders")
    return {family: str(write_encoder(folder / family, family)) for family in FAMILIES}


class HaltError(Exception):
    """Training was killed."""


def halt_in_second_epoch(system: FineTunedEncoder) -> None:
    if system.current_epoch == 1:
        raise HaltError


def build(encoder: str, **arguments: Any) -> FineTunedEncoder:
    torch.manual_seed(0)
    given: dict[str, Any] = {"projection": 8, **arguments}
    return FineTunedEncoder(1, ["a", "b", "c"], encoder, MeanPooling, WeightedCrossEntropy(), **given)


def arguments(root: Path, features: Path, folder: Path, encoder: str, *more: str) -> list[str]:
    return [
        "--config=experiments/fine_tuned.yaml",
        f"--data.init_args.root={root}",
        f"--data.init_args.feature_folder={features}",
        "--data.init_args.crop_frames=4000",
        "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
        "--data.init_args.protocol.init_args.blocks=even",
        "--data.init_args.protocol.init_args.num_folds=3",
        f"--model.init_args.weights={encoder}",
        "--model.init_args.projection=8",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        f"--trainer.default_root_dir={folder}",
        *more,
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rank", [0, 2])
def test_batch_mates_change_nothing(encoders: dict[str, str], family: str, rank: int) -> None:
    system = build(encoders[family], lora_rank=rank).eval()
    lengths = torch.tensor([3000, 100, 5000, 3000])
    waveforms = torch.randn(4, 5000, 1)
    for waveform, length in zip(waveforms, lengths, strict=True):
        waveform[length:] = 0
    with torch.no_grad():
        together = system(waveforms, lengths)
        for row, length in enumerate(lengths):
            alone = system(waveforms[row : row + 1, :length], length[None])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_changes_are_zero_at_first_and_alone_are_trained(encoders: dict[str, str], family: str) -> None:
    changed, plain = (build(encoders[family], lora_rank=rank).eval() for rank in (2, 0))
    waveforms, lengths = torch.randn(2, 4000, 1), torch.tensor([4000, 4000])
    names = {name for name, parameter in changed.encoder.named_parameters() if parameter.requires_grad}
    per_layer = 2 * (1 if family == "wavlm" else 2)  # up and down, of one joint projection or of query and value
    assert len(names) == per_layer * LAYERS
    assert all(name.endswith((".0.up", ".0.down")) for name in names)
    originals = dict(plain.encoder.named_parameters())
    for name, parameter in changed.encoder.named_parameters():
        if name.endswith(".original"):
            name = name.replace("parametrizations.", "").removesuffix(".original")
            assert torch.equal(parameter, originals[name])
    changed(waveforms, lengths).square().sum().backward()
    gradients = [p.grad for name, p in changed.encoder.named_parameters() if name.endswith(".up")]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_lower_layers_learn_more_slowly_and_convolutions_do_not(encoders: dict[str, str]) -> None:
    system = build(encoders["wavlm"], encoder_rate=0.1, layer_decay=0.5)
    optimizer = system.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates.get(id(p)) for name, p in system.named_parameters()}
    top = found["projection.weight"]
    assert top == found["layer_mix.logits"] == 1e-3
    layers = [found[f"encoder.encoder.transformer.layers.{layer}.final_layer_norm.weight"] for layer in range(LAYERS)]
    assert layers == pytest.approx([top * 0.1 * 0.5 ** (LAYERS - 1 - layer) for layer in range(LAYERS)])
    assert found["encoder.encoder.feature_projection.projection.weight"] == pytest.approx(top * 0.1 * 0.5**LAYERS)
    assert {rate for name, rate in found.items() if "feature_extractor" in name} == {None}


@pytest.mark.parametrize("rank", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_fold_starts_from_the_weights_resumes_exactly_and_needs_no_encoder_later(
    encoders: dict[str, str],
    rank: int,
    synthetic_ravdess: Path,
    feature_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = tmp_path / "wavlm"
    shutil.copytree(encoders["wavlm"], encoder)
    more = f"--model.init_args.lora_rank={rank}"

    def train(folder: str, epochs: int, *others: str) -> Path:
        given = arguments(synthetic_ravdess, feature_folder, tmp_path / folder, str(encoder), more, *others)
        return run_fold([*given, f"--trainer.max_epochs={epochs}"])

    whole = train("whole", 2)
    with monkeypatch.context() as patch:
        patch.setattr(FineTunedEncoder, "on_train_epoch_start", halt_in_second_epoch)
        with pytest.raises(HaltError):
            train("cut", 2)
    cut = train("cut", 2)
    for name in ("best", "last"):
        one, other = (
            torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
            for folder in (whole, cut)
        )
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert (whole / "metrics.csv").read_bytes() == (cut / "metrics.csv").read_bytes()
    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    pretrained = load_encoder(encoder, digest_of(encoder), torch.device("cpu")).state_dict()
    kept = "feature_extractor.conv_layers.0.conv.weight"
    assert torch.equal(state[f"encoder.{kept}"], pretrained[kept])
    moved = "encoder.transformer.layers.2.feed_forward.output_dense.weight"
    assert torch.equal(state[f"encoder.{moved}"], pretrained[moved]) is bool(rank)
    (clip, *_) = sorted(synthetic_ravdess.rglob("*.wav"))
    (encoder / "model.safetensors").unlink()
    assert Classifier(whole / "checkpoints" / "best.ckpt", "cpu").classify(clip).emotion
    (encoder / "config.json").unlink()
    encoder.rmdir()
    with pytest.raises(ConfigurationError, match=r"there is no .*wavlm"):
        train("later", 1)


def test_frames_of_an_extractor_are_refused(encoders: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"have 40 features; set .*Waveform"):
        FineTunedEncoder(40, ["a", "b"], encoders["wavlm"], MeanPooling, WeightedCrossEntropy())
    with pytest.raises(ConfigurationError, match=r"layer_decay 1\.5"):
        build(encoders["wavlm"], layer_decay=1.5)
