"""Which clips a synthetic VoxCeleb2 has."""

import base64
import hashlib
from pathlib import Path

from ser_lightning.data.synthetic_corpus import Clip

_VIDEOS = 3
_CLIPS = 6  # of a video


def clips_of(speaker: int) -> list[Clip]:
    """Return all clips of a speaker: three videos of six clips."""
    name = f"id{speaker:05d}"
    clips = []
    for number in range(_VIDEOS * _CLIPS):
        # As in the release, the numbers of a speaker's clips go on from one video to the next.
        digest = hashlib.sha256(f"{name}/{number // _CLIPS}".encode()).digest()
        video = base64.urlsafe_b64encode(digest).decode()[:11].replace("-", "_")
        clip = Clip(
            file=Path(name, video, f"{number + 1:05d}.wav"),
            speaker=name,
            gender="male" if speaker % 2 else "female",
            emotion=("neutral", "happy", "excited")[number % 3],
            intensity=0.5,
            sentence=number,
        )
        clips.append(clip)
    return clips
