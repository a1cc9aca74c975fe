"""Feature extractors, from waveforms to frames, and the store that keeps frames on disk."""

from ser_lightning.features.compare147 import ComParE147
from ser_lightning.features.compare2016 import ComParE2016
from ser_lightning.features.extraction import build_extractor
from ser_lightning.features.extractor import FeatureExtractor, Waveform
from ser_lightning.features.self_supervised import SelfSupervised
from ser_lightning.features.spectra import LogMelFilterbank, LogPowerSpectrogram, MagnitudeSpectrogram
from ser_lightning.features.store import FeatureStore, Prepared
from ser_lightning.features.wrappers import SilenceRemoval, SpeedPerturbation

__all__ = [
    "ComParE147",
    "ComParE2016",
    "FeatureExtractor",
    "FeatureStore",
    "LogMelFilterbank",
    "LogPowerSpectrogram",
    "MagnitudeSpectrogram",
    "Prepared",
    "SelfSupervised",
    "SilenceRemoval",
    "SpeedPerturbation",
    "Waveform",
    "build_extractor",
]
