"""Statistics of a training split."""

from collections.abc import Iterator

import numpy as np
import torch

from ser_lightning.data.batches import FrameDataset
from ser_lightning.data.targets import TrainingStatistics, mean_and_deviation


def test_mean_and_deviation_equal_numpys_over_all_frames() -> None:
    frames = [1000 + 0.01 * torch.randn(length, 3) for length in (5, 400, 31)]
    mean, deviation = mean_and_deviation(frames)
    joined = np.concatenate([utterance.numpy() for utterance in frames]).astype(np.float64)
    np.testing.assert_allclose(mean, joined.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, joined.std(0), rtol=1e-4)


def test_a_constant_feature_has_deviation_zero() -> None:
    _, deviation = mean_and_deviation([torch.full((10, 1), 0.1), torch.full((3, 1), 0.1)])
    assert deviation.item() < 1e-7


def test_a_batch_is_zero_padded_and_has_utterance_indices() -> None:
    dataset = FrameDataset(
        [torch.ones(2, 4), 2 * torch.ones(5, 4), 3 * torch.ones(1, 4)], [0, 2, 1], torch.eye(3)[[0, 2, 1]]
    )
    batch = dataset.__getitems__([2, 0])
    assert batch.size == 2
    assert batch.inputs.shape == (2, 2, 4)
    assert batch.inputs[0, :, 0].tolist() == [3.0, 0.0]
    assert batch.lengths.tolist() == [1, 2]
    assert batch.labels.tolist() == [1, 0]
    assert batch.targets.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert batch.indices.tolist() == [2, 0]
    assert batch.to("meta").inputs.device.type == "meta"


def test_statistics_read_frames_lazily_and_once() -> None:
    frames = [torch.randn(length, 3) for length in (5, 40)]
    seen: list[int] = []

    def utterances() -> Iterator[torch.Tensor]:
        for utterance in frames:
            seen.append(len(utterance))
            yield utterance

    statistics = TrainingStatistics(utterances(), torch.tensor([0.5, 0.5]), ("anna", "bert"))
    assert statistics.speakers == ("anna", "bert")
    assert statistics.class_prior.tolist() == [0.5, 0.5]
    assert not seen
    mean, deviation = mean_and_deviation(frames)
    assert torch.equal(statistics.deviation, deviation)
    assert torch.equal(statistics.mean, mean)
    assert seen == [5, 40]
