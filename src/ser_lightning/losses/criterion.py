"""What every training criterion takes."""
# Shapes: B utterances, C classes.

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Criterion(nn.Module, ABC):
    """A differentiable scalar from logits and targets."""

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the batch's mean loss.

        Args:
            logits: [B, C].
            targets: A distribution over classes for each utterance, or the existence of each class [B, C].
            class_prior: Mean target of each class in the training split [C].
        """
