"""Zhou & Liu 2020: invariance to padding, batch mates and order, and the paper's sizes."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogMelFilterbank
from ser_lightning.losses import AMSoftmax, FocalLoss, WeightedCrossEntropy
from ser_lightning.nn.encoders import ConvolutionBlock
from ser_lightning.nn.heads import CosineHead
from ser_lightning.nn.pooling import AttentiveStatisticsPooling, WeightedPooling
from ser_lightning.systems import ConvBLSTMAttention
from ser_lightning.types import Batch

LENGTHS = torch.tensor([130, 40, 1, 64])
NARROW = (4, 4, 3, 3, 3, 3)


def settle(model: nn.Module) -> None:
    """Let batch norms shift and scale, so that zeros do not stay zero."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if ".norm." in name:
                tensor.uniform_(0.5, 1.5)


def baseline() -> ConvBLSTMAttention:
    return ConvBLSTMAttention(40, list("ahsn"), WeightedPooling, WeightedCrossEntropy(), channels=NARROW, cells=5)


SYSTEMS: dict[str, Callable[[], ConvBLSTMAttention]] = {
    "baseline": baseline,
    "AMS": lambda: ConvBLSTMAttention(
        40, list("ahsn"), WeightedPooling, AMSoftmax(10.0, 0.4), channels=NARROW, cells=5, dropout=0.25
    ),
    "FL, combined pooling, summed directions": lambda: ConvBLSTMAttention(
        40, list("ahsn"), AttentiveStatisticsPooling, FocalLoss(2.0), channels=NARROW, cells=5, combine="sum"
    ),
    "trimmed": lambda: ConvBLSTMAttention(
        40, list("ahsn"), WeightedPooling, FocalLoss(), channels=NARROW, cells=5, max_frames=70
    ),
    "trimmed and padded": lambda: ConvBLSTMAttention(
        40, list("ahsn"), WeightedPooling, FocalLoss(), channels=NARROW, cells=5, max_frames=70, pad_to_max=True
    ),
}


@pytest.fixture(params=SYSTEMS)
def model(request: pytest.FixtureRequest) -> ConvBLSTMAttention:
    torch.manual_seed(0)
    model = SYSTEMS[request.param]()
    settle(model)
    return model


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(4, 130, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_padding_batch_mates_and_order_never_change_a_prediction(
    model: ConvBLSTMAttention, dtype: torch.dtype, tolerance: float, frames: Tensor
) -> None:
    model, frames = model.to(dtype).eval(), frames.to(dtype)
    together = model(frames, LENGTHS)
    reordered = model(frames.flip(0), LENGTHS.flip(0)).flip(0)
    longer = model(torch.cat([frames, torch.full((4, 30, 40), 1e4, dtype=dtype)], 1), LENGTHS)
    torch.testing.assert_close(reordered, together, atol=tolerance, rtol=0)
    torch.testing.assert_close(longer, together, atol=tolerance, rtol=0)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(frames[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=tolerance, rtol=0)


def test_gradients_reach_every_parameter(model: ConvBLSTMAttention, frames: Tensor) -> None:
    model.double()
    targets = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3]]
    model.criterion(model(frames, LENGTHS), targets, model.class_prior).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # The gradient of a bias before a batch norm is rounding error.
        assert parameter.grad.abs().sum() > 0 or name.endswith("convolution.bias"), name


