"""Checkpoints survive moves of modules; those that name modules are rejected."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogMelFilterbank, build_extractor
from ser_lightning.losses import AMSoftmax
from ser_lightning.nn.pooling import MeanPooling
from ser_lightning.systems import MultiLabelEmotionExistence, PooledLSTM, huang2020
from ser_lightning.systems.checkpoint import load_system, read_checkpoint
from ser_lightning.systems.stages import read_stage

FRAMES, LENGTHS = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([9, 7])


def save(path: Path) -> PooledLSTM:
    system = PooledLSTM(4, ["calm", "angry"], MeanPooling, AMSoftmax(), cells=3).eval()
    parts = {"pooling": "ser_lightning.nn.pooling.MeanPooling", "criterion": "ser_lightning.losses.AMSoftmax"}
    arguments = {"num_features": 4, "class_names": ["calm", "angry"], "cells": 3, **parts}
    system.configuration = {"class_path": "ser_lightning.systems.PooledLSTM", "init_args": arguments}
    system.origin = {"extractor": LogMelFilterbank(num_mels=4).configuration()}
    checkpoint: dict[str, Any] = {"state_dict": system.state_dict()}
    system.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return system


def test_a_checkpoint_is_read_after_its_classes_have_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = save(tmp_path / "best.ckpt")
    for kind, module in (
        (PooledLSTM, "ser_lightning.systems.elsewhere"),
        (MeanPooling, "ser_lightning.nn.pooling.elsewhere"),
        (AMSoftmax, "ser_lightning.losses.elsewhere"),
        (LogMelFilterbank, "ser_lightning.features.elsewhere"),
    ):
        monkeypatch.setattr(kind, "__module__", module)
    monkeypatch.delattr(huang2020, "PooledLSTM")
    loaded = load_system(tmp_path / "best.ckpt")
    assert torch.equal(loaded(FRAMES, LENGTHS), saved(FRAMES, LENGTHS))
    assert build_extractor(loaded.origin["extractor"]).num_features == 4


@pytest.mark.parametrize("module", ["huang2020", "gone"])
def test_a_checkpoint_that_names_modules_is_refused(module: str, tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    save(path)
    content = torch.load(path, weights_only=True)
    content["ser_lightning"]["system"] = f"ser_lightning.systems.{module}.PooledLSTM"
    torch.save(content, path)
    named = rf"old.ckpt.* ser_lightning.systems.{module}.PooledLSTM .*ser_lightning.systems.PooledLSTM"
    with pytest.raises(ConfigurationError, match=named):
        read_checkpoint(path)
    with pytest.raises(ConfigurationError, match=named):
        read_stage(path, "existence_checkpoint", MultiLabelEmotionExistence)
