"""Draw over time, on recordings, what systems attend to or which clusters they assign frames to."""
# Shapes: N samples, T frames, F features, T' steps of a system, C classes.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ser_lightning.audio import read_audio
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureExtractor, LogPowerSpectrogram, build_extractor
from ser_lightning.inference.classification import batch_of
from ser_lightning.reports.figures import save
from ser_lightning.reports.time_figures import SystemAttention, UtteranceAttention, attention_figure
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import FACTS_FILE
from ser_lightning.systems import EmotionClassifier
from ser_lightning.systems.checkpoint import load_system

MAX_FREQUENCY_HZ = 4000.0  # of the spectrogram
SAME_SECONDS = 1e-3


def write_attention(checkpoints: Sequence[Path], files: Sequence[Path], out: Path, allow: Sequence[str] = ()) -> Path:
    """Draw the attention or the cluster assignment of each checkpoint's system on each file.

    Args:
        checkpoints: The systems, one per row.
        files: The recordings, one per column.
        out: The PNG file.
        allow: Module prefixes to trust in addition to the allow-list.

    Returns:
        ``out``.

    Raises:
        ConfigurationError: If a checkpoint cannot be read, its system has neither attention nor clusters over time, or
            two systems hear different parts of a file.
        AudioError: If a file cannot be read.
    """
    systems = [_Loaded.of(checkpoint, allow) for checkpoint in checkpoints]
    return save(attention_figure([_attend(systems, file) for file in files]), out)


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint with its system and extractor."""

    checkpoint: Path
    system: EmotionClassifier
    extractor: FeatureExtractor

    @classmethod
    def of(cls, checkpoint: Path, allow: Sequence[str]) -> "_Loaded":
        system = load_system(checkpoint, allow)
        return cls(checkpoint, system, build_extractor(system.origin["extractor"]))


def _attend(systems: Sequence[_Loaded], file: Path) -> UtteranceAttention:
    """Return the spectrogram of what the systems hear of a file, with attention and decision of each."""
    first = systems[0].extractor
    waveform = read_audio(file, first.sample_rate_hz)
    heard = first.heard(waveform)
    seconds, whole = (len(one) / first.sample_rate_hz for one in (heard, waveform))
    display = LogPowerSpectrogram(sample_rate_hz=first.sample_rate_hz, max_frequency_hz=MAX_FREQUENCY_HZ)
    power = display(heard[None], torch.tensor([len(heard)]))[0][0] / torch.tensor(10.0).log()
    name = file.stem
    if abs(whole - seconds) > SAME_SECONDS:
        name += f"\n{seconds:.2f} s that the system hears, of {whole:.2f} s"
    attended = [_attention(loaded, file, seconds, systems[0].checkpoint) for loaded in systems]
    return UtteranceAttention(name, seconds, power, MAX_FREQUENCY_HZ, attended)


@torch.no_grad()
def _attention(loaded: _Loaded, file: Path, seconds: float, first: Path) -> SystemAttention:
    """Return attention and decision of a system on a file, of which the first checkpoint's hears ``seconds``."""
    system, extractor = loaded.system, loaded.extractor
    waveform = read_audio(file, extractor.sample_rate_hz)
    hears = len(extractor.heard(waveform)) / extractor.sample_rate_hz
    if abs(hears - seconds) > SAME_SECONDS:
        raise ConfigurationError(
            f"{loaded.checkpoint} hears {hears:.2f} s of {file}, {first} {seconds:.2f} s, because of their extractors; "
            "draw them one by one"
        )
    frames, lengths = extractor(waveform[None], torch.tensor([len(waveform)]))
    try:
        found = system.attention(frames, lengths)
    except ConfigurationError as error:
        raise ConfigurationError(f"{loaded.checkpoint}: {error}") from error
    decision = system.decide(batch_of([frames[0, : lengths[0]]], frames.device))
    index = int(decision.predicted)
    return SystemAttention(
        system=_name(loaded.checkpoint) or type(system).__name__,
        decision=f"{system.class_names[index]} {100 * decision.probabilities[0, index].item():.0f}%",
        weights=found.weights[0],
        step_seconds=found.frames_per_step * extractor.hop_seconds,
        ghosts=found.ghosts,
    )


def _name(checkpoint: Path) -> str:
    """Return experiment and row of a finished run's checkpoint, else an empty string."""
    facts = checkpoint.parent.parent / FACTS_FILE
    if not facts.is_file():
        return ""
    return RunFacts.read(facts).title
