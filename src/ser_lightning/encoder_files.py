"""Self-supervised speech encoders on disk: torchaudio's weights, or a folder in Hugging Face's format."""

import functools
import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import read_json

if TYPE_CHECKING:
    from torchaudio.pipelines import Wav2Vec2Bundle

ENCODERS_VARIABLE = "SER_ENCODERS"
"""Environment variable with the folder in which an encoder is looked for that is not at its path."""
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_FAMILIES = ("wav2vec2", "hubert", "wavlm")


@dataclass(frozen=True)
class Architecture:
    """What an encoder computes, apart from its weights.

    Attributes:
        is_wavlm: Whether it is a WavLM; wav2vec 2.0 and HuBERT have one architecture.
        arguments: Arguments of torchaudio's function that makes it.
        normalises: Whether a waveform gets zero mean and unit variance first.
    """

    is_wavlm: bool
    arguments: dict[str, Any]
    normalises: bool

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return int(self.arguments["encoder_num_layers"])

    @property
    def width(self) -> int:
        """Numbers of a layer's frame."""
        return int(self.arguments["encoder_embed_dim"])

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return prod(stride for _, _, stride in self.arguments["extractor_conv_layer_config"])

    @property
    def shortest(self) -> int:
        """Samples that give one frame."""
        samples = 1
        for _, kernel, stride in reversed(self.arguments["extractor_conv_layer_config"]):
            samples = (samples - 1) * stride + kernel
        return samples

    def build(self, **changed: object) -> nn.Module:
        """Return an encoder with random weights and, if given, other arguments of torchaudio's function."""
        from torchaudio.models import wav2vec2_model, wavlm_model

        make: Callable[..., nn.Module] = wavlm_model if self.is_wavlm else wav2vec2_model
        return make(**self.arguments | {"aux_num_out": None} | changed)


def bundles() -> dict[str, "Wav2Vec2Bundle"]:
    """Return torchaudio's pre-trained encoders that are not fine-tuned, by name, such as ``wavlm_base_plus``."""
    from torchaudio import pipelines

    found = {name.lower(): getattr(pipelines, name) for name in pipelines.__all__}
    return {name: value for name, value in found.items() if type(value) is pipelines.Wav2Vec2Bundle}


def find_weights(weights: str) -> Path | None:
    """Return the file or folder of an encoder, or None if it is neither at ``weights`` nor in ``SER_ENCODERS``."""
    folder = os.environ.get(ENCODERS_VARIABLE)
    places = [Path(weights), *([Path(folder) / Path(weights).name] if folder else [])]
    return next((place for place in places if place.exists()), None)


def missing(weights: str) -> ConfigurationError:
    """Return the error for an encoder that was not found, with the ways out."""
    name = Path(weights).stem
    fetch = f"`ser download {name} {Path(weights).parent}` fetches it; or " if name in bundles() else ""
    return ConfigurationError(
        f"data.init_args.extractor.init_args.weights: there is no {weights}. {fetch}set {ENCODERS_VARIABLE} to the "
        f"folder that holds {Path(weights).name}"
    )


def architecture_of(weights: str) -> Architecture:
    """Return the architecture of an encoder.

    Args:
        weights: A file with the name of one of ``bundles``, which need not exist, or a folder in Hugging Face's format.

    Raises:
        ConfigurationError: If it is neither, or of another family, naming the folder's file and key.
    """
    found = find_weights(weights)
    if found is not None and found.is_dir():
        return _of_folder(found)
    if (bundle := bundles().get(Path(weights).stem)) is None:
        if found is None:
            raise missing(weights)
        raise ConfigurationError(
            f"data.init_args.extractor.init_args.weights: {weights} is neither a folder in Hugging Face's format nor a "
            f"file named after an encoder of torchaudio: {', '.join(sorted(bundles()))}"
        )
    # torchaudio has no public way to its bundles' sizes without their weights; its release is pinned.
    return Architecture(bundle._model_type == "WavLM", dict(bundle._params), bundle._normalize_waveform)


def _of_folder(folder: Path) -> Architecture:
    from torchaudio.models.wav2vec2.utils import import_huggingface

    config = read_json(folder / CONFIG)
    family = config.get("model_type") if isinstance(config, dict) else None
    if family not in _FAMILIES:
        raise ConfigurationError(f"{folder / CONFIG}: model_type is {family!r}; choose from {', '.join(_FAMILIES)}")
    is_wavlm = family == "wavlm"
    read = import_huggingface._get_config_wavlm if is_wavlm else import_huggingface._get_config
    try:
        arguments = read(SimpleNamespace(**config))
    except AttributeError as error:
        raise ConfigurationError(f"{folder / CONFIG}: its key {error.name} is missing") from error
    normalises = arguments["extractor_mode"] == "layer_norm"
    if (folder / PREPROCESSOR).exists():
        normalises = bool(read_json(folder / PREPROCESSOR).get("do_normalize", normalises))
    return Architecture(is_wavlm, arguments, normalises)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of an encoder's file, or of the files of its folder that matter."""
    names = (CONFIG, PREPROCESSOR, *_WEIGHTS)
    files = [path] if path.is_file() else [path / name for name in names if (path / name).exists()]
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


@functools.lru_cache(maxsize=1)
def load_encoder(path: Path, digest: str | None, device: torch.device) -> nn.Module:
    """Return the encoder at ``path`` on ``device``, without gradients; the last one stays in memory.

    Raises:
        ConfigurationError: If its digest is not ``digest``, unless that is None, or it cannot be read or does not fit
            its architecture.
    """
    if digest is not None and (found := digest_of(path)) != digest:
        raise ConfigurationError(
            f"{path} has other weights (SHA-256 {found[:12]}...) than features or checkpoints were made with "
            f"({digest[:12]}...); give the former weights, or leave data.init_args.extractor.init_args.digest out"
        )
    architecture = architecture_of(str(path))
    encoder = architecture.build()
    try:
        encoder.load_state_dict(_state_of(path, architecture))
    except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise ConfigurationError(f"{path} does not hold the weights of its encoder: {error}") from error
    return encoder.eval().requires_grad_(False).to(device)


def _state_of(path: Path, architecture: Architecture) -> dict[str, Tensor]:
    if path.is_file():
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    file = next((path / name for name in _WEIGHTS if (path / name).exists()), None)
    if file is None:
        raise FileNotFoundError(f"it has neither {' nor '.join(_WEIGHTS)}")
    named = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    return from_hugging_face(named, architecture)


def from_hugging_face(named: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Return weights under torchaudio's names.

    Args:
        named: Weights under Hugging Face's names, with or without the prefix of a model with a head.
        architecture: The encoder's architecture.
    """
    from torchaudio.models.wav2vec2.utils.import_huggingface import transform_wavlm_encoder_state

    parts: dict[str, dict[str, Tensor]] = {"feature_extractor": {}, "feature_projection": {}, "encoder": {}}
    for name, value in named.items():
        names = name.split(".")
        part, _, rest = ".".join(names[names[0] in _FAMILIES :]).partition(".")
        if part in parts:  # others are heads, and the vector that pre-training masks frames with
            parts[part][rest] = value
    if architecture.is_wavlm:
        transform_wavlm_encoder_state(parts["encoder"], architecture.num_layers)
    prefixes = {
        "feature_extractor": "feature_extractor",
        "feature_projection": "encoder.feature_projection",
        "encoder": "encoder.transformer",
    }
    return {f"{prefixes[part]}.{name}": value for part, found in parts.items() for name, value in found.items()}
