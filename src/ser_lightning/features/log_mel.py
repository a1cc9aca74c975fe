"""Log-Mel filterbank."""
# Shapes: B utterances, N samples (padded), T frames (padded), K bins, F filters.

from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor, zero_past_the_end
from ser_lightning.features.spectra import ShortTimeSpectrum, Window

_NUM_BANDS = 3


class LogMelFilterbank(FeatureExtractor):
    """Natural logarithm of the power in triangular filters of height one, equally spaced on HTK's Mel scale.

    Framing is that of ``ShortTimeSpectrum``: ``1 + max(0, n - window) // hop`` frames for n samples.

    Args:
        sample_rate_hz: Sampling rate of the waveforms.
        num_mels: Number of filters, F.
        window_seconds: Length of a window.
        hop_seconds: Time from one window to the next.
        window: Shape of the window.
        dft_length: Samples of the transform; by default the next power of two from the window's length.
        min_frequency_hz: Lower edge of the lowest filter.
        max_frequency_hz: Upper edge of the highest filter; by default half the sampling rate.
        floor: Smallest power under the logarithm.

    Raises:
        ConfigurationError: If a filter is so narrow that it has no frequency bin, or a number is out of range.
    """

    version: ClassVar[int] = 2
    filters: Tensor

    def __init__(
        self,
        sample_rate_hz: int = 16000,
        num_mels: int = 40,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.010,
        window: Window = "hamming",
        dft_length: int | None = None,
        min_frequency_hz: float = 0.0,
        max_frequency_hz: float | None = None,
        floor: float = 1e-10,
    ) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.num_mels = self.num_features = num_mels
        self.window_seconds = window_seconds
        self.hop_seconds = hop_seconds
        self.window = window
        self.dft_length = dft_length
        self.min_frequency_hz = min_frequency_hz
        self.max_frequency_hz = max_frequency_hz
        self.floor = floor
        self.spectrum = ShortTimeSpectrum(sample_rate_hz, window_seconds, hop_seconds, window, dft_length, None)
        top_hz = sample_rate_hz / 2 if max_frequency_hz is None else max_frequency_hz
        if not 0 <= min_frequency_hz < top_hz <= sample_rate_hz / 2:
            raise ConfigurationError(
                f"min_frequency_hz ({min_frequency_hz}) must be below max_frequency_hz ({top_hz}), and both between 0 "
                f"and half the sampling rate ({sample_rate_hz / 2})"
            )
        if num_mels < 1 or floor <= 0:
            raise ConfigurationError(f"num_mels ({num_mels}) and floor ({floor}) must be positive")
        num_bins = len(self.spectrum.bin_frequencies_hz)
        filters = melscale_fbanks(num_bins, min_frequency_hz, top_hz, num_mels, sample_rate_hz, mel_scale="htk")
        empty = int((filters.amax(dim=0) == 0).sum())
        if empty:
            raise ConfigurationError(
                f"{empty} of num_mels ({num_mels}) filters have no frequency bin; use fewer, or a dft_length above "
                f"{self.spectrum.dft_length}"
            )
        # Two rows for each bin, real and imaginary part, so that the product sums both.
        filters = filters.repeat_interleave(2, dim=0)
        self.register_buffer("filters", filters, persistent=False)
        # Low filters span few bins, so most weights are zero; a product per band skips most of them.
        self._bands = [_band(filters, mels.tolist()) for mels in torch.arange(num_mels).chunk(_NUM_BANDS)]

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log energies [B, T, F] of ``waveforms`` [B, N] of ``lengths`` [B], and the frames of each [B]."""
        squares, frame_lengths = self.spectrum.squares(waveforms, lengths)
        squares = squares.flatten(-2)
        filters = self.filters.to(squares.dtype)
        # A context that changes nothing would cost a tenth of the time.
        lowered = torch.is_autocast_enabled(squares.device.type)
        with torch.autocast(squares.device.type, enabled=False) if lowered else nullcontext():
            energies = torch.cat([squares[..., bins] @ filters[bins, mels] for bins, mels in self._bands], dim=-1)
        return zero_past_the_end(energies.clamp_min_(self.floor).log_(), frame_lengths), frame_lengths

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames [B] of waveforms of ``lengths`` [B] samples."""
        return self.spectrum.num_frames(lengths)


def _band(filters: Tensor, mels: list[int]) -> tuple[slice, slice]:
    """Return the rows of ``filters`` in which the adjacent columns ``mels`` are non-zero, and these columns."""
    columns = slice(mels[0], mels[-1] + 1)
    rows = filters[:, columns].any(dim=1).nonzero()
    return slice(int(rows.min()), int(rows.max()) + 1), columns
