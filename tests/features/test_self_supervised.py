"""Frames of self-supervised encoders: the same padded or alone, mapped from Hugging Face's names, found again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torchaudio.models import wav2vec2_model, wavlm_model

from ser_lightning.encoder_files import architecture_of, bundles, load_encoder
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureStore, SelfSupervised, SilenceRemoval, build_extractor
from tests.encoders import LAYERS, WIDTH, write_encoder

FAMILIES = ("wav2vec2", "hubert", "wavlm")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("encoders")
    return {family: str(write_encoder(folder / family, family)) for family in FAMILIES}


def noise(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.zeros(len(lengths), max(lengths))
    for waveform, length in zip(waveforms, lengths, strict=True):
        waveform[:length] = torch.randn(length, generator=generator)
    return waveforms, torch.tensor(lengths)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", ["all", "mean", 2])
def test_padding_and_batch_mates_change_nothing(encoders: dict[str, str], family: str, layers: Any) -> None:
    extractor = SelfSupervised(encoders[family], layers)
    waveforms, lengths = noise(4000, 100, 9000)
    frames, counts = extractor(waveforms, lengths)
    assert frames.shape[2] == extractor.num_features == (LAYERS * WIDTH if layers == "all" else WIDTH)
    assert counts.tolist() == [12, 1, 28]
    for waveform, length, together, count in zip(waveforms, lengths, frames, counts, strict=True):
        alone, _ = extractor(waveform[None, :length], length[None])
        assert torch.equal(alone[0], together[:count])
        assert not together[count:].any()


def test_layers_are_those_of_torchaudios_encoder(encoders: dict[str, str]) -> None:
    waveforms, lengths = noise(6000)
    path = Path(encoders["wavlm"])
    layers = load_encoder(path, SelfSupervised(str(path)).digest, torch.device("cpu")).extract_features(waveforms)[0]  # type: ignore[operator]
    choices: tuple[tuple[Any, torch.Tensor], ...] = (
        ("all", torch.cat(layers, 2)),
        ("mean", torch.stack(layers).mean(0)),
        (2, layers[1]),
    )
    for chosen, expected in choices:
        frames, _ = SelfSupervised(str(path), chosen, precision="float32")(waveforms, lengths)
        torch.testing.assert_close(frames, expected, rtol=0, atol=1e-6)
        rounded, _ = SelfSupervised(str(path), chosen)(waveforms, lengths)
        assert torch.equal(rounded, expected.half().float())


def test_weights_in_hugging_faces_names_are_the_built_ones(tmp_path: Path) -> None:
    """The test's writer renames by its own rule, so an error in either is a difference."""
    for family, make in (("wav2vec2", wav2vec2_model), ("wavlm", wavlm_model)):
        folder = write_encoder(tmp_path / family, family, seed=7)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            built = make(**architecture_of(str(folder)).arguments, aux_num_out=None).state_dict()
        loaded = load_encoder(folder, SelfSupervised(str(folder)).digest, torch.device("cpu")).state_dict()
        assert loaded.keys() == built.keys()
        assert all(torch.equal(loaded[name], built[name]) for name in built)


def test_large_models_normalise_the_waveform(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "large", "hubert", feat_extract_norm="layer", do_stable_layer_norm=True)
    waveforms, lengths = noise(5000)
    plain = SelfSupervised(str(folder), precision="float32")
    torch.testing.assert_close(plain(waveforms, lengths)[0], plain(3 * waveforms + 1, lengths)[0], rtol=1e-3, atol=1e-3)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    other = SelfSupervised(str(folder), precision="float32")
    assert other.digest != plain.digest
    assert not torch.allclose(other(waveforms, lengths)[0], other(3 * waveforms + 1, lengths)[0], atol=1e-2)


def test_every_bundle_has_a_size_without_its_weights() -> None:
    sizes = {
        name: (found.num_layers, found.width) for name in bundles() for found in [architecture_of(f"x/{name}.pth")]
    }
    assert sizes["wavlm_base_plus"] == sizes["hubert_base"] == (12, 768)
    assert sizes["wavlm_large"] == sizes["wav2vec2_xlsr_300m"] == (24, 1024)
    extractor = SelfSupervised("nowhere/wavlm_large.pth", digest="0" * 64)
    assert (extractor.num_features, extractor.num_layers, extractor.hop_seconds) == (24 * 1024, 24, 0.02)
    with pytest.raises(ConfigurationError, match=r"`ser download wavlm_large nowhere`.* SER_ENCODERS"):
        extractor(*noise(800))


