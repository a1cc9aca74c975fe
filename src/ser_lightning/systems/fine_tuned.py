"""A self-supervised encoder that is trained on, whole or by low-rank changes, with any pooling and any criterion."""
# Shapes: B utterances, N samples (padded), T frames (padded), L layers, D numbers of a layer, P projected, C classes.

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pad_sequence

from ser_lightning.encoder_files import architecture_of, digest_of, find_weights, load_encoder, missing
from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import Criterion
from ser_lightning.nn.layer_mix import LayerMix
from ser_lightning.nn.low_rank import LowRank
from ser_lightning.nn.pooling import Pooling
from ser_lightning.nn.standardisation import UtteranceStandardisation
from ser_lightning.nn.tensors import frame_mask
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.systems.time_pooling import TimePooling

_ATTENTION = ("q_proj.weight", "v_proj.weight", "attention.in_proj_weight")  # of wav2vec 2.0 and HuBERT; of WavLM


class FineTunedEncoder(EmotionClassifier):
    """wav2vec 2.0, HuBERT or WavLM with ``PooledFrames``'s classifier on top, trained together.

    The convolutions on the waveform stay frozen, as is usual (Baevski et al. 2020, section 4.2). Utterances of equal
    length are encoded together, and others apart, because padding would change every frame of a base model; crops give
    equal lengths. Layers are not dropped at random, since processes would differ. The checkpoint holds the encoder.

    Args:
        num_features: 1, the waveform; linked from the data module.
        class_names: The C emotions; linked from the data module.
        weights: The encoder, as of ``ser_lightning.features.SelfSupervised``.
        pooling: Makes the pooling of P channels.
        criterion: Training criterion.
        optimizer: Makes the optimiser.
        scheduler: Makes the learning-rate schedule, stepped once per epoch; None keeps the rates constant.
        projection: P.
        dropout: Dropout rate of projected frames.
        encoder_rate: Learning rate of the encoder's last layer, as a multiple of the classifier's.
        layer_decay: Learning rate of each layer below, as a multiple of that of the layer above.
        lora_rank: Rank of the changes to attention weights, which then are all of the encoder that is trained (LoRA, Hu
            et al. 2022, section 4); 0 trains the whole encoder.

    Raises:
        ConfigurationError: If frames are not waveforms, a number is out of range, or the encoder is unknown.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        weights: str,
        pooling: Callable[[int], Pooling],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        projection: int = 256,
        dropout: float = 0.0,
        encoder_rate: float = 1.0,
        layer_decay: float = 1.0,
        lora_rank: int = 0,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer, scheduler, UtteranceStandardisation("none"))
        if num_features != 1:
            raise ConfigurationError(
                f"FineTunedEncoder hears waveforms, but frames have {num_features} features; set "
                "data.init_args.extractor to ser_lightning.features.Waveform"
            )
        if encoder_rate <= 0 or not 0 < layer_decay <= 1 or lora_rank < 0:
            raise ConfigurationError(
                f"model.init_args: encoder_rate is {encoder_rate}, which must be positive, layer_decay {layer_decay}, "
                f"more than 0 and at most 1, and lora_rank {lora_rank}, 0 or more"
            )
        self.weights, self.encoder_rate, self.layer_decay = weights, encoder_rate, layer_decay
        architecture = architecture_of(weights)
        self._normalises, self._shortest, self._hop = architecture.normalises, architecture.shortest, architecture.hop
        self.encoder = architecture.build(encoder_layer_drop=0.0)
        self.encoder.get_submodule("feature_extractor").requires_grad_(False)
        if lora_rank:
            self._change_by_low_rank(lora_rank)
        self.layer_mix = LayerMix(architecture.num_layers)
        self.projection = nn.Linear(architecture.width, projection)
        self.dropout = nn.Dropout(dropout)
        self.pooling = pooling(projection)
        self.pooling.fit_to_classes(len(self.class_names))
        self.output = criterion.head(self.pooling.output_dim, len(self.class_names))

    def _change_by_low_rank(self, rank: int) -> None:
        self.encoder.requires_grad_(False)
        for name in [name for name, _ in self.encoder.named_parameters() if name.endswith(_ATTENTION)]:
            module, _, weight = name.rpartition(".")
            holder = self.encoder.get_submodule(module)
            rows, columns = getattr(holder, weight).shape
            parametrize.register_parametrization(holder, weight, LowRank(rows, columns, rank))

    def setup(self, stage: str) -> None:
        """Load the pre-trained weights before training; a resumed training replaces them by its own.

        Raises:
            ConfigurationError: If they are missing, cannot be read, or do not fit.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if (path := find_weights(self.weights)) is None:
            raise missing(self.weights)
        own = self.encoder.state_dict()
        for name, value in load_encoder(path, None, torch.device("cpu")).state_dict().items():
            module, _, weight = name.rpartition(".")
            own[name if name in own else f"{module}.parametrizations.{weight}.original"].copy_(value)
        self.origin["encoder"] = {"weights": self.weights, "digest": digest_of(path)}

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of waveforms as ``frames`` [B, N, 1] under ``mask`` [B, N]."""
        logits: Tensor = self.output(self.pooling(*self.descriptors(frames, mask)))
        return logits

    def descriptors(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the pooling: projected frames [B, T, P] of ``frames`` [B, N, 1], and their mask [B, T].

        The numbers of samples are read from the device, once in a step.
        """
        by_length: dict[int, list[int]] = {}
        for row, length in enumerate(mask.sum(1).tolist()):
            by_length.setdefault(length, []).append(row)
        found: dict[int, Tensor] = {}
        for length, rows in by_length.items():
            found |= dict(zip(rows, self._encode(frames[rows, :length, 0]), strict=True))
        counts = torch.tensor([len(found[row]) for row in range(len(frames))], device=frames.device)
        padded = pad_sequence([found[row] for row in range(len(frames))], batch_first=True)
        return padded, frame_mask(counts, padded.shape[1])

    def _encode(self, waveforms: Tensor) -> Tensor:
        """Return projected frames [B, T, P] of ``waveforms`` [B, N] of one length."""
        waveforms = pad(waveforms, (0, max(0, self._shortest - waveforms.shape[1])))
        if self._normalises:
            waveforms = layer_norm(waveforms, waveforms.shape[1:])
        layers: list[Tensor] = self.encoder.extract_features(waveforms)[0]  # type: ignore[operator]
        projected: Tensor = self.dropout(self.projection(self.layer_mix(torch.cat(layers, 2))))
        return projected

    def time_pooling(self) -> TimePooling:
        """Return the pooling over projected frames."""
        return TimePooling(self.standardisation, self.descriptors, self.pooling, self._hop)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser, with a learning rate for each layer of the encoder, and its schedule."""
        by_factor: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                by_factor.setdefault(self._rate_of(name), []).append(parameter)
        optimizer = self.optimizer([{"params": parameters} for parameters in by_factor.values()])
        for group, factor in zip(optimizer.param_groups, by_factor, strict=True):
            group["lr"] *= factor
        return optimizer if self.scheduler is None else ([optimizer], [self.scheduler(optimizer)])

    def _rate_of(self, name: str) -> float:
        """Return a parameter's learning rate as a multiple of the optimiser's."""
        if not name.startswith("encoder."):
            return 1.0
        depth = len(self.layer_mix.logits)
        _, _, after = name.partition("transformer.layers.")
        above = depth - 1 - int(after.partition(".")[0]) if after else depth
        return self.encoder_rate * self.layer_decay**above
