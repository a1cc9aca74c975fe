"""The 147 low-level descriptors of Huang et al. 2020, section 3.2, extracted by openSMILE."""
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
SHORTEST_LENGTH = 960  # samples in a window of 60 ms
LARGEST_SAMPLE = 32767 / 32768  # openSMILE works on 16-bit samples, and the Python package lets 1.0 wrap to -1.0


class ComParE147(FeatureExtractor):
    """The 65 descriptors of ComParE 2016 and MFCC 0, deltas of all 66, second deltas of MFCC 0 to 14: 147 a frame.

    The first 65 equal ``opensmile.FeatureSet.ComParE_2016`` to the bit. Windows of 60 ms every 10 ms; openSMILE decides
    on the number of frames. A clip shorter than one window is padded with zeros. Runs on the CPU, one utterance at a
    time.

    openSMILE is an optional dependency, because its licence allows research and other non-commercial use only.

    Raises:
        ConfigurationError: If openSMILE is not installed.
    """

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("opensmile",)

    def __init__(self) -> None:
        super().__init__()
        check_opensmile("ComParE147")
        self.sample_rate_hz = 16000
        self.num_features = 147
        self.hop_seconds = 0.010

    @property
    def feature_names(self) -> list[str]:
        """Names of the 147 columns, as in openSMILE."""
        names = [str(name) for name in _smile().feature_names]
        # openSMILE drops the index of a one-element array.
        return [f"{name}[0]" if name.startswith("mfcc_") and "[" not in name else name for name in names]

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return descriptors [B, T, 147], float32, of ``waveforms`` [B, N] of ``lengths`` [B], and their number [B]."""
        clips = waveforms.detach().float().clamp(-1.0, LARGEST_SAMPLE).cpu().numpy()
        frames = [
            self._describe(clip[:length]).to(waveforms.device)
            for clip, length in zip(clips, lengths.tolist(), strict=True)
        ]
        frame_lengths = torch.tensor([len(frame) for frame in frames], device=waveforms.device)
        return pad_sequence(frames, batch_first=True), frame_lengths

    def _describe(self, clip: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
        clip = np.pad(clip, (0, max(0, SHORTEST_LENGTH - len(clip))))
        descriptors = _smile()(clip, self.sample_rate_hz)[0]
        return torch.from_numpy(np.ascontiguousarray(descriptors.T))


def check_opensmile(extractor: str) -> None:
    """Check that openSMILE is installed.

    Raises:
        ConfigurationError: Naming the extractor and the way out.
    """
    if importlib.util.find_spec("opensmile") is None:
        raise ConfigurationError(
            f"{extractor} needs openSMILE, which is not installed: in the clone, pip install -e '.[opensmile]', or "
            "make setup-dev (its licence allows research use only). LogMelFilterbank does not need it"
        )


@functools.cache
def _smile() -> "opensmile.Smile":
    # Outside the extractor, which stays cheap to copy and to send to a worker; imported here, because it is heavy.
    import opensmile

    installed = Path(opensmile.__file__).parent / "core" / "config"
    options = {
        "compare": installed / "compare" / "ComParE_2016_core.lld.conf.inc",
        "bufferModeConf": installed / "shared" / "BufferMode.conf.inc",
        "bufferModeRbLagConf": installed / "shared" / "BufferModeRbLag.conf.inc",
    }
    return opensmile.Smile(str(_CONFIGURATION), "lld", options={name: str(path) for name, path in options.items()})
