"""Magnitude spectrogram (Mocanu et al. 2021, section 3.1)."""
# Shapes: B utterances, N samples (padded), T frames (padded), F bins.

from typing import ClassVar

from torch import Tensor

from ser_lightning.features.extractor import FeatureExtractor, zero_past_the_end
from ser_lightning.features.short_time_spectrum import ShortTimeSpectrum, Window


class MagnitudeSpectrogram(FeatureExtractor):
    """Magnitude in each frequency bin from 0 Hz to half the sample rate.

    Windows are framed as in ``ShortTimeSpectrum``: ``1 + max(0, n - window) // hop`` frames for n samples.

    Args:
        sample_rate_hz: The rate of the waveforms.
        window_seconds: Length of a window.
        hop_seconds: Time from one window to the next.
        window: Shape of the window.
        dft_length: Samples of the transform; the next power of two that holds the window when absent.

    Raises:
        ConfigurationError: If the numbers do not fit.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        sample_rate_hz: int = 16000,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.010,
        window: Window = "hamming",
        dft_length: int | None = None,
    ) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.window_seconds = window_seconds
        self.hop_seconds = hop_seconds
        self.window = window
        self.dft_length = dft_length
        self.spectrum = ShortTimeSpectrum(sample_rate_hz, window_seconds, hop_seconds, window, dft_length, None)
        self.num_features = len(self.spectrum.bin_frequencies_hz)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return magnitudes [B, T, F] of ``waveforms`` [B, N] of ``lengths`` [B], and the frames of each [B]."""
        power, frame_lengths = self.spectrum(waveforms, lengths)
        return zero_past_the_end(power.sqrt_(), frame_lengths), frame_lengths

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames [B] of waveforms of ``lengths`` [B] samples."""
        return self.spectrum.num_frames(lengths)
