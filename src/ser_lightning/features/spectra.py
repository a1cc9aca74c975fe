"""Short-time spectra: the shared transform, log-Mel filterbank, log-power and magnitude spectrograms."""
# Shapes: B utterances, N samples (padded), T frames (padded), W samples a window, D samples of the transform,
# K bins, F features: filters or bins.

from contextlib import nullcontext
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import melscale_fbanks

from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor, shortest, zero_past_the_end

Window = Literal["hamming", "hann"]
_NUM_BANDS = 3


class ShortTimeSpectrum(nn.Module):
    """Power spectra of windows that are entirely inside the utterance.

    An utterance of n samples has ``1 + max(0, n - W) // hop`` frames; its edges are not padded, so no frame depends on
    padding in a batch. A clip shorter than one window is padded with zeros to one frame. Frame t begins at sample
    ``t * hop``.

    Args:
        sample_rate_hz: Sampling rate of the waveforms.
        window_seconds: Length of the window, W samples when rounded.
        hop_seconds: Time from one window to the next.
        window: Shape of the window, in the periodic form.
        dft_length: D samples, the window followed by zeros; by default the next power of two.
        max_frequency_hz: Bins below this are kept; by default all D // 2 + 1.

    Attributes:
        bin_frequencies_hz: Centre frequency of each of the K bins.

    Raises:
        ConfigurationError: If a length is not positive, or the transform is shorter than the window.
    """

    weights: Tensor

    def __init__(
        self,
        sample_rate_hz: int,
        window_seconds: float,
        hop_seconds: float,
        window: Window,
        dft_length: int | None,
        max_frequency_hz: float | None,
    ) -> None:
        super().__init__()
        self.window_length = round(window_seconds * sample_rate_hz)
        self.hop_length = round(hop_seconds * sample_rate_hz)
        if self.window_length < 1 or self.hop_length < 1:
            raise ConfigurationError(
                f"window_seconds ({window_seconds}) and hop_seconds ({hop_seconds}) must each be at least one sample "
                f"at {sample_rate_hz} Hz"
            )
        self.dft_length = dft_length or 1 << (self.window_length - 1).bit_length()
        if self.dft_length < self.window_length:
            raise ConfigurationError(
                f"dft_length ({dft_length}) must be at least the window's {self.window_length} samples "
                f"(window_seconds {window_seconds} at {sample_rate_hz} Hz)"
            )
        frequencies_hz = [k * sample_rate_hz / self.dft_length for k in range(self.dft_length // 2 + 1)]
        self.bin_frequencies_hz = [f for f in frequencies_hz if max_frequency_hz is None or f < max_frequency_hz]
        if not self.bin_frequencies_hz:
            raise ConfigurationError(f"max_frequency_hz ({max_frequency_hz}) leaves no frequency bin")
        shapes = {"hamming": torch.hamming_window, "hann": torch.hann_window}
        weights = shapes[window](self.window_length, dtype=torch.float64).float()
        self.register_buffer("weights", weights, persistent=False)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames of utterances of ``lengths`` [B] samples."""
        return (lengths + (self.hop_length - self.window_length)).floor_divide_(self.hop_length).clamp_min_(1)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the power [B, T, K] of ``waveforms`` [B, N] with ``lengths`` [B], and numbers of frames [B].

        Half precision is cast to float32 first, because a power spectrum exceeds its range.
        """
        squares, num_frames = self.squares(waveforms, lengths)
        return squares[..., 0] + squares[..., 1], num_frames

    def squares(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared real and imaginary parts [B, T, K, 2] that ``forward`` sums, and numbers of frames [B]."""
        if waveforms.dtype not in (torch.float32, torch.float64):
            waveforms = waveforms.float()
        lengths = lengths.to(waveforms.device)
        if waveforms.shape[1] < self.window_length:
            waveforms = functional.pad(waveforms, (0, self.window_length - waveforms.shape[1]))
        windows = waveforms.unfold(1, self.window_length, self.hop_length)
        # Weighted in the transform's buffer: padding each window afterwards would copy them all again.
        frames = windows.new_empty(*windows.shape[:2], self.dft_length)
        frames[..., self.window_length :] = 0
        weighted = frames[..., : self.window_length]
        if waveforms.requires_grad:  # autograd does not support ``out``
            weighted.copy_(windows).mul_(self.weights)
        else:
            torch.mul(windows, self.weights, out=weighted)
        # Only the first frame of a clip shorter than a window can extend past the utterance's end.
        if shortest(lengths) < self.window_length:
            frames[:, 0] *= torch.arange(self.dft_length, device=lengths.device) < lengths[:, None]
        spectra = torch.fft.rfft(frames)
        if len(self.bin_frequencies_hz) < spectra.shape[2]:
            spectra = spectra[..., : len(self.bin_frequencies_hz)]
        # Twice as fast as separate real and imaginary parts, nine times as fast as the absolute value.
        return torch.view_as_real(spectra).square_(), self.num_frames(lengths)


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


class LogPowerSpectrogram(FeatureExtractor):
    """Natural logarithm of the power in each frequency bin from 0 Hz up to, but excluding, ``max_frequency_hz``.

    Framing is that of ``ShortTimeSpectrum``: ``1 + max(0, n - window) // hop`` frames for n samples.

    Args:
        sample_rate_hz: Sampling rate of the waveforms.
        window_seconds: Length of a window.
        hop_seconds: Time from one window to the next.
        window: Shape of the window.
        dft_length: Samples of the transform; by default the next power of two from the window's length.
        max_frequency_hz: Bins below this are kept; by default all.
        floor: Smallest power under the logarithm.

    Raises:
        ConfigurationError: If a number is out of range.
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


class MagnitudeSpectrogram(FeatureExtractor):
    """Magnitude in each frequency bin from 0 Hz to half the sampling rate.

    Framing is that of ``ShortTimeSpectrum``: ``1 + max(0, n - window) // hop`` frames for n samples.

    Args:
        sample_rate_hz: Sampling rate of the waveforms.
        window_seconds: Length of a window.
        hop_seconds: Time from one window to the next.
        window: Shape of the window.
        dft_length: Samples of the transform; by default the next power of two from the window's length.

    Raises:
        ConfigurationError: If a number is out of range.
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
