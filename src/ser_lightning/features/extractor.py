"""What every extractor promises: a padded batch of waveforms in, a padded batch of frames out."""
# Shapes: B utterances, N samples (padded), T frames (padded), F features a frame.

import inspect
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class FeatureExtractor(nn.Module, ABC):
    """Turns waveforms into frames, deterministically.

    The frames of an utterance in a padded batch are those of the utterance alone, and frames past its end are zero.
    Every argument of a subclass's constructor is kept in an attribute of the same name, so that ``configuration`` can
    say how to build it again.

    Attributes:
        version: Raised by hand whenever the same arguments begin to give other numbers; stored features then expire.
        libraries: Distributions whose release may change the numbers, beside torch and torchaudio.
        sample_rate_hz: The rate of the waveforms.
        num_features: F.
        hop_seconds: Time from one frame to the next.
    """

    version: ClassVar[int]
    libraries: ClassVar[tuple[str, ...]] = ()
    sample_rate_hz: int
    num_features: int
    hop_seconds: float

    @abstractmethod
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames of ``waveforms`` [B, N], zero past ``lengths`` [B] samples.

        Returns:
            Frames [B, T, F] and the number of real ones of each utterance [B]; at least one each.
        """

    def configuration(self) -> dict[str, object]:
        """Return class path and arguments as JSON can hold them; ``build_extractor`` reads them back."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {
                name: value.configuration() if isinstance(value, FeatureExtractor) else value
                for name, value in arguments.items()
            },
        }


def zero_past_the_end(frames: Tensor, frame_lengths: Tensor) -> Tensor:
    """Set ``frames`` [B, T, F] to zero past ``frame_lengths`` [B], in place, and return them."""
    if shortest(frame_lengths) >= frames.shape[1]:
        return frames
    real = torch.arange(frames.shape[1], device=frames.device) < frame_lengths[:, None]
    return frames.mul_(real[..., None])  # half the time of masked_fill_


def shortest(lengths: Tensor) -> int:
    """Return the least of ``lengths`` [B], or 0 where they lie on a GPU: nothing waits for it.

    What a clip does not need can so be left out on a CPU, where it is a third of the time of a log-Mel spectrum.
    """
    return min(lengths.tolist()) if lengths.device.type == "cpu" else 0
