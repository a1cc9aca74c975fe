"""A system's pooling over time: what it attends to, and which clusters it assigns steps to."""
# Shapes: B utterances, T frames (padded), F features, T' steps of the pooling, D channels, K clusters, G ghosts.

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ser_lightning.nn.pooling import Pooling
from ser_lightning.nn.tensors import at_least_float32, frame_mask


@dataclass(frozen=True, slots=True)
class TimeWeights:
    """What a pooling does with each time step.

    Attributes:
        weights: Attention [B, T'], of which a row sums to one; or soft assignment [B, T', K + G] to clusters, ghosts
            last, of which a real step sums to one.
        frames_per_step: Frames per time step.
        ghosts: G.
    """

    weights: Tensor
    frames_per_step: int
    ghosts: int = 0


@dataclass(frozen=True, slots=True)
class TimePooling:
    """A system's pooling over time, and what comes before it.

    Attributes:
        standardisation: Standardises frames [B, T, F] under a mask [B, T].
        descriptors: Turns standardised frames and their mask into the pooling's input [B, T', D] and mask [B, T'].
        pooling: The pooling.
        frames_per_step: Frames per time step.
    """

    standardisation: nn.Module
    descriptors: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    pooling: Pooling
    frames_per_step: int

    def weights(self, frames: Tensor, lengths: Tensor) -> TimeWeights | None:
        """Return attention or assignment over ``frames`` [B, T, F] with ``lengths`` [B]; None if there is neither."""
        inputs = self._inputs(frames, lengths)
        weights = self.pooling.weights(*inputs)
        if weights is None:
            weights = self.pooling.assign(*inputs)
        return None if weights is None else TimeWeights(weights, self.frames_per_step, self.pooling.ghosts)

    def mean_assignment(self, frames: Tensor, lengths: Tensor) -> Tensor | None:
        """Return each utterance's mean assignment [B, K + G] over its real steps; None without clusters."""
        if self.pooling.clusters is None:
            return None
        descriptors, mask = self._inputs(frames, lengths)
        assignment = self.pooling.assign(descriptors, mask)
        return None if assignment is None else at_least_float32(assignment).sum(1) / mask.sum(1, keepdim=True)

    def _inputs(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = frame_mask(lengths, frames.shape[1])
        return self.descriptors(self.standardisation(frames, mask), mask)
