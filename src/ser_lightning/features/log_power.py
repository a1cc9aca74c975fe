"""Log-power spectrogram (Ando et al. 2019, section 4.1)."""
# Shapes: B utterances, N samples (padded), T frames (padded), F bins.

from typing import ClassVar

from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor, zero_past_the_end
from ser_lightning.features.short_time_spectrum import ShortTimeSpectrum, Window


class LogPowerSpectrogram(FeatureExtractor):
    """Natural logarithm of the power in each frequency bin from 0 Hz up to, not including, ``max_frequency_hz``.

    Windows are framed as in ``ShortTimeSpectrum``: ``1 + max(0, n - window) // hop`` frames for n samples.

    Args:
        sample_rate_hz: The rate of the waveforms.
        window_seconds: Length of a window.
        hop_seconds: Time from one window to the next.
        window: Shape of the window.
        dft_length: Samples of the transform; the next power of two that holds the window when absent.
        max_frequency_hz: Bins below this are kept; all when absent.
        floor: Least power before the logarithm; digital silence gives its logarithm.

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
        max_frequency_hz: float | None = None,
        floor: float = 1e-10,
    ) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.window_seconds = window_seconds
        self.hop_seconds = hop_seconds
        self.window = window
        self.dft_length = dft_length
        self.max_frequency_hz = max_frequency_hz
        self.floor = floor
        if floor <= 0:
            raise ConfigurationError(f"floor ({floor}) must be positive")
        self.spectrum = ShortTimeSpectrum(
            sample_rate_hz, window_seconds, hop_seconds, window, dft_length, max_frequency_hz
        )
        self.num_features = len(self.spectrum.bin_frequencies_hz)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log powers [B, T, F] of ``waveforms`` [B, N] of ``lengths`` [B], and the frames of each [B]."""
        power, frame_lengths = self.spectrum(waveforms, lengths)
        return zero_past_the_end(power.clamp_min_(self.floor).log_(), frame_lengths), frame_lengths

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames [B] of waveforms of ``lengths`` [B] samples."""
        return self.spectrum.num_frames(lengths)
