"""What every extractor promises: a padded batch of waveforms in, a padded batch of frames out."""
# Shapes: B utterances, N samples (padded), T frames (padded), F features a frame.

import inspect
from abc import ABC, abstractmethod
from bisect import bisect_left
from typing import ClassVar

import torch
from torch import Tensor, nn

from ser_lightning.allow_list import public_path
from ser_lightning.errors import ConfigurationError


class FeatureExtractor(nn.Module, ABC):
    """Turns waveforms into frames, deterministically.

    The frames of an utterance in a padded batch are those of the utterance alone, and frames past its end are zero.
    Every argument of a subclass's constructor is kept in an attribute of the same name, so that ``configuration`` can
    say how to build it again.

    Attributes:
        version: Raised by hand whenever the same arguments begin to give other numbers; stored features then expire.
        keeps_time: Whether frame t is of the time ``t * hop_seconds`` of the recording.
        libraries: Distributions whose release may change the numbers, beside torch and torchaudio.
        sample_rate_hz: The rate of the waveforms.
        num_features: F.
        hop_seconds: Time from one frame to the next.
    """

    version: ClassVar[int]
    keeps_time: ClassVar[bool] = True
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

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames [B] of waveforms of ``lengths`` [B] samples, whatever is in them.

        Raises:
            ConfigurationError: If the length alone does not decide it.
        """
        raise ConfigurationError(
            f"{type(self).__name__} cannot tell from a waveform's length how many frames it gives, which crops and "
            "batches of frames that are made on the device need; set data.init_args.features to stored"
        )

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return round(self.hop_seconds * self.sample_rate_hz)

    def num_samples(self, num_frames: int) -> int:
        """Return the length of the stretch of waveform that ``num_frames``, 1 or more, are made of.

        Frame t of a waveform is then the first frame of its stretch that begins at sample ``t * hop_length``.

        Raises:
            ConfigurationError: If the length alone does not decide the number of frames.
        """

        def gives_more(samples: int) -> bool:
            return int(self.num_frames(torch.tensor(samples))) > num_frames

        enough = 1
        while not gives_more(enough):
            enough *= 2
        # The least for one frame more, less a hop: a waveform shorter than a window is filled up to one frame.
        return bisect_left(range(enough), True, key=gives_more) - self.hop_length

    def split_for_device(self) -> tuple["FeatureExtractor", "FeatureExtractor"]:
        """Return two extractors that do together what this one does: what is stored, and what a device makes of it.

        The first gives waveforms [B, N, 1]; the second takes them, less their last dimension.
        """
        from ser_lightning.features.extractor import Waveform  # an extractor too, so it stands on this file

        return Waveform(self.sample_rate_hz), self

    def configuration(self) -> dict[str, object]:
        """Return class path and arguments as JSON can hold them; ``build_extractor`` reads them back."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {
            "class_path": public_path(type(self)),
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


class Waveform(FeatureExtractor):
    """Every sample a frame of one feature.

    Args:
        sample_rate_hz: The rate of the waveforms.
    """

    version: ClassVar[int] = 1

    def __init__(self, sample_rate_hz: int = 16000) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.num_features = 1
        self.hop_seconds = 1 / sample_rate_hz

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``waveforms`` [B, N] as frames [B, N, 1], zero past ``lengths`` [B], and the lengths."""
        lengths = lengths.to(waveforms.device)
        return zero_past_the_end(waveforms[..., None].clone(), lengths), lengths

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return ``lengths`` [B]."""
        return lengths
