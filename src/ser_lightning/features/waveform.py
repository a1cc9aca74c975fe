"""The waveform itself as frames: what is stored where the device makes the frames that a system sees."""
# Shapes: B utterances, N samples (padded).

from typing import ClassVar

from torch import Tensor

from ser_lightning.features.extractor import FeatureExtractor, zero_past_the_end


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
