"""A classifier of self-supervised frames: the mix of layers, and a fold whose checkpoint has no encoder in it."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.inference.classification import Classifier
from ser_lightning.losses import WeightedCrossEntropy
from ser_lightning.nn.layer_mix import LayerMix
from ser_lightning.nn.pooling import MeanPooling
from ser_lightning.systems import PooledFrames
from ser_lightning.systems.checkpoint import CHECKPOINT_KEY
from ser_lightning.training.fold import run_fold
from tests.encoders import LAYERS, WIDTH, write_encoder

pytestmark = pytest.mark.usefixtures("small_pictures")


def arguments(root: Path, features: Path, folder: Path, encoder: Path, *more: str) -> list[str]:
    return [
        "--config=experiments/self_supervised.yaml",
        f"--data.init_args.root={root}",
        f"--data.init_args.feature_folder={features}",
        f"--data.init_args.extractor.init_args.weights={encoder}",
        "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
        "--data.init_args.protocol.init_args.blocks=even",
        "--data.init_args.protocol.init_args.num_folds=3",
        f"--model.init_args.num_layers={LAYERS}",
        "--model.init_args.projection=8",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2",
        "--trainer.logger=false",
        f"--trainer.default_root_dir={folder}",
        *more,
    ]


def test_the_mix_is_a_weighted_mean_of_layers() -> None:
    mix = LayerMix(3)
    layers = torch.randn(3, 2, 5, 4)
    frames = torch.cat(list(layers), 2)
    torch.testing.assert_close(mix(frames), layers.mean(0))
    mix.logits.data = torch.tensor([1.0, 2.0, 0.5]).log()
    torch.testing.assert_close(mix(frames), (layers[0] + 2 * layers[1] + 0.5 * layers[2]) / 3.5)
    mix(frames).sum().backward()
    assert mix.logits.grad is not None
    assert mix.logits.grad.abs().sum() > 0


def test_a_fold_learns_the_mix_and_its_checkpoint_holds_no_encoder(
    synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path
) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    fold = run_fold(arguments(synthetic_ravdess, feature_folder, tmp_path / "run", encoder))
    checkpoint = torch.load(fold / "checkpoints" / "best.ckpt", weights_only=True)
    assert not any("encoder" in name or "transformer" in name for name in checkpoint["state_dict"])
    assert checkpoint["state_dict"]["layer_mix.logits"].unique().numel() == LAYERS
    assert checkpoint["state_dict"]["projection.weight"].shape == (8, WIDTH)
    described = checkpoint[CHECKPOINT_KEY]["origin"]["extractor"]["init_args"]
    assert (described["weights"], len(described["digest"])) == (str(encoder), 64)
    table = pd.read_csv(fold / "predictions.csv").set_index("utterance")
    names = table.index[:3]
    probabilities = [column for column in table if str(column).startswith("probability_")]
    classifier = Classifier(fold / "checkpoints" / "best.ckpt", "cpu")
    for name in names:
        (clip,) = synthetic_ravdess.rglob(f"{name}.wav")
        found = torch.tensor(list(classifier.classify(clip).probabilities))
        torch.testing.assert_close(found, torch.tensor(table.loc[name, probabilities].tolist()), rtol=1e-4, atol=1e-5)


def test_another_number_of_layers_is_refused(synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    given = arguments(synthetic_ravdess, feature_folder, tmp_path / "run", encoder)
    with pytest.raises(ConfigurationError, match=rf"set --model.init_args.num_layers {LAYERS}"):
        run_fold([*given, "--model.init_args.num_layers=4"])
    with pytest.raises(ConfigurationError, match="frames have 48 features, no multiple of it"):
        PooledFrames(48, ["a", "b"], MeanPooling, WeightedCrossEntropy(), num_layers=5)
