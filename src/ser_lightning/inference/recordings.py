"""Find recordings and cut them into the stretches to classify."""
# Shapes: N samples.

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from ser_lightning.audio import AUDIO_ENDINGS, UNREAD_ENDINGS, duration_seconds, read_audio, read_blocks
from ser_lightning.errors import ConfigurationError
from ser_lightning.files import files_below

LONGEST_WHOLE_SECONDS = 60.0
"""Longer recordings are classified in windows."""

_BLOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Windowing:
    """Windows of equal length and hop, from 0 to the first that reaches the end of the recording (may be shorter).

    Attributes:
        seconds: Length of a window.
        hop_seconds: Time between the starts of windows; at most ``seconds``.

    Raises:
        ConfigurationError: If a number is not positive, or the hop is longer than the window.
    """

    seconds: float
    hop_seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.hop_seconds <= self.seconds < float("inf"):
            raise ConfigurationError(
                f"the window is {self.seconds:g} s and the hop {self.hop_seconds:g} s; both must be positive, and the "
                "hop at most the window"
            )

    @property
    def text(self) -> str:
        """The windows in words."""
        apart = "" if self.hop_seconds == self.seconds else f", {self.hop_seconds:g} s apart"
        return f"{self.seconds:g} s{apart}"


WINDOWS_OF_LONG_RECORDINGS = Windowing(4.0, 4.0)
"""About the length of training utterances, without overlap."""


def default_windowing(seconds: float, used_seconds: float = inf) -> Windowing | None:
    """Return the default windows of a recording: None (whole) unless it is long.

    Args:
        seconds: Duration of the recording.
        used_seconds: Duration that the system uses; longer recordings are cut into windows of that length.
    """
    if seconds <= min(used_seconds, LONGEST_WHOLE_SECONDS):
        return None
    return WINDOWS_OF_LONG_RECORDINGS if used_seconds > LONGEST_WHOLE_SECONDS else Windowing(used_seconds, used_seconds)


@dataclass(frozen=True)
class Stretch:
    """A window of a recording, or the whole.

    Attributes:
        start_seconds: Start.
        end_seconds: End.
        waveform: Samples [N].
    """

    start_seconds: float
    end_seconds: float
    waveform: Tensor


@dataclass(frozen=True)
class Recording:
    """An audio file.

    Attributes:
        path: The file.
        seconds: Its duration, from its header.
        windowing: How to cut it; None: whole.
    """

    path: Path
    seconds: float
    windowing: Windowing | None

    @classmethod
    def open(cls, path: Path, windowing: Windowing | None, used_seconds: float = inf) -> "Recording":
        """Read the header of ``path``; without ``windowing``, ``default_windowing`` applies.

        Raises:
            AudioError: If the file cannot be read.
        """
        seconds = duration_seconds(path)
        return cls(path, seconds, windowing or default_windowing(seconds, used_seconds))

    def stretches(self, sample_rate_hz: int) -> Iterator[Stretch]:
        """Yield the stretches to classify; at most a window and a block are in memory.

        Raises:
            AudioError: If the file cannot be read, possibly after some windows.
        """
        if self.windowing is None:
            yield Stretch(0.0, self.seconds, read_audio(self.path, sample_rate_hz))
            return
        window = max(1, round(self.windowing.seconds * sample_rate_hz))
        hop = max(1, round(self.windowing.hop_seconds * sample_rate_hz))
        blocks = read_blocks(self.path, sample_rate_hz, round(_BLOCK_SECONDS * sample_rate_hz))
        for start, waveform in cut(blocks, window, hop):
            end_seconds = min((start + len(waveform)) / sample_rate_hz, self.seconds)
            yield Stretch(start / sample_rate_hz, end_seconds, waveform)


def cut(blocks: Iterable[Tensor], window: int, hop: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the windows of a waveform in ``blocks`` [N], each with the index of its first sample.

    Args:
        blocks: Consecutive blocks of the waveform.
        window: Samples per window.
        hop: Samples between the starts of windows; at most ``window``.
    """
    held, start = torch.zeros(0), 0  # samples from ``start`` on
    reached = 0  # end of the last window
    for block in blocks:
        held = torch.cat([held, block])
        while len(held) >= window:
            yield start, held[:window].clone()
            reached = start + window
            held, start = held[hop:], start + hop
    if start + len(held) > reached:
        yield start, held


def find_recordings(given: Sequence[Path]) -> Iterator[Path]:
    """Yield the given files, and for a folder the audio files below it, sorted, without opening them.

    Files come before subfolders. Hidden files and other suffixes are skipped; audio in unsupported formats is not, so
    that it is reported. Links to folders are followed, each real folder once.

    Raises:
        ConfigurationError: If a folder contains no audio file.
    """
    for path in given:
        if not path.is_dir():
            yield path
            continue
        found = False
        for file in _below(path):
            found = True
            yield file
        if not found:
            raise ConfigurationError(f"{path} contains no audio file; audio files end in {' '.join(AUDIO_ENDINGS)}")


def _below(root: Path) -> Iterator[Path]:
    for path in files_below(root):
        if not path.name.startswith(".") and path.suffix.lower() in (*AUDIO_ENDINGS, *UNREAD_ENDINGS):
            yield path
