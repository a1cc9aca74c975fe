"""openSMILE's ComParE 2016 functionals: one frame of 6373 numbers an utterance."""
# Shapes: B utterances, N samples (padded).

import functools
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from ser_lightning.features.compare147 import LARGEST_SAMPLE, SHORTEST_LENGTH, check_opensmile
from ser_lightning.features.extractor import FeatureExtractor

if TYPE_CHECKING:
    import opensmile


class ComParE2016(FeatureExtractor):
    """The 6373 functionals of ComParE 2016 (Schuller et al. 2016) over a whole utterance, as its only frame.

    Equal ``opensmile.FeatureSet.ComParE_2016`` to the bit. A clip shorter than one window of 60 ms is padded with
    zeros. Runs on the CPU, one utterance at a time. Licence: see ``ComParE147``.

    Raises:
        ConfigurationError: If openSMILE is not installed.
    """

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("opensmile",)

    def __init__(self) -> None:
        super().__init__()
        check_opensmile("ComParE2016")
        self.sample_rate_hz = 16000
        self.num_features = 6373
        self.hop_seconds = 0.010  # of the descriptors that the functionals summarise

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return functionals [B, 1, 6373], float32, of ``waveforms`` [B, N] of ``lengths`` [B], and ones [B]."""
        clips = waveforms.detach().float().clamp(-1.0, LARGEST_SAMPLE).cpu().numpy()
        rows = []
        for clip, length in zip(clips, lengths.tolist(), strict=True):
            padded = np.pad(clip[:length], (0, max(0, SHORTEST_LENGTH - length)))
            rows.append(torch.from_numpy(np.ascontiguousarray(_smile()(padded, self.sample_rate_hz)[0].T)))
        return torch.stack(rows).to(waveforms.device), torch.ones_like(lengths, device=waveforms.device)


@functools.cache
def _smile() -> "opensmile.Smile":
    # Outside the extractor, which stays cheap to copy and to send to a worker; imported here, because it is heavy.
    import opensmile

    return opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)
