"""What every training criterion decides: the head that makes its logits, what these mean, and how far off they are."""
# Shapes: B utterances, D channels, C classes.

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Criterion(nn.Module, ABC):
    """A differentiable scalar from logits and targets.

    A system asks its criterion for the last layer and for probabilities, so that every system takes every criterion.

    Attributes:
        reads: The targets that the loss is defined for: ``hard``, one class; ``soft``, a distribution over classes;
            ``existence``, 0 or 1 for each class.
    """

    reads: ClassVar[tuple[str, ...]] = ("hard",)

    def head(self, input_dim: int, num_classes: int) -> nn.Module:
        """Return the layer that makes logits [B, num_classes] of vectors [B, input_dim]; a linear one by default."""
        return nn.Linear(input_dim, num_classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class [B, C], in float32, of ``logits`` [B, C]; a row sums to one."""
        return logits.float().softmax(1)

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the batch's mean loss.

        Args:
            logits: What ``head`` makes [B, C].
            targets: Of each utterance, of a kind that ``reads`` names [B, C].
            class_prior: Mean target of each class in the training split [C].
        """
