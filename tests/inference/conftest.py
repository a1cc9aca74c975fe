"""Checkpoints of all systems, untrained and small, as training leaves them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.nn import functional as F

from ser_lightning.features import FeatureExtractor, LogMelFilterbank
from ser_lightning.nn.standardisation import Standardisation
from ser_lightning.nn.support_vectors import SupportVectorMachine
from ser_lightning.systems import EmotionClassifier

EMOTIONS = ["neutral", "happy", "sad", "angry"]
LOSSES, POOLING = "ser_lightning.losses", "ser_lightning.nn.pooling"
CROSS_ENTROPY = {"class_path": f"{LOSSES}.WeightedCrossEntropy"}
EXISTENCE = {"class_path": f"{LOSSES}.ExistenceLoss"}
AM_SOFTMAX = {"class_path": f"{LOSSES}.AMSoftmax", "init_args": {"margin": 0.2, "scale": 10.0}}
ANDO = {"criterion": CROSS_ENTROPY, "channels": [2, 3, 4], "cells": 4, "attention_dim": 5, "hidden_dim": 6}


def pooling(name: str, **arguments: int) -> dict[str, Any]:
    return {"class_path": f"{POOLING}.{name}", "init_args": arguments}


def huang(name: str, **arguments: int) -> tuple[str, dict[str, Any]]:
    return "ser_lightning.systems.PooledLSTM", {
        "pooling": pooling(name, **arguments),
        "criterion": CROSS_ENTROPY,
        "cells": 8,
    }


def zhou(name: str, criterion: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    widths = {"channels": [4, 4, 4, 4, 4, 4], "cells": 4}
    return "ser_lightning.systems.ConvBLSTMAttention", {
        "pooling": pooling(name),
        "criterion": criterion,
        **widths,
        **more,
    }


def mocanu(
    system: str, aggregation: dict[str, Any], normalisation: str = "per_frame", **more: Any
) -> tuple[str, dict[str, Any]]:
    encoder = {"class_path": "ser_lightning.nn.encoders.ThinSEResNet34", "init_args": {"channels": 4}}
    return f"ser_lightning.systems.{system}", {
        "encoder": encoder,
        "pooling": aggregation,
        "normalisation": normalisation,
        "embedding_dim": 8,
        **more,
    }


TRIPLETS = {"metric_loss": {"class_path": f"{LOSSES}.TripletLoss", "init_args": {"margin": 0.2}}}
SYSTEMS = {
    "huang_final": huang("FinalPooling"),
    "huang_max": huang("MaxPooling"),
    "huang_mean": huang("MeanPooling"),
    "huang_weighted": huang("WeightedPooling"),
    "huang_netvlad": huang("NetVLAD", clusters=3),
    "pooled_frames": (
        "ser_lightning.systems.PooledFrames",
        {"pooling": pooling("NetVLAD", clusters=3), "criterion": CROSS_ENTROPY, "num_layers": 4},
    ),
    "zhou_baseline": zhou("WeightedPooling", CROSS_ENTROPY),
    "zhou_trimmed": zhou("WeightedPooling", CROSS_ENTROPY, max_frames=150),
    "zhou_padded": zhou("WeightedPooling", CROSS_ENTROPY, max_frames=150, pad_to_max=True),
    "zhou_combined": zhou("AttentiveStatisticsPooling", AM_SOFTMAX),
    "ando_dominant": ("ser_lightning.systems.DominantEmotionRecognition", ANDO),
    "ando_mlee": ("ser_lightning.systems.MultiLabelEmotionExistence", {**ANDO, "criterion": EXISTENCE}),
    "ando_pretraining": ("ser_lightning.systems.ExistencePretraining", ANDO),
    "ando_fusion": ("ser_lightning.systems.ExistencePretraining", {**ANDO, "fusion": True}),
    "mocanu_s2": mocanu("SEResNetVLAD", pooling("NetVLAD", clusters=3), criterion=CROSS_ENTROPY),
    "mocanu_am": mocanu("SEResNetVLAD", pooling("NetVLAD", clusters=3), "per_bin", criterion=AM_SOFTMAX),
    "mocanu_s3": mocanu(
        "SEResNetVLAD", pooling("GhostVLAD", clusters=3, ghosts=2), "per_spectrogram", criterion=CROSS_ENTROPY
    ),
    "mocanu_means": mocanu("MetricLearning", pooling("NetVLAD", clusters=3), "none", **TRIPLETS),
    "mocanu_svm": mocanu("MetricLearning", pooling("NetVLAD", clusters=3), **TRIPLETS),
    "speakers": mocanu("SpeakerIdentification", pooling("NetVLAD", clusters=3), criterion=CROSS_ENTROPY),
}

# Each of their parts is in another system too, or differs from it by a number.
REPEATED = (
    "huang_final",
    "huang_max",
    "huang_mean",
    "huang_weighted",
    "zhou_trimmed",
    "zhou_baseline",
    "ando_dominant",
    "ando_pretraining",
    "mocanu_s2",
    "mocanu_am",
)
CLASSIFIERS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in REPEATED else []) for name in SYSTEMS if name != "speakers"
]

Save = Callable[..., Path]


@pytest.fixture(scope="session", params=CLASSIFIERS)
def system_name(request: pytest.FixtureRequest) -> str:
    """Each system that classifies emotions; those without a part of their own are slow."""
    return str(request.param)


@pytest.fixture(scope="session")
def save() -> Save:
    """Return a function that writes a system's checkpoint and returns its path."""

    def write(
        path: Path,
        name: str = "huang_mean",
        extractor: FeatureExtractor | None = None,
        configuration: tuple[str, dict[str, Any]] | None = None,
        corpus: str = "ravdess",
        seed: int = 0,
    ) -> Path:
        extractor = extractor or LogMelFilterbank()
        class_path, arguments = configuration or SYSTEMS[name]
        arguments = {"num_features": extractor.num_features, "class_names": EMOTIONS, **arguments}
        torch.manual_seed(seed)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(EmotionClassifier, "system")
        found = parser.parse_object({"system": {"class_path": class_path, "init_args": arguments}})
        system: EmotionClassifier = parser.instantiate_classes(found).system
        noise = torch.Generator().manual_seed(0)
        for module in system.modules():
            if isinstance(module, Standardisation):
                ones = torch.ones(extractor.num_features)
                module.fit(SimpleNamespace(mean=-9 * ones, deviation=3 * ones))
            if hasattr(module, "running_variance"):
                module.running_mean.copy_(torch.rand(module.running_mean.shape, generator=noise))
                module.running_variance.copy_(torch.rand(module.running_mean.shape, generator=noise) + 0.5)
                torch.nn.init.ones_(module.bias)  # so that some of the few units are active
            if isinstance(module, SupportVectorMachine) and name == "mocanu_svm":
                fit(module, noise)
        system.configuration = {"class_path": class_path, "init_args": arguments}
        system.origin = {"corpus": corpus, "extractor": extractor.configuration(), "training_speakers": ["01"]}
        checkpoint: dict[str, Any] = {"state_dict": system.state_dict(), "epoch": 3}
        system.on_save_checkpoint(checkpoint)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)
        return path

    return write


def fit(svm: SupportVectorMachine, noise: torch.Generator) -> None:
    """Fit ``svm`` with random support vectors of eight channels, without the third class."""

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=noise, dtype=torch.float64)

    svm.fit(
        support_vectors=F.normalize(normal(9, 8), dim=1),
        dual_coefficients=normal(2, 9),
        n_support=torch.tensor([3, 4, 2]),
        intercepts=normal(3),
        gamma=0.7,
        classes=torch.tensor([0, 1, 3]),
        slopes=-2 + 0.3 * normal(3),
        offsets=normal(3),
    )
