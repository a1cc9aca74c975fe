"""A bidirectional LSTM layer that padding never reaches."""
# Shapes: B utterances, T frames (padded), F features a frame, H cells a direction.

from typing import Literal

import torch
from torch import Tensor, nn

from ser_lightning.nn.encoders.encoder import Encoder
from ser_lightning.nn.masking import frame_mask
from ser_lightning.nn.precision import recurrent_states


class BidirectionalLSTM(Encoder):
    """Two LSTM layers, one of which reads each utterance from its last real frame to its first.

    Equal to torch's bidirectional LSTM on packed sequences, but batches stay padded on every device: packing makes a
    CPU step 13 times slower and has a GPU wait, since it wants to know lengths on the host. Each gate has one bias:
    torch's second one, which adds nothing, is fixed at zero, so that parameters count as in other frameworks.

    Args:
        input_dim: F.
        cells: H.
        combine: ``concatenate`` the directions to 2H channels, or ``sum`` them to H.
    """

    def __init__(self, input_dim: int, cells: int, combine: Literal["concatenate", "sum"] = "concatenate") -> None:
        super().__init__()
        self.combine = combine
        self.output_dim = cells if combine == "sum" else 2 * cells
        self.forwards = nn.LSTM(input_dim, cells, batch_first=True)
        self.backwards = nn.LSTM(input_dim, cells, batch_first=True)
        for direction in (self.forwards, self.backwards):
            direction.bias_hh_l0 = nn.Parameter(torch.zeros(4 * cells), requires_grad=False)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return states [B, T, 2H or H] of ``frames`` [B, T, F], zero past the end, and ``lengths`` [B]."""
        mask = frame_mask(lengths, frames.shape[1])
        positions = torch.arange(frames.shape[1], device=frames.device)
        # The order that reverses real frames and leaves padding where it is; it is its own inverse.
        order = torch.where(mask, lengths.unsqueeze(1) - 1 - positions, positions).unsqueeze(2)
        ahead = recurrent_states(self.forwards, frames)
        back = recurrent_states(self.backwards, frames.gather(1, order.expand_as(frames)))
        back = back.gather(1, order.expand_as(back))
        states = ahead + back if self.combine == "sum" else torch.cat([ahead, back], 2)
        return states.masked_fill(~mask.unsqueeze(2), 0.0), lengths
