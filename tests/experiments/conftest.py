"""Experiments, built once for all tests."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ser_lightning.training.experiment import ExperimentCLI
from tests.encoders import LAYERS, write_encoder
from tests.experiments.pairs import class_path, content


@dataclass(frozen=True)
class Built:
    """An experiment's resolved configuration and derived facts."""

    config: dict[str, Any]
    protocol: str
    class_names: list[str]
    clusters: int | None
    frames_fit: bool
    outputs: tuple[int, ...]


@pytest.fixture(scope="session")
def synthetic_corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A synthetic corpus for each data module's class path."""
    from data_modules import audio_files, crema_d, iemocap, ravdess, voxceleb2

    root = tmp_path_factory.mktemp("corpora")
    ravdess.write_synthetic(root / "RAVDESS", speakers=4, seed=0, clips_per_speaker=12)
    crema_d.write_synthetic(root / "CremaD", speakers=3, seed=0, clips_per_speaker=12)
    iemocap.write_synthetic(root / "IEMOCAP", speakers=4, seed=0, clips_per_speaker=12)
    audio_files.write_synthetic(root / "AudioFiles", speakers=3, seed=0, clips_per_speaker=12)
    voxceleb2.write_synthetic(root / "VoxCeleb2", speakers=3, seed=0, clips_per_speaker=4)
    modules = {
        "RAVDESS": ravdess,
        "CremaD": crema_d,
        "IEMOCAP": iemocap,
        "AudioFiles": audio_files,
        "VoxCeleb2": voxceleb2,
    }
    return {f"{module.__name__}.{name}": root / name for name, module in modules.items()}


def arguments(files: tuple[Path, ...], corpora: dict[str, Path]) -> list[str]:
    """Return LightningCLI's arguments for an experiment on a synthetic corpus, without W&B, with a small encoder."""
    if class_path(files[-1], "data") == "data_modules.several.SeveralCorpora":
        parts = deepcopy(content(files[-1]))["data"]["init_args"]["corpora"]
        for part in parts:
            part["init_args"]["root"] = str(corpora[part["class_path"]])
        return [f"--config={files[-1]}", f"--data.init_args.corpora={json.dumps(parts)}", "--trainer.logger=false"]
    root = corpora[class_path(files[-1], "data")]
    encoder = write_encoder(root.parent / "encoder")
    small = (f"--data.init_args.extractor.init_args.weights={encoder}", f"--model.init_args.num_layers={LAYERS}")
    text = files[0].read_text()
    more = small if "SelfSupervised" in text else ()
    if "FineTunedEncoder" in text:
        more = (f"--model.init_args.weights={encoder}",)
    return [*(f"--config={path}" for path in files), f"--data.init_args.root={root}", "--trainer.logger=false", *more]


@pytest.fixture(scope="session")
def built(synthetic_corpora: dict[str, Path]) -> Callable[[tuple[Path, ...]], Built]:
    """Builds the experiment of some files."""

    @cache
    def build(files: tuple[Path, ...]) -> Built:
        cli = ExperimentCLI(arguments(files, synthetic_corpora), run=False)
        frames, lengths = torch.zeros(1, 80, cli.model.num_features), torch.tensor([80])
        with torch.no_grad():
            outputs = cli.model.eval()(frames, lengths).shape
        pooling: nn.Module | None = getattr(cli.model, "pooling", None)
        if pooling is None and hasattr(cli.model, "network"):
            pooling = cli.model.network.pooling
        return Built(
            config=cli.configuration,
            protocol=type(cli.data.protocol).__name__,
            class_names=list(cli.data.class_names),
            clusters=getattr(pooling, "clusters", None),
            frames_fit=cli.model.num_features == cli.data.extractor.num_features,
            outputs=tuple(outputs),
        )

    return build
