"""Frames of a self-supervised encoder: wav2vec 2.0, HuBERT or WavLM, frozen."""
# Shapes: B utterances, N samples (padded), T frames (padded), L layers, D numbers of a layer.

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, pad
from torch.nn.utils.rnn import pad_sequence

from ser_lightning.encoder_files import architecture_of, digest_of, find_weights, load_encoder, missing
from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor


class SelfSupervised(FeatureExtractor):
    """Hidden states of a frozen encoder's transformer layers, about 50 frames a second.

    Utterances are encoded one by one: the base models of wav2vec 2.0 and HuBERT normalise over time, so that padding
    would change every frame, and torchaudio's WavLM takes no lengths. The encoder stays out of checkpoints, which hold
    its path and digest.

    Args:
        weights: The encoder: a file that ``ser download`` wrote, named after torchaudio's encoder, such as
            ``encoders/wavlm_base_plus.pth``; or a folder in Hugging Face's format (``config.json`` and
            ``model.safetensors``) of a wav2vec2, hubert or wavlm. If it is not there, the folder in the environment
            variable SER_ENCODERS is searched for a file or folder of that name.
        layers: ``all`` layers side by side in a frame (L x D numbers), for a system that learns to mix them; their
            ``mean``; or one layer, counted from 1.
        precision: Type in which frames are stored; float16 takes half the space.
        digest: SHA-256 of the weights; None computes it. Other weights are refused when frames are extracted.

    Raises:
        ConfigurationError: If a folder is missing, the encoder is of another kind, or there is no such layer. That a
            file is missing is an error when frames are extracted, since its name says what it holds.
    """

    version: ClassVar[int] = 1
    places: ClassVar[tuple[str, ...]] = ("weights",)

    def __init__(
        self,
        weights: str,
        layers: int | Literal["all", "mean"] = "all",
        precision: Literal["float16", "float32"] = "float16",
        digest: str | None = None,
    ) -> None:
        super().__init__()
        architecture = architecture_of(weights)
        if isinstance(layers, int) and not 1 <= layers <= architecture.num_layers:
            raise ConfigurationError(
                f"data.init_args.extractor.init_args.layers is {layers}; {weights} has layers 1 to "
                f"{architecture.num_layers}"
            )
        if digest is None and (path := find_weights(weights)) is not None:
            digest = digest_of(path)
        self.weights, self.layers, self.precision, self.digest = weights, layers, precision, digest
        self.frame_dtype = torch.float16 if precision == "float16" else torch.float32
        self.num_layers = architecture.num_layers if layers == "all" else 1
        self.num_features = self.num_layers * architecture.width
        self.sample_rate_hz = 16000
        self.hop_seconds = architecture.hop / self.sample_rate_hz
        self._normalises, self._shortest = architecture.normalises, architecture.shortest

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames [B, T, F] of ``waveforms`` [B, N] of ``lengths`` [B], and their numbers [B]; F is D or L x D.

        A waveform shorter than one frame is padded with zeros.

        Raises:
            ConfigurationError: If the encoder is missing, has another digest, or cannot be read.
        """
        if (path := find_weights(self.weights)) is None:
            raise missing(self.weights)
        encoder = load_encoder(path, self.digest, waveforms.device)
        heard = [waveform[:length] for waveform, length in zip(waveforms, lengths.tolist(), strict=True)]
        frames = [self._encode(encoder, waveform) for waveform in heard]
        counts = torch.tensor([len(utterance) for utterance in frames], device=waveforms.device)
        return pad_sequence(frames, batch_first=True), counts

    def _encode(self, encoder: torch.nn.Module, waveform: Tensor) -> Tensor:
        """Return the frames [T, F] of one ``waveform`` [N]."""
        waveform = pad(waveform.float(), (0, max(0, self._shortest - len(waveform))))[None]
        if self._normalises:
            waveform = layer_norm(waveform, waveform.shape)
        last = self.layers if isinstance(self.layers, int) else None
        found: list[Tensor] = encoder.extract_features(waveform, num_layers=last)[0]  # type: ignore[operator]
        if self.layers == "all":
            frames = torch.cat(found, dim=2)[0]
        else:
            frames = torch.stack(found).mean(0)[0] if self.layers == "mean" else found[-1][0]
        return frames.to(self.frame_dtype).float()  # a classified recording has the frames that are stored

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Refuse: a frame depends on the whole utterance, so frames of a crop are not a crop of the frames.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            "SelfSupervised: each frame depends on the whole utterance; set data.init_args.features to stored"
        )
