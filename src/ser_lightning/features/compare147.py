"""The 147 low-level descriptors of Huang et al. 2020, section 3.2, by openSMILE."""
# Shapes: B utterances, N samples (padded), T frames (padded).

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor

if TYPE_CHECKING:
    import opensmile

_CONFIGURATION = Path(__file__).with_name("compare147.conf")
_LARGEST_SAMPLE = 32767 / 32768  # openSMILE works on 16-bit samples, and the Python package lets 1.0 wrap to -1.0


class ComParE147(FeatureExtractor):
    """The 65 descriptors of ComParE 2016 and MFCC 0, deltas of all 66, second deltas of MFCC 0 to 14: 147 a frame.

    The first 65 are those of ``opensmile.FeatureSet.ComParE_2016`` to the bit. Frames come every 10 ms; openSMILE
    decides how many (about 4 fewer than 100 a second, for its windows of 60 ms). A clip shorter than one such window
    is filled up with zeros to one window. Runs on the CPU, one utterance after another.

    openSMILE's licence is for research and other non-commercial use; it is not part of the core for that reason.

    Raises:
        ConfigurationError: If openSMILE is not installed.
    """

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("opensmile",)

    def __init__(self) -> None:
        super().__init__()
        if importlib.util.find_spec("opensmile") is None:
            raise ConfigurationError(
                "ComParE147 needs openSMILE, which is not installed: in the clone, pip install -e '.[opensmile]', or "
                "make setup-dev (its licence is for research, not for products). LogMelFilterbank does without"
            )
        self.sample_rate_hz = 16000
        self.num_features = 147
        self.hop_seconds = 0.010
        self.shortest_length = 960  # samples in a window of 60 ms

    @property
    def feature_names(self) -> list[str]:
        """The name that openSMILE gives each of the 147, in the order of the columns."""
        names = [str(name) for name in _smile().feature_names]
        # An array of one element loses its index on the way.
        return [f"{name}[0]" if name.startswith("mfcc_") and "[" not in name else name for name in names]

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors [B, T, 147], float32, of ``waveforms`` [B, N] of ``lengths`` [B], and their number [B]."""
        clips = waveforms.detach().float().clamp(-1.0, _LARGEST_SAMPLE).cpu().numpy()
        frames = [
            self._describe(clip[:length]).to(waveforms.device)
            for clip, length in zip(clips, lengths.tolist(), strict=True)
        ]
        frame_lengths = torch.tensor([len(frame) for frame in frames], device=waveforms.device)
        return pad_sequence(frames, batch_first=True), frame_lengths

    def _describe(self, clip: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
        clip = np.pad(clip, (0, max(0, self.shortest_length - len(clip))))
        descriptors = _smile()(clip, self.sample_rate_hz)[0]
        return torch.from_numpy(np.ascontiguousarray(descriptors.T))


@functools.cache
def _smile() -> "opensmile.Smile":
    # Outside the extractor, which so stays small to copy and to send to a worker process; imported here, because it
    # is heavy and most systems do without.
    import opensmile

    installed = Path(opensmile.__file__).parent / "core" / "config"
    options = {
        "compare": installed / "compare" / "ComParE_2016_core.lld.conf.inc",
        "bufferModeConf": installed / "shared" / "BufferMode.conf.inc",
        "bufferModeRbLagConf": installed / "shared" / "BufferModeRbLag.conf.inc",
    }
    return opensmile.Smile(str(_CONFIGURATION), "lld", options={name: str(path) for name, path in options.items()})
