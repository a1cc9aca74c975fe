"""The bidirectional LSTM against torch's on packed sequences, and under padding."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ser_lightning.nn.encoders import BidirectionalLSTM

LENGTHS = torch.tensor([7, 1, 4])
# Our names and torch's; its two biases add up to our one.
WEIGHTS = {
    "forwards.weight_ih_l0": ["weight_ih_l0"],
    "forwards.weight_hh_l0": ["weight_hh_l0"],
    "forwards.bias_ih_l0": ["bias_ih_l0", "bias_hh_l0"],
    "backwards.weight_ih_l0": ["weight_ih_l0_reverse"],
    "backwards.weight_hh_l0": ["weight_hh_l0_reverse"],
    "backwards.bias_ih_l0": ["bias_ih_l0_reverse", "bias_hh_l0_reverse"],
}


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def pair(dtype: torch.dtype) -> tuple[BidirectionalLSTM, nn.LSTM]:
    torch.manual_seed(1)
    theirs = nn.LSTM(5, 4, batch_first=True, bidirectional=True).to(dtype)
    ours = BidirectionalLSTM(5, 4).to(dtype)
    with torch.no_grad():
        for name, sources in WEIGHTS.items():
            ours.get_parameter(name).copy_(sum(theirs.get_parameter(source) for source in sources))
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_states_and_gradients_equal_torchs_on_packed_sequences(dtype: torch.dtype, frames: Tensor) -> None:
    ours, theirs = pair(dtype)
    ours_in = frames.to(dtype).requires_grad_()
    theirs_in = frames.to(dtype).requires_grad_()
    states, lengths = ours(ours_in, LENGTHS)
    packed, _ = theirs(pack_padded_sequence(theirs_in, LENGTHS, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    assert lengths is LENGTHS
    torch.testing.assert_close(states, expected, atol=1e-7, rtol=0)
    weights = torch.randn(expected.shape, dtype=dtype) / expected.numel()  # a different weight for each state
    (states * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, atol=1e-7, rtol=0)
    for name, sources in WEIGHTS.items():
        gradient = ours.get_parameter(name).grad
        torch.testing.assert_close(gradient, theirs.get_parameter(sources[0]).grad, atol=1e-7, rtol=0, msg=name)


def test_summed_directions_are_the_sum_of_concatenated_ones(frames: Tensor) -> None:
    concatenated = BidirectionalLSTM(5, 4).double()
    summed = BidirectionalLSTM(5, 4, combine="sum").double()
    summed.load_state_dict(concatenated.state_dict())
    both, _ = concatenated(frames, LENGTHS)
    assert (concatenated.output_dim, summed.output_dim) == (8, 4)
    torch.testing.assert_close(summed(frames, LENGTHS)[0], both[..., :4] + both[..., 4:])


def test_frames_past_the_end_have_no_effect_and_no_gradient(frames: Tensor) -> None:
    lstm = BidirectionalLSTM(5, 4).double()
    noisy = frames.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        noisy[row, length:] = 1e6
    noisy.requires_grad_()
    states, _ = lstm(noisy, LENGTHS)
    assert torch.equal(states, lstm(frames, LENGTHS)[0])
    states.sum().backward()
    assert noisy.grad is not None
    for row, length in enumerate(LENGTHS.tolist()):
        assert not states[row, length:].any()
        assert not noisy.grad[row, length:].any()
        assert noisy.grad[row, :length].all()


def test_reversing_an_utterance_swaps_the_directions(frames: Tensor) -> None:
    lstm = BidirectionalLSTM(5, 4).double()
    swapped = BidirectionalLSTM(5, 4).double()
    swapped.forwards, swapped.backwards = lstm.backwards, lstm.forwards
    whole = torch.full((3,), 7)
    states, _ = lstm(frames, whole)
    mirrored, _ = swapped(frames.flip(1), whole)
    torch.testing.assert_close(mirrored.flip(1), torch.cat([states[..., 4:], states[..., :4]], 2))


def test_each_gate_trains_one_bias() -> None:
    lstm = BidirectionalLSTM(5, 4)
    trainable = sum(p.numel() for p in lstm.parameters() if p.requires_grad)
    assert trainable == 2 * 4 * 4 * (5 + 4 + 1)
    assert not lstm.forwards.bias_hh_l0.any()
    assert not lstm.backwards.bias_hh_l0.any()
