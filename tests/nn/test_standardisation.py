"""Standardisation and masks."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ser_lightning.nn.standardisation import Normalisation, Standardisation, UtteranceStandardisation
from ser_lightning.nn.tensors import frame_mask

LENGTHS = torch.tensor([50, 20, 1, 35])
ALL: tuple[Normalisation, ...] = ("per_frame", "per_spectrogram", "per_bin", "none")

each_normalisation = pytest.mark.parametrize("normalisation", ALL)


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


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        # Bins 1, 1, 7 in the first frame and 3, 9, 3 in the second: means 3 and 5, deviations sqrt(8) both.
        ("per_frame", [[-(0.5**0.5), -(0.5**0.5), 2**0.5], [-(0.5**0.5), 2**0.5, -(0.5**0.5)]]),
        # All six: mean 4, variance (9 + 9 + 9 + 1 + 25 + 1) / 6 = 9.
        ("per_spectrogram", [[-1, -1, 1], [-1 / 3, 5 / 3, -1 / 3]]),
        # Each bin over two frames: plus and minus one.
        ("per_bin", [[-1, -1, 1], [1, 1, -1]]),
        ("none", [[1, 1, 7], [3, 9, 3]]),
    ],
)
def test_normalisations_by_hand_with_padding(normalisation: Normalisation, expected: list[list[float]]) -> None:
    frames = torch.tensor([[[1, 1, 7], [3, 9, 3], [1e6, -1e6, 5]]], dtype=torch.float64)
    result = UtteranceStandardisation(normalisation)(frames, frame_mask(torch.tensor([2]), 3))
    wanted = torch.tensor([[*expected, [0, 0, 0]]], dtype=torch.float64)
    torch.testing.assert_close(result, wanted, atol=1e-12, rtol=0)


@each_normalisation
def test_batch_mates_padding_and_its_values_never_matter(normalisation: Normalisation) -> None:
    layer, mask = UtteranceStandardisation(normalisation), frame_mask(LENGTHS, 50)
    together = layer(utterances().masked_fill(~mask.unsqueeze(2), 1e6), mask)
    assert not together[~mask].any()
    for row, length in enumerate(LENGTHS.tolist()):
        alone = layer(utterances()[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-12, rtol=0)


def test_a_frame_depends_on_itself_alone_only_per_frame() -> None:
    """So a crop is normalised as it is in the whole utterance."""
    everything, crop = torch.ones(4, 50, dtype=torch.bool), torch.ones(4, 20, dtype=torch.bool)
    layers = {name: UtteranceStandardisation(name) for name in ALL}
    same = {
        name: torch.allclose(layer(utterances()[:, 10:30], crop), layer(utterances(), everything)[:, 10:30])
        for name, layer in layers.items()
    }
    assert same == {"per_frame": True, "per_spectrogram": False, "per_bin": False, "none": True}


@each_normalisation
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 1e6, 1e25])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_single_precision_suffices_whatever_the_level(
    scale: float, offset: float, normalisation: Normalisation
) -> None:
    mask = frame_mask(LENGTHS, 50)
    frames = (scale * (offset + utterances(0.0, 1.0))).float()
    result = UtteranceStandardisation(normalisation)(frames, mask)
    expected = UtteranceStandardisation(normalisation)(frames.double(), mask)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e-20])
def test_a_constant_bin_is_centred_with_finite_gradients(value: float, dtype: torch.dtype) -> None:
    frames = utterances().to(dtype)
    frames[:, :, 1] = value
    frames.requires_grad_()
    result = UtteranceStandardisation("per_bin")(frames, frame_mask(LENGTHS, 50))
    (result * torch.arange(50).unsqueeze(1)).sum().backward()
    assert result[:, :, 1].abs().max() <= 1e-6 * abs(value)
    assert frames.grad is not None
    assert torch.isfinite(frames.grad).all()


def test_one_frame_has_no_deviation_of_bins() -> None:
    result = UtteranceStandardisation("per_bin")(utterances().float(), frame_mask(LENGTHS, 50))
    assert not result[2].any()


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_constant_frame_is_centred_with_finite_gradients(value: float) -> None:
    """As of digital silence."""
    frames = utterances().float()
    frames[:, 3] = value
    frames.requires_grad_()
    result = UtteranceStandardisation("per_frame")(frames, frame_mask(LENGTHS, 50))
    (result * torch.arange(3)).sum().backward()
    assert result[:, 3].abs().max() <= 1e-6 * abs(value)
    assert frames.grad is not None
    assert torch.isfinite(frames.grad).all()


@each_normalisation
def test_gradients_equal_numerical_ones_and_spare_padding(normalisation: Normalisation) -> None:
    frames, mask = utterances()[:, :6].requires_grad_(), frame_mask(LENGTHS.clamp(max=5), 6)
    assert torch.autograd.gradcheck(lambda x: UtteranceStandardisation(normalisation)(x, mask), frames)


def test_an_utterances_own_statistics_leave_nothing_to_save() -> None:
    assert not UtteranceStandardisation("per_bin").state_dict()


def test_inverting_then_standardising_changes_nothing() -> None:
    wanted = utterances(0.0, 1.0)[:1]
    mask = torch.ones(1, 50, dtype=torch.bool)
    fitted = Standardisation(3).double()
    fitted.fit(SimpleNamespace(mean=torch.tensor([7.0, 0.0, -2.0]), deviation=torch.tensor([0.5, 2.0, 9.0])))
    torch.testing.assert_close(fitted(fitted.invert(wanted), mask), wanted)
    layer = UtteranceStandardisation("per_bin")
    torch.testing.assert_close(layer(layer.invert(wanted), mask), layer(wanted, mask))


def test_utterance_standardisation_reads_no_training_frames() -> None:
    UtteranceStandardisation("per_bin").fit(SimpleNamespace())
