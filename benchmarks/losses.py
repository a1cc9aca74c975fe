"""Metric losses against pytorch-metric-learning: forward and backward, one core."""
# Shapes: B utterances, E embedding dimensions.

import torch
from pytorch_metric_learning.losses import TripletMarginLoss  # type: ignore[import-untyped]  # it has none
from pytorch_metric_learning.miners import TripletMarginMiner  # type: ignore[import-untyped]  # it has none
from torch import Tensor

from benchmarks.row import Row, compare
from ser_lightning.losses import EmotionConstraint, TripletLoss

NUM_UTTERANCES, EMBEDDING_DIM = 256, 512
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
POLARITIES = {"negative": ["sad", "fearful", "disgust", "angry"], "positive": ["surprised", "happy", "calm"]}
# Each emotion's polarity: 0 neutral, 1 positive, 2 negative.
POLARITY_OF_EMOTION = torch.tensor([0, 1, 1, 2, 2, 2, 2, 1])
MARGIN = 0.1
REPETITIONS = 9


def rows() -> list[Row]:
    """Return the rows of the triplet loss and of the emotion constraint."""
    return [triplet_row(), constraint_row()]


def batch() -> tuple[Tensor, Tensor]:
    """Return embeddings [B, E] around a direction per emotion, and balanced labels [B]."""
    torch.manual_seed(0)
    labels = torch.arange(NUM_UTTERANCES) % len(EMOTIONS)
    directions = torch.randn(len(EMOTIONS), EMBEDDING_DIM)
    return (directions[labels] + torch.randn(NUM_UTTERANCES, EMBEDDING_DIM)).requires_grad_(), labels


class Mined:
    """Semi-hard triplets and their loss by pytorch-metric-learning."""

    def __init__(self) -> None:
        self.miner = TripletMarginMiner(margin=MARGIN, type_of_triplets="semihard")
        self.loss = TripletMarginLoss(margin=MARGIN)

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of ``embeddings`` [B, E] with ``labels`` [B]."""
        loss: Tensor = self.loss(embeddings, labels, self.miner(embeddings, labels))
        return loss


def step(loss: Tensor, embeddings: Tensor) -> Tensor:
    """Return the gradient of ``loss`` with respect to ``embeddings`` [B, E]."""
    return torch.autograd.grad(loss, embeddings)[0]


def triplet_row() -> Row:
    """Compare the triplet loss."""
    embeddings, labels = batch()
    triplet, mined = TripletLoss(EMOTIONS, MARGIN), Mined()

    def ours() -> Tensor:
        return step(triplet(embeddings, labels)[0], embeddings)

    def theirs() -> Tensor:
        return step(mined(embeddings, labels), embeddings)

    torch.testing.assert_close(ours(), theirs(), rtol=1e-2, atol=1e-6)
    reference = "pytorch-metric-learning, TripletMarginMiner (semihard) and TripletMarginLoss"
    return compare(f"triplet loss (B {NUM_UTTERANCES})", reference, ours, theirs, 0.5, REPETITIONS)


def constraint_row() -> Row:
    """Compare the emotion constraint with its nearest equivalent: triplets by emotion plus triplets by polarity."""
    embeddings, labels = batch()
    constraint, mined = EmotionConstraint(EMOTIONS, 0.1, 0.15, POLARITIES, MARGIN), Mined()
    polarities = POLARITY_OF_EMOTION[labels]

    def ours() -> Tensor:
        return step(constraint(embeddings, labels)[0], embeddings)

    def theirs() -> Tensor:
        return step(mined(embeddings, labels) + mined(embeddings, polarities), embeddings)

    reference = "pytorch-metric-learning, the same by emotion plus the same by polarity"
    return compare(f"emotion constraint (B {NUM_UTTERANCES})", reference, ours, theirs, 0.5, REPETITIONS)
