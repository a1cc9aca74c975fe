"""Waveforms to frames: one file per extractor, and a store that keeps their frames on disk."""

from ser_lightning.features.build import build_extractor
from ser_lightning.features.compare147 import ComParE147
from ser_lightning.features.extractor import FeatureExtractor
from ser_lightning.features.log_mel import LogMelFilterbank
from ser_lightning.features.log_power import LogPowerSpectrogram
from ser_lightning.features.magnitude import MagnitudeSpectrogram
from ser_lightning.features.silence_removal import SilenceRemoval
from ser_lightning.features.speed_perturbation import SpeedPerturbation
from ser_lightning.features.store import FeatureStore, Prepared
from ser_lightning.features.waveform import Waveform

__all__ = [
    "ComParE147",
    "FeatureExtractor",
    "FeatureStore",
    "LogMelFilterbank",
    "LogPowerSpectrogram",
    "MagnitudeSpectrogram",
    "Prepared",
    "SilenceRemoval",
    "SpeedPerturbation",
    "Waveform",
    "build_extractor",
]
