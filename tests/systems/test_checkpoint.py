"""Reading of checkpoints: moved modules, damage, malformed entries and hostile content."""

import os
import random
import zipfile
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
    checkpoint: dict[str, Any] = {"state_dict": system.state_dict(), "epoch": 0}
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


def change(path: Path, *keys: str, value: object) -> None:
    """Set an entry of a saved checkpoint; ``value`` None deletes it."""
    content = inner = torch.load(path, weights_only=True)
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    torch.save(content, path)


def test_a_flipped_bit_changes_nothing_or_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    saved, whole = save(path)(FRAMES, LENGTHS), path.read_bytes()
    errors = []
    for bit in random.Random(0).sample(range(8 * len(whole)), 60):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert torch.equal(load_system(path)(FRAMES, LENGTHS), saved), bit
        except ConfigurationError as error:
            errors.append(str(error))
    assert len(errors) > 30  # the other bits are padding and dates
    assert all(error.startswith(str(path)) and "\n" not in error for error in errors)


def test_a_changed_weight_is_named(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    weights = save(path).state_dict()
    content = path.read_bytes()
    number = weights["encoder.weight_ih_l0"] if "encoder.weight_ih_l0" in weights else next(iter(weights.values()))
    raw = number.numpy().tobytes()
    path.write_bytes(content.replace(raw, bytes([raw[0] ^ 1]) + raw[1:]))
    with pytest.raises(ConfigurationError, match=r"best.ckpt is damaged: \S+ differs from its checksum"):
        read_checkpoint(path)


def looped() -> list[object]:
    """Return a list that contains itself."""
    content: list[object] = []
    content.append(content)
    return content


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("state_dict",), None, "state_dict"),
        (("state_dict",), {"a": 1}, "state_dict"),
        (("epoch",), "3", "epoch is '3'"),
        (("ser_lightning",), [], "ser_lightning has no keys"),
        (("ser_lightning", "system"), None, "system is None"),
        (("ser_lightning", "class_names"), None, "class_names is None"),
        (("ser_lightning", "class_names"), [1, 2], "class_names is"),
        (("ser_lightning", "configuration"), 5, "configuration is 5"),
        (("ser_lightning", "origin"), None, "origin is None"),
        (("ser_lightning", "origin", "training_speakers"), 5, "training_speakers is 5"),
        (("ser_lightning", "origin", "earlier"), [5], "origin is 5"),
        (("ser_lightning", "origin", "earlier"), looped(), "levels"),
        (("hyper_parameters",), looped(), "levels"),
        (("ser_lightning", "configuration", "init_args", "depth"), 5, "depth"),
        (("ser_lightning", "configuration", "init_args", "cells"), "many", "cells"),
        (("ser_lightning", "configuration", "init_args", "cells"), 4, "size mismatch"),
        (("state_dict", "renamed"), torch.ones(1), "renamed"),
        (("state_dict", "class_prior"), None, "class_prior"),
    ],
)
def test_a_malformed_entry_is_named_in_one_line(
    keys: tuple[str, ...], value: object, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    save(path)
    change(path, *keys, value=value)
    with pytest.raises(ConfigurationError, match=named) as caught:
        load_system(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Command:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def test_a_refused_pickle_comes_without_advice_to_trust_it(tmp_path: Path) -> None:
    torch.save({"state_dict": Command()}, tmp_path / "best.ckpt")
    with pytest.raises(ConfigurationError, match=r"posix.system|os.system|nt.system") as caught:
        read_checkpoint(tmp_path / "best.ckpt")
    assert not any(word in str(caught.value) for word in ("weights_only", "add_safe_globals", "torch.load"))


@pytest.mark.parametrize("kind", ["encrypted", "compressed", "repeated"])
def test_an_archive_that_torch_did_not_write_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    method = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        if kind == "encrypted":
            archive.filelist[0].flag_bits |= 1
        if kind == "repeated":  # many parts at one place expand to any size
            archive.filelist += archive.filelist * 20
    with pytest.raises(ConfigurationError, match="encrypted" if kind == "encrypted" else "not a checkpoint"):
        read_checkpoint(path)
