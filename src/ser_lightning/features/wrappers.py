"""Extractors that wrap another one: silence removal (Mocanu et al. 2021), speed perturbation (Ando et al. 2019)."""
# Shapes: B utterances, N samples (padded), T frames (padded), F features a frame.

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import speed

from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor


class SilenceRemoval(FeatureExtractor):
    """Remove silence, quieter than ``top_db`` below the utterance's loudest window, and extract frames of the rest.

    Non-silent segments are those of ``librosa.effects.split``; up to one energy window of silence remains on either
    side of a segment. A clip of zeros stays whole. The cutting runs on the CPU.

    Args:
        extractor: Extractor for the joined segments.
        top_db: Threshold of silence, in dB below the loudest window.
        energy_window_seconds: Length of the energy windows.
        energy_hop_seconds: Time from one energy window to the next; segments begin and end on multiples of it.
        append_reversed: Append the joined segments once more, reversed in time, as the reference network does when it
            evaluates.

    Raises:
        ConfigurationError: If a number is not positive.
    """

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("librosa",)

    def __init__(
        self,
        extractor: FeatureExtractor,
        top_db: float,
        energy_window_seconds: float = 0.064,
        energy_hop_seconds: float = 0.016,
        append_reversed: bool = False,
    ) -> None:
        super().__init__()
        if min(top_db, energy_window_seconds, energy_hop_seconds) <= 0:
            raise ConfigurationError(
                f"top_db ({top_db}), energy_window_seconds ({energy_window_seconds}) and energy_hop_seconds "
                f"({energy_hop_seconds}) must be positive"
            )
        self.extractor = extractor
        self.top_db = top_db
        self.energy_window_seconds = energy_window_seconds
        self.energy_hop_seconds = energy_hop_seconds
        self.append_reversed = append_reversed
        self.sample_rate_hz = extractor.sample_rate_hz
        self.num_features, self.num_layers = extractor.num_features, extractor.num_layers
        self.frame_dtype = extractor.frame_dtype
        self.hop_seconds = extractor.hop_seconds

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames [B, T, F] of the sounds in ``waveforms`` [B, N] of ``lengths`` [B], and their numbers [B]."""
        sounds = [
            self.heard(waveform[:length]) for waveform, length in zip(waveforms.cpu(), lengths.tolist(), strict=True)
        ]
        sound_lengths = torch.tensor([len(sound) for sound in sounds], device=waveforms.device)
        result: tuple[Tensor, Tensor] = self.extractor(
            pad_sequence(sounds, batch_first=True).to(waveforms.device), sound_lengths
        )
        return result

    def split_for_device(self) -> tuple[FeatureExtractor, FeatureExtractor]:
        """Return the silence removal, which runs on the CPU, and the wrapped extractor's device part."""
        stored, device = self.extractor.split_for_device()
        cutting = SilenceRemoval(
            stored, self.top_db, self.energy_window_seconds, self.energy_hop_seconds, self.append_reversed
        )
        return cutting, device

    def heard(self, waveform: Tensor) -> Tensor:
        """Return the non-silent parts of ``waveform`` [N], concatenated, and their reverse if it is appended."""
        from librosa.effects import split  # heavy, and most systems do not need it

        stretches = split(
            waveform.float().numpy(),
            top_db=self.top_db,
            frame_length=round(self.energy_window_seconds * self.sample_rate_hz),
            hop_length=round(self.energy_hop_seconds * self.sample_rate_hz),
        )
        if len(stretches):
            waveform = torch.cat([waveform[start:end] for start, end in stretches.tolist()])
        return torch.cat([waveform, waveform.flip(0)]) if self.append_reversed else waveform


class SpeedPerturbation(FeatureExtractor):
    """Resample each utterance to ``factor`` times its speed, then extract frames.

    Args:
        extractor: Extractor for the resampled waveforms.
        factor: Speed; 1.1 is ten percent faster and higher.

    Raises:
        ConfigurationError: If ``factor`` is not positive.
    """

    version: ClassVar[int] = 1

    def __init__(self, extractor: FeatureExtractor, factor: float) -> None:
        super().__init__()
        if factor <= 0:
            raise ConfigurationError(f"factor is {factor}; it must be positive")
        self.extractor = extractor
        self.factor = factor
        self.sample_rate_hz = extractor.sample_rate_hz
        self.num_features, self.num_layers = extractor.num_features, extractor.num_layers
        self.frame_dtype = extractor.frame_dtype
        self.hop_seconds = extractor.hop_seconds

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames [B, T, F] of ``waveforms`` [B, N] of ``lengths`` [B] at the new speed, and counts [B]."""
        changed, given = speed(waveforms, self.sample_rate_hz, self.factor, lengths)
        new_lengths = (lengths if given is None else given).long().clamp(1, changed.shape[1])
        # Resampling rings past an utterance's end into its padding.
        real = torch.arange(changed.shape[1], device=changed.device) < new_lengths[:, None]
        frames: tuple[Tensor, Tensor] = self.extractor(changed * real, new_lengths)
        return frames

    def heard(self, waveform: Tensor) -> Tensor:
        """Return ``waveform`` [N] at the new speed."""
        changed: Tensor = speed(waveform[None], self.sample_rate_hz, self.factor)[0][0]
        return changed

    def split_for_device(self) -> tuple[FeatureExtractor, FeatureExtractor]:
        """Return the speed change around the wrapped extractor's stored part, and its device part."""
        stored, device = self.extractor.split_for_device()
        return SpeedPerturbation(stored, self.factor), device
