"""Drawing attention and clusters from checkpoints and recordings."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from ser_lightning.cli.__main__ import main
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureExtractor, LogPowerSpectrogram, MagnitudeSpectrogram, SilenceRemoval
from ser_lightning.inference import attention as module
from ser_lightning.losses import ExistenceLoss, WeightedCrossEntropy
from ser_lightning.reports.time_figures import UtteranceAttention
from ser_lightning.systems import (
    DominantEmotionRecognition,
    EmotionClassifier,
    ExistencePretraining,
    MultiLabelEmotionExistence,
)
from ser_lightning.systems.checkpoint import load_system

EMOTIONS = ["neutral", "happy"]
EXTRACTOR = LogPowerSpectrogram(max_frequency_hz=1200)


def save_ando(path: Path, fusion: bool | None = None, extractor: FeatureExtractor = EXTRACTOR) -> Path:
    """Write an untrained system's checkpoint."""
    torch.manual_seed(0)
    widths = {"channels": [2, 2, 2], "cells": 3, "attention_dim": 4}
    named = {"num_features": EXTRACTOR.num_features, "class_names": EMOTIONS}
    system: EmotionClassifier
    if fusion is None:
        system = DominantEmotionRecognition(**named, criterion=WeightedCrossEntropy(), **widths)  # type: ignore[arg-type]
    else:
        system = ExistencePretraining(**named, criterion=WeightedCrossEntropy(), fusion=fusion, **widths)  # type: ignore[arg-type]
        widths |= {"fusion": fusion}
    arguments = named | widths | {"criterion": {"class_path": "ser_lightning.losses.WeightedCrossEntropy"}}
    system.configuration = {"class_path": system.class_path, "init_args": arguments}
    system.origin = {"corpus": "iemocap", "extractor": extractor.configuration(), "training_speakers": []}
    checkpoint = {"state_dict": system.state_dict(), "epoch": 0}
    system.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    """A second at 16 kHz and half of one in stereo at 48 kHz."""
    noise = torch.Generator().manual_seed(0)
    paths = [tmp_path / "one.wav", tmp_path / "two.wav"]
    soundfile.write(paths[0], 0.1 * torch.randn(16000, generator=noise).numpy(), 16000)
    soundfile.write(paths[1], 0.1 * torch.randn(24000, 2, generator=noise).numpy(), 48000)
    return paths


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[UtteranceAttention]:
    """What is drawn, in order."""
    found: list[UtteranceAttention] = []
    draw = module.attention_figure

    def figure(utterances: Sequence[UtteranceAttention]) -> Figure:
        found.extend(utterances)
        return draw(utterances)

    monkeypatch.setattr(module, "attention_figure", figure)
    return found


