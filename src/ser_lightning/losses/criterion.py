"""Interface of training criteria: the head of a system, its probabilities and its loss."""
# Shapes: B utterances, D channels, C classes.

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Criterion(nn.Module, ABC):
    """A differentiable scalar from logits and targets.

    A system takes its last layer and its probabilities from its criterion, so every system works with every criterion.

    Attributes:
        reads: Kinds of target that the loss accepts: ``hard``, one class; ``soft``, a distribution over classes;
            ``existence``, 0 or 1 for each class.
    """

    reads: ClassVar[tuple[str, ...]] = ("hard",)

    def head(self, input_dim: int, num_classes: int) -> nn.Module:
        """Return the layer from vectors [B, input_dim] to logits [B, num_classes]; linear by default."""
        return nn.Linear(input_dim, num_classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class [B, C], in float32, of ``logits`` [B, C]; a row sums to one."""
        return logits.float().softmax(1)

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor, class_prior: Tensor) -> Tensor:
        """Return the batch's mean loss.

        Args:
            logits: Output of ``head`` [B, C].
            targets: Targets of a kind in ``reads`` [B, C].
            class_prior: Mean target of each class in the training split [C].
        """
