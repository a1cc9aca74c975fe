"""Batch norm of real frames against torch's on those frames alone."""

import torch
from torch import Tensor, nn

from ser_lightning.nn.encoders.masked_batch_norm import MaskedBatchNorm
from ser_lightning.nn.masking import frame_mask

LENGTHS = torch.tensor([6, 1, 3])


def real_frames(maps: Tensor, lengths: Tensor) -> Tensor:
    """All real frames [1, C, F, sum of lengths], one utterance behind the other."""
    return torch.cat([maps[row, :, :, :length] for row, length in enumerate(lengths.tolist())], 2).unsqueeze(0)


def compare(lengths: Tensor) -> None:
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(4).double(), nn.BatchNorm2d(4).double()
    maps = (3 + 2 * torch.randn(3, 4, 5, 6, dtype=torch.float64)).requires_grad_()
    copy = maps.detach().clone().requires_grad_()
    for _ in range(2):
        result = real_frames(ours(maps, frame_mask(lengths, 6)), lengths)
        expected = theirs(real_frames(copy, lengths))
        torch.testing.assert_close(result, expected, atol=1e-10, rtol=0)
    weights = torch.randn_like(expected)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(maps.grad, copy.grad, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    torch.testing.assert_close(
        real_frames(ours.eval()(maps, frame_mask(lengths, 6)), lengths), theirs.eval()(real_frames(copy, lengths))
    )


def test_padded_frames_take_no_part() -> None:
    compare(LENGTHS)


def test_without_padding_it_is_torchs_own() -> None:
    compare(torch.tensor([6, 6, 6]))


def test_a_single_value_is_normalised_to_the_bias() -> None:
    norm = MaskedBatchNorm(2)
    result = norm(torch.full((1, 2, 1, 1), 7.0), torch.ones(1, 1, dtype=torch.bool))
    assert not result.any()
    assert torch.isfinite(norm.running_variance).all()
