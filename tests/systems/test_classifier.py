"""Scores, which all systems share."""

import pytest
import torch

from ser_lightning.losses import LabelSmoothing
from ser_lightning.nn.pooling import MeanPooling
from ser_lightning.systems import PooledLSTM
from ser_lightning.types import Batch

NUM_UTTERANCES = 7


def batch_of(indices: list[int]) -> Batch:
    positions = torch.tensor(indices)
    frames = torch.randn(NUM_UTTERANCES, 5, 4, generator=torch.Generator().manual_seed(0)) * 10
    labels = torch.arange(NUM_UTTERANCES) % 3
    targets = torch.eye(3)[labels]
    lengths = torch.full((len(indices),), 5)
    return Batch(frames[positions], lengths, labels[positions], targets[positions], positions)


@pytest.mark.parametrize("cuts", [[7], [6, 1], [3, 3, 1]])
def test_a_loss_is_the_mean_over_utterances_for_any_batch_sizes(cuts: list[int]) -> None:
    torch.manual_seed(0)
    system = PooledLSTM(4, ["a", "b", "c"], MeanPooling, LabelSmoothing(), cells=3).eval()
    everyone = batch_of(list(range(NUM_UTTERANCES)))
    each = torch.nn.functional.cross_entropy(
        system(everyone.inputs, everyone.lengths), everyone.labels, reduction="none"
    )
    assert each.std() > 0.02, each
    for part in torch.arange(NUM_UTTERANCES).split(cuts):
        system.training_step(batch_of(part.tolist()), 0)
        system.validation_step(batch_of(part.tolist()), 0)
    torch.testing.assert_close(system.train_loss.compute(), each.mean().detach())
    torch.testing.assert_close(system.evaluation_loss.compute(), each.mean().detach())
