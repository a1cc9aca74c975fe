"""Finding recordings in folders, and cutting them."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_lightning.audio import read_audio
from ser_lightning.errors import ConfigurationError
from ser_lightning.inference.recordings import Recording, Windowing, cut, default_windowing, find_recordings


def windows_of(length: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Reference: windows begin every hop until one reaches the end."""
    found = []
    for start in range(0, length, hop):
        found.append((start, min(start + window, length)))
        if start + window >= length:
            break
    return found


@pytest.mark.parametrize("block", [1, 3, 7, 100])
@pytest.mark.parametrize(("window", "hop"), [(1, 1), (4, 4), (4, 1), (5, 3), (40, 40)])
def test_windows_of_blocks_are_those_of_the_whole(block: int, window: int, hop: int) -> None:
    for length in (1, 3, 4, 5, 8, 31):
        whole = torch.arange(length, dtype=torch.float32)
        found = list(cut(whole.split(block), window, hop))
        assert [(start, start + len(part)) for start, part in found] == windows_of(length, window, hop)
        for start, part in found:
            assert torch.equal(part, whole[start : start + len(part)])


@pytest.mark.parametrize(("seconds", "hop"), [(0, 0), (4, 0), (4, -1), (1, 2), (float("nan"), 1), (float("inf"), 1)])
def test_windows_with_gaps_are_rejected(seconds: float, hop: float) -> None:
    with pytest.raises(ConfigurationError, match=f"window is {seconds:g} s .*hop {hop:g} s"):
        Windowing(seconds, hop)


def test_only_long_recordings_are_cut_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000 * 61)
    for seconds, cuts in ((60, None), (61, 16)):
        soundfile.write(path, noise[: 8000 * seconds], 8000)
        recording = Recording.open(path, None)
        stretches = list(recording.stretches(16000))
        assert recording.seconds == seconds
        assert (recording.windowing is None) == (cuts is None)
        assert len(stretches) == (cuts or 1)
        assert stretches[-1].end_seconds == seconds
        torch.testing.assert_close(torch.cat([s.waveform for s in stretches]), read_audio(path, 16000))
    stretches = list(Recording.open(path, Windowing(2.0, 1.5)).stretches(16000))
    assert [(s.start_seconds, s.end_seconds) for s in stretches[:3]] == [(0, 2), (1.5, 3.5), (3, 5)]
    assert stretches[-1].end_seconds == 61


@pytest.mark.parametrize(
    ("used_seconds", "uncut", "windowing"),
    [
        (math.inf, 60.0, Windowing(4.0, 4.0)),
        (90.0, 60.0, Windowing(4.0, 4.0)),  # long recordings are cut as for other systems
        (7.5, 7.5, Windowing(7.5, 7.5)),
        (1.5, 1.5, Windowing(1.5, 1.5)),
    ],
)
def test_recordings_longer_than_a_system_uses_are_cut(used_seconds: float, uncut: float, windowing: Windowing) -> None:
    assert default_windowing(uncut, used_seconds) is None
    for seconds in (uncut + 0.01, uncut + 30, 3600.0):
        assert default_windowing(seconds, used_seconds) == windowing


def test_a_folder_gives_its_audio_files_sorted(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.flac", "c.txt", ".hidden.wav", "sub/z.mp3", "sub/a.m4a", ".git/x.wav", "empty/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    found = list(find_recordings([tmp_path / "c.txt", tmp_path]))
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["c.txt", "a.flac", "b.WAV", "sub/a.m4a", "sub/z.mp3"]
    with pytest.raises(ConfigurationError, match=r"empty .*no audio file"):
        list(find_recordings([tmp_path / "empty"]))
