"""Masks and counts of padded maps."""

import math

import pytest
import torch

from ser_lightning.nn.encoders.real_frames import RealFrames

LENGTHS = torch.tensor([4, 1, 3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_masks_and_counts_are_those_of_a_plain_loop(dtype: torch.dtype) -> None:
    frames = RealFrames(LENGTHS, torch.zeros(3, 2, 5, 4, dtype=dtype))
    assert frames.mask is not None
    assert frames.real is not None
    assert frames.limits is not None
    assert frames.mask[:, 0, 0].tolist() == [[True] * n + [False] * (4 - n) for n in LENGTHS.tolist()]
    assert frames.real.dtype == dtype
    assert torch.equal(frames.real, frames.mask.to(dtype))
    assert frames.count.item() == 5 * (4 + 1 + 3)
    assert frames.padding.item() == pytest.approx((60 - 40) / 40)
    values = torch.tensor([-3.0, 3.0, math.inf, math.nan], dtype=dtype).expand(3, 1, 5, 4)
    clamped = values[..., :3].clamp(frames.limits[0], frames.limits[1][..., :3])
    assert torch.equal(clamped, torch.where(frames.mask[..., :3], values[..., :3].relu(), 0.0))
    assert values.clamp(*frames.limits)[0, 0, 0, 3].isnan()  # a divergence stays visible


def test_nothing_is_masked_without_padding() -> None:
    maps = torch.ones(3, 2, 5, 4)
    for frames in (RealFrames(torch.full((3,), 4), maps), RealFrames(torch.full((3,), 4), maps, all_real=True)):
        assert frames.all_real
        assert frames.zero_padding(maps) is maps
        assert frames.count.item() == 60
        assert frames.padding.item() == 0
    assert not RealFrames(LENGTHS, maps).all_real
    assert RealFrames(LENGTHS, maps).zero_padding(maps).sum().item() == 2 * 5 * 8
