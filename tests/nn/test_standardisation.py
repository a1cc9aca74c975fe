"""Standardisation and masks."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ser_lightning.nn.standardisation import Standardisation, UtteranceStandardisation
from ser_lightning.nn.tensors import frame_mask

LENGTHS = torch.tensor([50, 20, 1, 35])


def test_a_mask_is_true_for_the_first_frames_of_each_utterance() -> None:
    assert frame_mask(torch.tensor([2, 0, 3]), 3).tolist() == [
        [True, True, False],
        [False, False, False],
        [True, True, True],
    ]


def test_training_frames_are_standardised_and_padding_is_zero() -> None:
    frames = 5 + 3 * torch.randn(4, 50, 2, dtype=torch.float64)
    mask = frame_mask(torch.tensor([50, 20, 1, 35]), 50)
    real = frames[mask]
    layer = Standardisation(2).double()
    layer.fit(SimpleNamespace(mean=real.mean(0), deviation=real.std(0, correction=0)))
    result = layer(frames, mask)
    torch.testing.assert_close(result[mask].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        result[mask].std(0, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert not result[~mask].any()


def test_a_feature_that_never_varies_is_only_centred() -> None:
    layer = Standardisation(2)
    layer.fit(SimpleNamespace(mean=torch.tensor([7.0, 0.0]), deviation=torch.tensor([0.0, 2.0])))
    result = layer(torch.tensor([[[7.5, 4.0]]]), torch.ones(1, 1, dtype=torch.bool))
    assert result.tolist() == [[[0.5, 2.0]]]


def test_the_statistics_are_part_of_the_state_and_not_trained() -> None:
    layer = Standardisation(3)
    assert set(layer.state_dict()) == {"mean", "deviation"}
    assert not list(layer.parameters())


def utterances(level: float = 5.0, spread: float = 3.0) -> Tensor:
    noise = torch.randn(4, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return level + spread * noise * torch.tensor([1.0, 10.0, 0.1])


def test_every_utterance_is_standardised_by_itself() -> None:
    result = UtteranceStandardisation(3)(utterances(), frame_mask(LENGTHS, 50))
    for row, length in enumerate(LENGTHS.tolist()):
        real = utterances()[row, :length]
        expected = (real - real.mean(0)) / (real.std(0, correction=0) if length > 1 else 1.0)
        torch.testing.assert_close(result[row, :length], expected, atol=1e-12, rtol=0)
        assert not result[row, length:].any()


def test_batch_mates_padding_and_its_values_never_matter() -> None:
    layer, mask = UtteranceStandardisation(3), frame_mask(LENGTHS, 50)
    together = layer(utterances().masked_fill(~mask.unsqueeze(2), 1e6), mask)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = layer(utterances()[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 1e6, 1e25])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_single_precision_suffices_whatever_the_level(scale: float, offset: float) -> None:
    mask = frame_mask(LENGTHS, 50)
    frames = (scale * (offset + utterances(0.0, 1.0))).float()
    result = UtteranceStandardisation(3)(frames, mask)
    expected = UtteranceStandardisation(3)(frames.double(), mask)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e-20])
def test_a_constant_bin_is_centred_with_finite_gradients(value: float, dtype: torch.dtype) -> None:
    frames = utterances().to(dtype)
    frames[:, :, 1] = value
    frames.requires_grad_()
    result = UtteranceStandardisation(3)(frames, frame_mask(LENGTHS, 50))
    (result * torch.arange(50).unsqueeze(1)).sum().backward()
    assert result[:, :, 1].abs().max() <= 1e-6 * abs(value)
    assert frames.grad is not None
    assert torch.isfinite(frames.grad).all()


def test_an_utterance_of_one_frame_becomes_zero() -> None:
    result = UtteranceStandardisation(3)(utterances().float(), frame_mask(LENGTHS, 50))
    assert not result[2].any()


def test_gradients_equal_numerical_ones_and_spare_padding() -> None:
    frames, mask = utterances()[:, :6].requires_grad_(), frame_mask(LENGTHS.clamp(max=5), 6)
    assert torch.autograd.gradcheck(lambda x: UtteranceStandardisation(3)(x, mask), frames)


def test_an_utterances_own_statistics_leave_nothing_to_save() -> None:
    assert not UtteranceStandardisation(3).state_dict()


def test_inverting_then_standardising_changes_nothing() -> None:
    wanted = utterances(0.0, 1.0)[:1]
    mask = torch.ones(1, 50, dtype=torch.bool)
    fitted = Standardisation(3).double()
    fitted.fit(SimpleNamespace(mean=torch.tensor([7.0, 0.0, -2.0]), deviation=torch.tensor([0.5, 2.0, 9.0])))
    torch.testing.assert_close(fitted(fitted.invert(wanted), mask), wanted)
    layer = UtteranceStandardisation(3)
    torch.testing.assert_close(layer(layer.invert(wanted), mask), layer(wanted, mask))


def test_utterance_standardisation_reads_no_training_frames() -> None:
    UtteranceStandardisation(3).fit(SimpleNamespace())
