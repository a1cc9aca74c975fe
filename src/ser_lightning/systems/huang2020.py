"""Huang et al. 2020, "Learning Utterance-level Representations with Label Smoothing for Speech Emotion Recognition"."""
# Shapes: B utterances, T frames (padded), F features, C classes, H cells.

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ser_lightning.losses import Criterion
from ser_lightning.nn.pooling import Pooling
from ser_lightning.nn.tensors import recurrent_states
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.systems.time_pooling import TimePooling


class PooledLSTM(EmotionClassifier):
    """One LSTM layer, dropout, pooling over time and a softmax layer (section 2, figures 1 and 4; section 4.1).

    Training adds Gaussian noise to the input. The paper does not state a normalisation; here features are standardised
    on the training split before the noise is added, so that the noise is equally small for all features. Sequences are
    padded, not packed: a forward LSTM does not see the padding after its frames.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        pooling: Makes the pooling of H channels: final, max, mean, weighted or NetVLAD.
        criterion: Training criterion; the paper's label smoothing or plain cross entropy.
        optimizer: Makes the optimiser.
        cells: H, memory cells of the LSTM.
        dropout: Dropout rate after the LSTM.
        input_noise: Standard deviation of the noise, in units of each feature's standard deviation.
    """

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        pooling: Callable[[int], Pooling],
        criterion: Criterion,
        optimizer: OptimizerCallable = torch.optim.Adadelta,
        cells: int = 64,
        dropout: float = 0.0,
        input_noise: float = 0.0,
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer)
        self.input_noise = input_noise
        self.lstm = nn.LSTM(num_features, cells, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.pooling = pooling(cells)
        self.pooling.fit_to_classes(len(self.class_names))
        self.output = criterion.head(self.pooling.output_dim, len(self.class_names))

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        if self.training and self.input_noise > 0:
            frames = frames + self.input_noise * torch.randn_like(frames)
        logits: Tensor = self.output(self.pooling(*self.descriptors(frames, mask)))
        return logits

    def descriptors(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the pooling: LSTM states [B, T, H] of ``frames`` [B, T, F], and ``mask`` [B, T]."""
        return self.dropout(recurrent_states(self.lstm, frames)), mask

    def time_pooling(self) -> TimePooling:
        """Return the pooling over the LSTM's states."""
        return TimePooling(self.standardisation, self.descriptors, self.pooling, 1)
