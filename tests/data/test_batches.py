"""Batches of whole or cropped utterances."""

import pytest
import torch
from torch.utils.data import DataLoader

from ser_lightning.data.batches import FrameDataset, keep_batch
from ser_lightning.data.samplers import BucketBatchSampler, RandomCrops

LENGTHS = [2, 9, 5, 4]


def dataset(crop_frames: int | None) -> FrameDataset:
    # Frame t of utterance u is 100 u + t, so that a crop shows its position.
    frames = [100.0 * utterance + torch.arange(length).unsqueeze(1) for utterance, length in enumerate(LENGTHS)]
    return FrameDataset(frames, [0, 1, 2, 0], torch.eye(3)[[0, 1, 2, 0]], crop_frames)


def test_utterances_longer_than_a_crop_are_cropped() -> None:
    batch = dataset(4).__getitems__([(1, 0.5), (0, 0.5), (3, 0.99), (2, 0.99)])
    assert batch.lengths.tolist() == [4, 2, 4, 4]
    assert batch.inputs.squeeze(2).tolist() == [
        [103.0, 104.0, 105.0, 106.0],
        [0.0, 1.0, 0.0, 0.0],
        [300.0, 301.0, 302.0, 303.0],
        [201.0, 202.0, 203.0, 204.0],
    ]
    assert batch.indices.tolist() == [1, 0, 3, 2]
    assert batch.labels.tolist() == [1, 0, 0, 2]


def test_crops_begin_equally_often_wherever_they_can() -> None:
    starts = [
        dataset(4).__getitems__([(1, place)]).inputs[0, 0, 0].item() - 100
        for place in torch.arange(0.5, 60).div(60).tolist()
    ]
    assert starts == [float(start) for start in range(6) for _ in range(10)]


def test_the_last_place_is_within_the_utterance() -> None:
    batch = dataset(4).__getitems__([(1, 1 - 2**-53)])
    assert batch.inputs.flatten().tolist() == [105.0, 106.0, 107.0, 108.0]


@pytest.mark.parametrize(
    ("crop_frames", "items"), [(4, [0, 1, 2, 3]), (None, [(0, 0.9), (1, 0.9), (2, 0.9), (3, 0.9)])]
)
def test_positions_without_a_place_give_whole_utterances(
    crop_frames: int | None, items: list[int | tuple[int, float]]
) -> None:
    batch = dataset(crop_frames).__getitems__(items)
    assert batch.lengths.tolist() == LENGTHS
    assert torch.equal(batch.inputs, dataset(None).__getitems__([0, 1, 2, 3]).inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_held_frames_keep_their_dtype_and_batches_are_float32_padded_with_zeros(dtype: torch.dtype) -> None:
    frames = [torch.full((length, 2), float("nan"), dtype=dtype) for length in LENGTHS]
    frames[0], frames[3] = (torch.randn(length, 2).to(dtype) for length in (LENGTHS[0], LENGTHS[3]))
    batches = []
    for held in (False, True):
        made = FrameDataset(frames, [0, 1, 2, 0], torch.eye(3)[[0, 1, 2, 0]])
        if held:
            made.hold(torch.device("cpu"))
            assert made.held is not None
            assert made.held.rows.dtype == dtype
        batches.append(made.__getitems__([3, 0]))
    assert batches[0].inputs.dtype == batches[1].inputs.dtype == torch.float32
    assert torch.equal(batches[0].inputs, batches[1].inputs)


def test_a_loader_gives_reproducible_crops_per_epoch() -> None:
    data = dataset(3)
    sampler = RandomCrops(BucketBatchSampler([min(length, 3) for length in LENGTHS], 2, 0), 0)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=keep_batch)

    def starts(epoch: int) -> dict[int, float]:
        sampler.set_epoch(epoch)
        return {
            int(index): float(row[0, 0])
            for batch in loader
            for index, row in zip(batch.indices, batch.inputs, strict=True)
        }

    epochs = [starts(epoch) for epoch in range(40)]
    assert epochs[7] == starts(7)
    assert {round(epoch[1]) for epoch in epochs} == set(range(100, 107))
    assert {epoch[0] for epoch in epochs} == {0.0}
