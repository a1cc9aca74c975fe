"""Standardisation and masks."""

import torch

from ser_lightning.nn.masking import frame_mask
from ser_lightning.nn.standardisation import Standardisation


def test_a_mask_is_true_for_the_first_frames_of_each_utterance() -> None:
    assert frame_mask(torch.tensor([2, 0, 3]), 3).tolist() == [
        [True, True, False],
        [False, False, False],
        [True, True, True],
    ]


def test_training_frames_come_out_with_zero_mean_and_unit_deviation_and_padding_as_zero() -> None:
    frames = 5 + 3 * torch.randn(4, 50, 2, dtype=torch.float64)
    mask = frame_mask(torch.tensor([50, 20, 1, 35]), 50)
    real = frames[mask]
    layer = Standardisation(2).double()
    layer.fit(real.mean(0), real.std(0, correction=0))
    result = layer(frames, mask)
    torch.testing.assert_close(result[mask].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        result[mask].std(0, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert not result[~mask].any()


def test_a_feature_that_never_varies_is_only_centred() -> None:
    layer = Standardisation(2)
    layer.fit(torch.tensor([7.0, 0.0]), torch.tensor([0.0, 2.0]))
    result = layer(torch.tensor([[[7.5, 4.0]]]), torch.ones(1, 1, dtype=torch.bool))
    assert result.tolist() == [[[0.5, 2.0]]]


def test_the_statistics_are_part_of_the_state_and_not_trained() -> None:
    layer = Standardisation(3)
    assert set(layer.state_dict()) == {"mean", "deviation"}
    assert not list(layer.parameters())