@pytest.mark.gpu
def test_a_gpu_trains_alike_and_is_not_waited_for(model: ConvBLSTMAttention, frames: Tensor) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # random numbers differ between devices
    labels = torch.arange(4)
    batch = Batch(frames.float(), LENGTHS, labels, torch.eye(4), labels)
    on_gpu, moved = copy.deepcopy(model).to("cuda"), batch.to("cuda")
    expected = model.training_step(batch, 0)
    expected.backward()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 rounds inputs to ten bits
        torch.cuda.set_sync_debug_mode("error")
        try:
            loss = on_gpu.training_step(moved, 0)
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(loss.detach().cpu(), expected.detach(), rtol=1e-4, atol=0)
    for (name, parameter), theirs in zip(model.named_parameters(), on_gpu.parameters(), strict=True):
        if not parameter.requires_grad or name.endswith("convolution.bias"):  # only rounding error
            continue
        assert parameter.grad is not None, name
        assert theirs.grad is not None, name
        assert theirs.grad.is_cuda, name
        difference, largest = (theirs.grad.cpu() - parameter.grad).abs().max(), parameter.grad.abs().max()
        assert difference <= 1e-3 * largest, (name, difference, largest)
    for (name, ours), other in zip(model.named_buffers(), on_gpu.buffers(), strict=True):
        torch.testing.assert_close(other.cpu(), ours, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("arguments", "count", "more_by_combined_pooling_percent"),
    [({}, 359_620, 0.071), ({"cells": 64, "combine": "sum"}, 400_836, 0.064)],
)
def test_the_network_has_the_papers_number_of_parameters(
    arguments: dict[str, object], count: int, more_by_combined_pooling_percent: float
) -> None:
    def trainable(pooling: type[WeightedPooling] | type[AttentiveStatisticsPooling]) -> int:
        model = ConvBLSTMAttention(40, list("ahsn"), pooling, WeightedCrossEntropy(), **arguments)  # type: ignore[arg-type]
        assert model.blstm.output_dim == 64  # the "fixed-length of 64" of section 3.1
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    assert trainable(WeightedPooling) == count
    more = trainable(AttentiveStatisticsPooling) - count
    assert round(100 * more / count, 3) == more_by_combined_pooling_percent


def test_blocks_are_those_of_section_3_1() -> None:
    model = ConvBLSTMAttention(40, list("ahsn"), WeightedPooling, WeightedCrossEntropy(), dropout=0.25)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [128, 128, 64, 64, 64, 64]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    assert sum(isinstance(module, nn.AvgPool2d) for module in model.modules()) == 5
    assert [block.window for block in model.modules() if isinstance(block, ConvolutionBlock)] == [2] * 5 + [1]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25] * 6
    assert LogMelFilterbank().num_frames(torch.tensor(7.5 * 16000).int()) == 748
    for num_frames in (748, 750):
        states, mask = model.eval().descriptors(torch.zeros(1, num_frames, 40), torch.ones(1, num_frames).bool())
        assert states.shape == (1, 23, 64)
        assert mask.all()


def test_what_is_trimmed_never_matters(frames: Tensor) -> None:
    model = SYSTEMS["trimmed"]().double().eval()
    changed = frames.clone()
    changed[:, 70:] += 9.0
    torch.testing.assert_close(model(changed, LENGTHS), model(frames, LENGTHS), atol=1e-10, rtol=0)
    changed[:, 69] += 9.0
    assert (model(changed, LENGTHS)[0] - model(frames, LENGTHS)[0]).abs().max() > 1e-8


def test_padding_that_counts_is_average_frames(frames: Tensor) -> None:
    torch.manual_seed(0)
    padded, plain = SYSTEMS["trimmed and padded"]().double().eval(), baseline().double().eval()
    plain.load_state_dict(padded.state_dict())
    mean = torch.full((40,), 3.0, dtype=torch.float64)
    padded.standardisation.mean.copy_(mean)
    plain.standardisation.mean.copy_(mean)
    by_hand = mean.repeat(1, 70, 1)
    by_hand[0, :40] = frames[1, :40]
    torch.testing.assert_close(padded(frames, LENGTHS)[1], plain(by_hand, torch.tensor([70]))[0])


def test_am_softmax_works_on_cosines_and_predicts_with_its_scale(frames: Tensor) -> None:
    model = SYSTEMS["AMS"]().double().eval()
    assert isinstance(model.output, CosineHead)
    cosines = model(frames, LENGTHS)
    assert (cosines.abs() <= 1).all()
    torch.testing.assert_close(model.criterion.probabilities(cosines), F.softmax(10 * cosines.float(), 1))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"pad_to_max": True}, "pad_to_max is true.*max_frames"),
        ({"max_frames": 0}, "max_frames is 0"),
        ({"max_frames": -5, "pad_to_max": True}, "max_frames is -5"),
        ({"channels": []}, r"channels is \[\]"),
        ({"channels": [4, 0]}, r"channels is \[4, 0\]"),
    ],
)
def test_invalid_max_frames_or_channels_are_rejected_by_value(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ConvBLSTMAttention(40, list("ahsn"), WeightedPooling, FocalLoss(), **arguments)  # type: ignore[arg-type]