def test_the_command_draws_every_system_and_recording(
    recordings: list[Path], tmp_path: Path, drawn: list[UtteranceAttention]
) -> None:
    first, second = save_ando(tmp_path / "a" / "x.ckpt"), save_ando(tmp_path / "b" / "x.ckpt", fusion=False)
    out = tmp_path / "new" / "attention.png"
    asked = [f"--checkpoint={first}", f"--checkpoint={second}", f"--out={out}"]
    assert main(["attention", *map(str, recordings), *asked]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    one, two = drawn
    assert [(h.name, h.seconds) for h in (one, two)] == [("one", 1.0), ("two", 0.5)]
    assert [a.system for a in one.attended] == ["DominantEmotionRecognition", "ExistencePretraining"]
    assert [len(h.attended[0].weights) for h in (one, two)] == [6, 3]  # of 98 and 48 frames, 16 a step
    assert one.attended[0].step_seconds == pytest.approx(0.16)
    system = load_system(first)
    waveform = torch.from_numpy(soundfile.read(recordings[0], dtype="float32")[0])[None]
    probabilities = system.criterion.probabilities(system(*EXTRACTOR(waveform, torch.tensor([16000]))))[0]
    best = int(probabilities.argmax())
    assert one.attended[0].decision == f"{EMOTIONS[best]} {100 * probabilities[best].item():.0f}%"


def test_the_picture_shows_the_decision_for_nearly_equal_logits(
    recordings: list[Path], tmp_path: Path, drawn: list[UtteranceAttention], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = MultiLabelEmotionExistence(EXTRACTOR.num_features, EMOTIONS, ExistenceLoss(), channels=(2, 2, 2), cells=3)
    system.origin = {"extractor": EXTRACTOR.configuration()}
    monkeypatch.setattr(system, "classify", lambda frames, mask: torch.tensor([[18.0, 22.0]]))
    monkeypatch.setattr(module, "load_system", lambda checkpoint, allow: system.eval())
    module.write_attention([tmp_path / "x.ckpt"], recordings[:1], tmp_path / "attention.png")
    assert drawn[0].attended[0].decision == "happy 50%"


def test_the_picture_shows_the_decadic_logarithm_of_power(
    recordings: list[Path], tmp_path: Path, drawn: list[UtteranceAttention]
) -> None:
    module.write_attention([save_ando(tmp_path / "x.ckpt")], recordings[:1], tmp_path / "attention.png")
    waveform = torch.from_numpy(soundfile.read(recordings[0], dtype="float32")[0])[None]
    frames, _ = LogPowerSpectrogram(max_frequency_hz=module.MAX_FREQUENCY_HZ)(waveform, torch.tensor([16000]))
    torch.testing.assert_close(drawn[0].power, frames[0] / math.log(10))


def test_clusters_are_drawn_over_the_sounds_that_a_system_hears(
    tmp_path: Path, drawn: list[UtteranceAttention], save: Callable[..., Path]
) -> None:
    noise = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    noise[4000:12000] = 0.0
    path = tmp_path / "gap.wav"
    soundfile.write(path, noise.numpy(), 16000)
    spectra = MagnitudeSpectrogram()
    whole = save(tmp_path / "whole.ckpt", "mocanu_s3", spectra)
    cut = save(tmp_path / "cut.ckpt", "mocanu_s3", SilenceRemoval(spectra, top_db=30))
    (one,) = drawn_of([whole], path, drawn)
    assert one.name == "gap"
    assert one.attended[0].step_seconds == pytest.approx(16 * 0.01)
    assert one.attended[0].ghosts == 2
    (two,) = drawn_of([cut], path, drawn)
    heard = len(SilenceRemoval(spectra, top_db=30).heard(noise)) / 16000
    assert 0.5 <= heard < 0.7
    assert two.seconds == pytest.approx(heard)
    assert f"{heard:.2f} s" in two.name
    assert two.name.endswith("1.00 s")
    assert len(two.attended[0].weights) * 0.16 == pytest.approx(heard, abs=0.16)
    with pytest.raises(ConfigurationError, match=r"cut\.ckpt hears 0\.\d+ s of .*gap\.wav, .*whole\.ckpt 1\.00 s"):
        module.write_attention([whole, cut], [path], tmp_path / "both.png")


def drawn_of(checkpoints: list[Path], file: Path, drawn: list[UtteranceAttention]) -> list[UtteranceAttention]:
    drawn.clear()
    module.write_attention(checkpoints, [file], file.with_suffix(".png"))
    return drawn


def test_what_cannot_be_drawn_is_rejected(
    recordings: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for checkpoint, file, named in (
        (tmp_path / "gone.ckpt", recordings[0], "gone.ckpt: no such checkpoint"),
        (
            save_ando(tmp_path / "fusion.ckpt", fusion=True),
            recordings[0],
            "fusion.ckpt: ExistencePretraining with fusion",
        ),
        (save_ando(tmp_path / "x.ckpt"), tmp_path / "gone.wav", "gone.wav"),
    ):
        assert main(["attention", str(file), f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out.png'}"]) == 1
        assert named in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
