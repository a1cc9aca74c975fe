"""Draw the attention of checkpoints over time on recordings."""
# Shapes: N samples, T frames, F features, T' steps of a system, C classes.

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

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


def write_attention(checkpoints: Sequence[Path], files: Sequence[Path], out: Path, allow: Sequence[str] = ()) -> Path:
    """Draw the attention of each checkpoint's system to each file.

    Args:
        checkpoints: The systems, one per row.
        files: The recordings, one per column.
        out: The PNG file.
        allow: Module prefixes to trust in addition to the allow-list.

    Returns:
        ``out``.

    Raises:
        ConfigurationError: If a checkpoint cannot be read, or its system has no attention over time.
        AudioError: If a file cannot be read.
    """
    display = LogPowerSpectrogram(max_frequency_hz=MAX_FREQUENCY_HZ)
    attended: list[list[SystemAttention]] = [[] for _ in files]
    for checkpoint in checkpoints:
        system = load_system(checkpoint, allow)
        extractor = build_extractor(system.origin["extractor"])
        if not extractor.keeps_time:
            raise ConfigurationError(
                f"{checkpoint}: frames of {type(extractor).__name__} do not map to times in the recording; choose a "
                "checkpoint whose extractor keeps silences and speed"
            )
        name = _name(checkpoint) or type(system).__name__
        for found, file in zip(attended, files, strict=True):
            try:
                found.append(_attend(system, extractor, read_audio(file, extractor.sample_rate_hz), name))
            except ConfigurationError as error:
                raise ConfigurationError(f"{checkpoint}: {error}") from error
    utterances = []
    for found, file in zip(attended, files, strict=True):
        waveform = read_audio(file, display.sample_rate_hz)
        power = display(waveform[None], torch.tensor([len(waveform)]))[0][0] / torch.tensor(10.0).log()
        utterances.append(
            UtteranceAttention(file.stem, len(waveform) / display.sample_rate_hz, power, MAX_FREQUENCY_HZ, found)
        )
    return save(attention_figure(utterances), out)


@torch.no_grad()
def _attend(system: EmotionClassifier, extractor: FeatureExtractor, waveform: Tensor, name: str) -> SystemAttention:
    """Return the attention and decision of a system for one ``waveform`` [N]."""
    frames, lengths = extractor(waveform[None], torch.tensor([len(waveform)]))
    weights, frames_of_step = system.attention(frames, lengths)
    decision = system.decide(batch_of([frames[0, : lengths[0]]], frames.device))
    index = int(decision.predicted)
    return SystemAttention(
        system=name,
        decision=f"{system.class_names[index]} {100 * decision.probabilities[0, index].item():.0f}%",
        weights=weights[0],
        step_seconds=frames_of_step * extractor.hop_seconds,
    )


def _name(checkpoint: Path) -> str:
    """Return experiment and row of a finished run's checkpoint, else an empty string."""
    facts = checkpoint.parent.parent / FACTS_FILE
    if not facts.is_file():
        return ""
    return RunFacts.read(facts).title
