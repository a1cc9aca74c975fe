"""A small classifier of frames that are good already, such as those of a self-supervised encoder."""
# Shapes: B utterances, T frames (padded), F features, L layers, P projected features, C classes.

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import Criterion
from ser_lightning.nn.layer_mix import LayerMix
from ser_lightning.nn.pooling import Pooling
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.systems.time_pooling import TimePooling


class PooledFrames(EmotionClassifier):
    """A learned mean of layers, a linear projection of each frame, pooling over time, and the criterion's head.

    With mean pooling and cross entropy it is the classifier of emotions of SUPERB (Yang et al. 2021, section 3 and
    appendix): a linear projection to 256, the mean over time, a linear layer. Features are standardised on the training
    split, each layer's by itself.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        pooling: Makes the pooling of P channels.
        criterion: Training criterion.
        optimizer: Makes the optimiser.
        scheduler: Makes the learning-rate schedule, stepped once per epoch; None keeps the rate constant.
        num_layers: L, the layers that are side by side in each frame; 1 for frames of one layer.
        projection: P.
        dropout: Dropout rate of projected frames.

    Raises:
        ConfigurationError: If F is not a multiple of L.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        pooling: Callable[[int], Pooling],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        num_layers: int = 1,
        projection: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer, scheduler)
        if num_layers < 1 or num_features % num_layers:
            raise ConfigurationError(
                f"model.init_args.num_layers is {num_layers}; frames have {num_features} features, no multiple of it"
            )
        self.num_layers = num_layers
        self.layer_mix = LayerMix(num_layers) if num_layers > 1 else nn.Identity()
        self.projection = nn.Linear(num_features // num_layers, projection)
        self.dropout = nn.Dropout(dropout)
        self.pooling = pooling(projection)
        self.pooling.fit_to_classes(len(self.class_names))
        self.output = criterion.head(self.pooling.output_dim, len(self.class_names))

    def setup(self, stage: str) -> None:
        """Check the number of layers against the extractor's, and take over statistics of the training split.

        Raises:
            ConfigurationError: If the numbers differ.
        """
        if stage == "fit" and (found := self.data_module.extractor.num_layers) != self.num_layers:
            raise ConfigurationError(
                f"model.init_args.num_layers is {self.num_layers}, but data.init_args.extractor gives {found}; "
                f"set --model.init_args.num_layers {found}"
            )
        super().setup(stage)

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        logits: Tensor = self.output(self.pooling(*self.descriptors(frames, mask)))
        return logits

    def descriptors(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the pooling: projected ``frames`` [B, T, P], and ``mask`` [B, T]."""
        return self.dropout(self.projection(self.layer_mix(frames))), mask

    def time_pooling(self) -> TimePooling:
        """Return the pooling over projected frames."""
        return TimePooling(self.standardisation, self.descriptors, self.pooling, 1)
