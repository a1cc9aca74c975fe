"""The CPU time of a whole process, from importing to the confusion matrix, against a plain PyTorch script."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from benchmarks.row import Row, cpu_seconds_of, row_of
from ser_lightning.losses import Criterion
from ser_lightning.nn.encoders import BidirectionalLSTM
from ser_lightning.nn.pooling import MeanPooling
from ser_lightning.nn.tensors import frame_mask
from ser_lightning.systems.classifier import EmotionClassifier

EXPERIMENT = Path(__file__).parent / "two_blstm.yaml"
NUM_FILES, SECONDS, CELLS = 240, 2, 64
EMOTIONS = ("angry", "happy", "neutral", "sad")
SETS = ("train", "train", "train", "train", "validation", "test")
REPETITIONS = 3


class TwoBLSTM(EmotionClassifier):
    """Two BLSTM layers, the mean over time, and a linear layer.

    Args:
        num_features: F; linked from the data module.
        class_names: The emotions; linked from the data module.
        criterion: Training criterion.
        optimizer: Makes the optimiser.
    """

    def __init__(
        self, num_features: int, class_names: Sequence[str], criterion: Criterion, optimizer: OptimizerCallable
    ) -> None:
        super().__init__(num_features, class_names, criterion, optimizer)
        self.lower = BidirectionalLSTM(num_features, CELLS)
        self.upper = BidirectionalLSTM(self.lower.output_dim, CELLS)
        self.pooling = MeanPooling(self.upper.output_dim)
        self.output = criterion.head(self.pooling.output_dim, len(self.class_names))

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        states, lengths = self.upper(*self.lower(frames, mask.sum(1)))
        logits: Tensor = self.output(self.pooling(states, frame_mask(lengths, states.shape[1])))
        return logits


def rows(repetitions: int = REPETITIONS) -> list[Row]:
    """Return the row of ``ser run-fold`` on 240 files of two seconds, 10 epochs, against ``plain_script.py``.

    Args:
        repetitions: Runs of each.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder)
        pairs = []
        for repetition in range(repetitions):
            ours = [
                *("ser_lightning.cli", "run-fold", "--allow", "benchmarks", f"--config={EXPERIMENT}"),
                f"--data.init_args.root={folder}",
                f"--data.init_args.feature_folder={folder}/features-{repetition}",
                f"--trainer.default_root_dir={folder}/run-{repetition}",
            ]
            pairs.append((cpu_seconds_of(ours), cpu_seconds_of(["benchmarks.plain_script", str(folder)])))
    measured = f"whole process, {NUM_FILES} files, two BLSTM layers, 10 epochs (CPU time)"
    return [row_of(measured, "plain PyTorch script", pairs, 1.5)]


def write_clips(folder: Path) -> None:
    """Write clips of a tone in noise, whose frequency tells the emotion, and a table that lists their sets."""
    random = np.random.default_rng(0)
    time = np.arange(16000 * SECONDS) / 16000
    lines = ["path,speaker,label,split"]
    for index in range(NUM_FILES):
        emotion, speaker = index % len(EMOTIONS), index // len(EMOTIONS) % len(SETS)
        tone = np.sin(2 * np.pi * (200 + 50 * emotion) * random.uniform(0.9, 1.1) * time)
        clip = 0.1 * tone + random.normal(scale=0.1, size=len(time))
        soundfile.write(folder / f"{index:03d}.wav", clip.clip(-1, 1), 16000)
        lines.append(f"{index:03d}.wav,{speaker},{EMOTIONS[emotion]},{SETS[speaker]}")
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
