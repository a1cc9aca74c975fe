"""Which files are meant, and the stretches of a recording that are classified."""
# Shapes: N samples.

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from ser_lightning.audio import duration_seconds, read_audio, read_blocks
from ser_lightning.errors import ConfigurationError
from ser_lightning.files import files_below

AUDIO_ENDINGS = frozenset({
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".m4b", ".aac", ".wma", ".amr"),  # not decoded; in silence they would be missed
})  # fmt: skip
"""What is taken for audio below a folder."""

LONGEST_WHOLE_SECONDS = 60.0
"""Longer recordings are classified window by window."""

_BLOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Windowing:
    """Windows of equal length that begin at equal distances.

    They begin at 0 and end with the first one that reaches the end of the recording; that one may be shorter.

    Attributes:
        seconds: Length of a window.
        hop_seconds: Time from the beginning of one window to that of the next; at most ``seconds``.

    Raises:
        ConfigurationError: If a number is not positive, or sound between windows would be passed over.
    """

    seconds: float
    hop_seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.hop_seconds <= self.seconds < float("inf"):
            raise ConfigurationError(
                f"the window is {self.seconds:g} s and the hop {self.hop_seconds:g} s; both must be positive, and the "
                "hop no longer than the window, or sound between windows is not heard"
            )

    @property
    def text(self) -> str:
        """The windows in words."""
        apart = "" if self.hop_seconds == self.seconds else f", {self.hop_seconds:g} s apart"
        return f"{self.seconds:g} s{apart}"


WINDOWS_OF_LONG_RECORDINGS = Windowing(4.0, 4.0)
"""About as long as what the systems learn from; each second of a recording is heard once."""


def default_windowing(seconds: float, heard_seconds: float = inf) -> Windowing | None:
    """Return how a recording of ``seconds`` is cut if nobody says: not at all, unless it is long.

    Args:
        seconds: Its length.
        heard_seconds: How much of what it is given a system hears; longer recordings are cut in windows of that length.
    """
    if seconds <= min(heard_seconds, LONGEST_WHOLE_SECONDS):
        return None
    return (
        WINDOWS_OF_LONG_RECORDINGS if heard_seconds > LONGEST_WHOLE_SECONDS else Windowing(heard_seconds, heard_seconds)
    )


@dataclass(frozen=True)
class Stretch:
    """A part of a recording, or the whole.

    Attributes:
        start_seconds: Where it begins.
        end_seconds: Where it ends.
        waveform: Its samples [N].
    """

    start_seconds: float
    end_seconds: float
    waveform: Tensor


@dataclass(frozen=True)
class Recording:
    """A file that can be heard.

    Attributes:
        path: The file.
        seconds: Its length, from its header.
        windowing: How it is cut; not at all if None.
    """

    path: Path
    seconds: float
    windowing: Windowing | None

    @classmethod
    def open(cls, path: Path, windowing: Windowing | None, heard_seconds: float = inf) -> "Recording":
        """Look at the header of ``path``, and cut it as ``windowing`` says, or as ``default_windowing`` does.

        Raises:
            AudioError: If it cannot be read.
        """
        seconds = duration_seconds(path)
        return cls(path, seconds, windowing or default_windowing(seconds, heard_seconds))

    def stretches(self, sample_rate_hz: int) -> Iterator[Stretch]:
        """Yield what is classified of it, one after the other; never is more in memory than a window and a block.

        Raises:
            AudioError: If it cannot be read, perhaps behind some of its windows.
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
    """Yield the windows of a waveform that comes in ``blocks`` [N], each with its first sample's place.

    Args:
        blocks: The waveform, piece by piece.
        window: Samples of a window.
        hop: Samples from one window's first to the next one's; at most ``window``.
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
    """Yield files as they are given, and in place of a folder the audio files below it, sorted; none is opened.

    In each folder files come before folders. Hidden ones are passed over, and so is what has no ending of audio; links
    to folders are followed, each real folder once.

    Raises:
        ConfigurationError: If a folder holds no audio.
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
            raise ConfigurationError(
                f"{path} holds no audio file; looked for were names that end in {' '.join(sorted(AUDIO_ENDINGS))}"
            )


def _below(root: Path) -> Iterator[Path]:
    for path in files_below(root):
        if not path.name.startswith(".") and path.suffix.lower() in AUDIO_ENDINGS:
            yield path
