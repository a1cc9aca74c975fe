"""Speech at another speed, pitch included: more training data of the same recordings (Ando et al. 2019, section 4)."""
# Shapes: B utterances, N samples (padded), T frames (padded), F features.

from typing import ClassVar

import torch
from torch import Tensor
from torchaudio.functional import speed

from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor


class SpeedPerturbation(FeatureExtractor):
    """Resample each utterance so that it plays ``factor`` times as fast, then hand it to another extractor.

    Args:
        extractor: What makes frames of the changed waveforms.
        factor: Speed; 1.1 is a tenth faster and higher.

    Raises:
        ConfigurationError: If ``factor`` is not positive.
    """

    version: ClassVar[int] = 1

    def __init__(self, extractor: FeatureExtractor, factor: float) -> None:
        super().__init__()
        if factor <= 0:
            raise ConfigurationError(f"factor is {factor}; a speed must be positive")
        self.extractor = extractor
        self.factor = factor
        self.sample_rate_hz = extractor.sample_rate_hz
        self.num_features = extractor.num_features
        self.hop_seconds = extractor.hop_seconds

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames [B, T, F] of ``waveforms`` [B, N] of ``lengths`` [B] at the new speed, and their number [B]."""
        changed, given = speed(waveforms, self.sample_rate_hz, self.factor, lengths)
        new_lengths = (lengths if given is None else given).long().clamp(1, changed.shape[1])
        # Resampling rings past an utterance's end, into its padding.
        real = torch.arange(changed.shape[1], device=changed.device) < new_lengths[:, None]
        frames: tuple[Tensor, Tensor] = self.extractor(changed * real, new_lengths)
        return frames

    def split_for_device(self) -> tuple[FeatureExtractor, FeatureExtractor]:
        """Return the change of speed with whatever else is stored, and what is made of it."""
        stored, device = self.extractor.split_for_device()
        return SpeedPerturbation(stored, self.factor), device