def test_a_store_keeps_half_precision_and_does_not_know_the_path(
    encoders: dict[str, str], synthetic_ravdess: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = sorted(synthetic_ravdess.rglob("*.wav"))[:2]
    extractor = SelfSupervised(encoders["wavlm"])
    store = FeatureStore(tmp_path / "features", extractor)
    assert store.prepare(clips, progress=False).extracted == 2
    frames = store.load(clips)
    assert frames[0].dtype == torch.float16
    assert len(frames[0]) == store.lengths(clips)[0] > 1
    moved = tmp_path / "moved" / "wavlm"
    shutil.copytree(encoders["wavlm"], moved)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SER_ENCODERS", str(moved.parent))
    found = build_extractor(extractor.configuration() | {"init_args": {"weights": "elsewhere/wavlm"}})
    again = FeatureStore(tmp_path / "features", found)
    assert again.prepare(clips, progress=False).extracted == 0
    assert all(torch.equal(one, other) for one, other in zip(again.load(clips), frames, strict=True))
    whole = FeatureStore(tmp_path / "features", SelfSupervised(encoders["wavlm"], precision="float32"))
    assert whole.prepare(clips, progress=False).extracted == 2
    assert whole.load(clips)[0].dtype == torch.float32
    assert torch.equal(whole.load(clips)[0].half(), frames[0])


def test_silence_removal_keeps_what_is_stored(encoders: dict[str, str]) -> None:
    wrapped = SilenceRemoval(SelfSupervised(encoders["hubert"]), 30.0)
    assert (wrapped.frame_dtype, wrapped.num_layers) == (torch.float16, LAYERS)
    assert "weights" not in json.dumps(wrapped.configuration(with_places=False))


def test_other_weights_are_refused(encoders: dict[str, str], tmp_path: Path) -> None:
    digest = SelfSupervised(encoders["wavlm"]).digest
    other = write_encoder(tmp_path / "wavlm", seed=1)
    with pytest.raises(ConfigurationError, match="has other weights"):
        SelfSupervised(str(other), digest=digest)(*noise(800))


def test_faults_are_one_error_with_a_way_out(encoders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"layers is 4; .*wavlm has layers 1 to 3"):
        SelfSupervised(encoders["wavlm"], 4)
    with pytest.raises(ConfigurationError, match=r"there is no wavlm_base.pth. `ser download wavlm_base \.`"):
        SelfSupervised("wavlm_base.pth")(*noise(800))
    with pytest.raises(ConfigurationError, match="set SER_ENCODERS to the folder that holds my_encoder"):
        SelfSupervised("my_encoder")
    (tmp_path / "mine.pth").touch()
    with pytest.raises(ConfigurationError, match="named after an encoder of torchaudio: hubert_base, "):
        SelfSupervised(str(tmp_path / "mine.pth"))
    folder = write_encoder(tmp_path / "faulty")
    config = json.loads((folder / "config.json").read_text())
    for change, said in ({"model_type": "bert"}, "model_type is 'bert'"), ({"conv_dim": None}, "conv_dim"):
        (folder / "config.json").write_text(
            json.dumps({k: v for k, v in {**config, **change}.items() if v is not None})
        )
        with pytest.raises(ConfigurationError, match=said):
            SelfSupervised(str(folder))
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 8}))
    with pytest.raises(ConfigurationError, match="does not hold the weights of its encoder"):
        SelfSupervised(str(folder))(*noise(800))
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigurationError, match="does not hold the weights of its encoder"):
        SelfSupervised(str(folder))(*noise(800))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="has neither"):
        SelfSupervised(str(folder))(*noise(800))
    with pytest.raises(ConfigurationError, match="each frame depends on the whole utterance"):
        SelfSupervised(encoders["wavlm"]).num_frames(torch.tensor([800]))
