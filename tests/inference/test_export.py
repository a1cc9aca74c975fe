"""An ONNX file computes the same as its checkpoint; systems without an ONNX counterpart are rejected."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from ser_lightning.cli.__main__ import main
from ser_lightning.features import LogMelFilterbank, build_extractor
from ser_lightning.inference import export as module
from ser_lightning.inference.classification import batch_of
from ser_lightning.inference.ensemble import Ensemble
from ser_lightning.inference.export import export
from ser_lightning.nn.pooling import MeanPooling
from ser_lightning.systems import PooledLSTM
from ser_lightning.systems.checkpoint import load_system
from ser_lightning.systems.classifier import Decision
from ser_lightning.types import Batch

Save = Callable[..., Path]


class Singular(MeanPooling):
    """A pooling with an operator that ONNX does not have."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        values: Tensor = torch.linalg.svdvals(frames * mask.unsqueeze(2))
        return super().forward(frames, mask) + values.sum(1, keepdim=True)


class Deciding(MeanPooling):
    """A pooling whose control flow depends on its input."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        pooled = super().forward(frames, mask)
        return pooled if int(mask.sum()) > 150 else -pooled


def test_the_file_computes_the_same_on_random_lengths(save: Save, tmp_path: Path, system_name: str) -> None:
    checkpoint = save(tmp_path / "best.ckpt", system_name)
    done = export(checkpoint, tmp_path / "model.onnx")
    assert done.max_difference <= 1e-4
    system = load_system(checkpoint)
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    noise = torch.Generator().manual_seed(1)
    for length in (1, 2, *torch.randint(3, 400, (8,), generator=noise).tolist()):
        frames = [-9 + 3 * torch.randn(n, 40, generator=noise) for n in (length, 1 + length // 2)]
        batch = batch_of(frames, torch.device("cpu"))
        with torch.inference_mode():
            decision: Decision = system.decide(batch)
        probabilities, predicted = session.run(
            ["probabilities", "predicted"], {"frames": batch.inputs.numpy(), "lengths": batch.lengths.numpy()}
        )
        torch.testing.assert_close(torch.from_numpy(probabilities), decision.probabilities, atol=1e-4, rtol=0)
        assert predicted.tolist() == decision.predicted.tolist()


def test_the_file_has_metadata_and_dynamic_axes(save: Save, tmp_path: Path) -> None:
    extractor = LogMelFilterbank(num_mels=23, sample_rate_hz=8000)
    path = export(save(tmp_path / "best.ckpt", extractor=extractor), tmp_path / "new" / "model.onnx").path
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["labels"]) == ["neutral", "happy", "sad", "angry"]
    assert build_extractor(json.loads(metadata["extractor"])).configuration() == extractor.configuration()
    assert (metadata["sample_rate_hz"], metadata["hop_seconds"], metadata["corpus"]) == ("8000", "0.01", "ravdess")
    assert metadata["system"] == "ser_lightning.systems.PooledLSTM"
    assert metadata["code_version"]
    shapes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in (*model.graph.input, *model.graph.output)
    }
    assert shapes["frames"] == ["utterances", "frames", 23]
    assert shapes["lengths"] == shapes["predicted"] == ["utterances"]
    assert shapes["probabilities"][0] == "utterances"


def test_the_command_prints_the_difference(save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save(tmp_path / "best.ckpt")
    assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{tmp_path / 'model.onnx'}: probabilities differ from the checkpoint's by ")
    assert "on 10 random utterances" in printed


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Singular, "pooling, a Singular, uses aten::linalg_svdvals"),
        (Deciding, "depends on the frames"),
    ],
)
def test_what_cannot_be_exported_is_named(
    save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    part: type[MeanPooling], reason: str,
) -> None:  # fmt: skip
    checkpoint = save(tmp_path / "best.ckpt")

    def load(path: Path, allow: object) -> tuple[object, object]:
        system, extractor = load_system(path), LogMelFilterbank()
        system.pooling = part(8)
        return Ensemble([system]).eval(), extractor

    monkeypatch.setattr(module, "load_trained", load)
    assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 1
    out, printed = capfd.readouterr()
    assert out == ""
    assert f"{checkpoint}: PooledLSTM cannot be exported" in printed
    assert reason in printed
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_with_other_decisions_is_rejected(
    save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Voting(PooledLSTM):
        """A system whose decisions, unlike its probabilities, depend on control flow."""

        def decide(self, batch: Batch) -> Decision:
            decision = super().decide(batch)
            votes = decision.probabilities if int(batch.lengths.sum()) > 150 else -decision.probabilities
            return replace(decision, predicted=votes.argmax(1))

    def load(path: Path, allow: object) -> tuple[object, object]:
        system = load_system(path)
        system.__class__ = Voting
        return Ensemble([system]).eval(), LogMelFilterbank()

    monkeypatch.setattr(module, "load_trained", load)
    assert main(["export", str(save(tmp_path / "best.ckpt")), str(tmp_path / "model.onnx")]) == 1
    assert "decisions differ" in capfd.readouterr().err
    assert not (tmp_path / "model.onnx").exists()


def test_between_equal_probabilities_decisions_may_differ(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tied(PooledLSTM):
        """A system with equal probabilities that predicts another class when it is traced."""

        def decide(self, batch: Batch) -> Decision:
            decision = super().decide(batch)
            return replace(decision, predicted=decision.predicted + int(torch.jit.is_tracing()))

    def load(path: Path, allow: object) -> tuple[object, object]:
        system = load_system(path)
        system.__class__ = Tied
        with torch.no_grad():
            for parameter in system.output.parameters():
                parameter.zero_()
        return Ensemble([system]).eval(), LogMelFilterbank()

    monkeypatch.setattr(module, "load_trained", load)
    done = export(save(tmp_path / "best.ckpt"), tmp_path / "model.onnx")
    assert done.path.is_file()


def test_a_system_that_classifies_speakers_is_not_exported(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(tmp_path / "best.ckpt", "speakers")
    assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 1
    printed = capsys.readouterr().err
    assert "SpeakerIdentification" in printed
    assert "4 speakers" in printed


def test_a_missing_extra_is_named_with_the_install_command(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    assert main(["export", str(save(tmp_path / "best.ckpt")), str(tmp_path / "model.onnx")]) == 1
    printed = capsys.readouterr().err
    assert "onnxruntime" in printed
    assert "pip install -e '.[export]'" in printed
    assert printed.count("\n") == 1
