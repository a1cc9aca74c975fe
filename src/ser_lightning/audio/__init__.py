"""Audio files: their formats, checks of what their headers declare, decoding and resampling."""

from ser_lightning.audio.headers import AUDIO_ENDINGS, LOSSY_ENDINGS, UNREAD_ENDINGS, why_unreadable
from ser_lightning.audio.reading import (
    READING_VERSION,
    audio_digest,
    duration_seconds,
    read_audio,
    read_blocks,
    read_crop,
)

__all__ = [
    "AUDIO_ENDINGS",
    "LOSSY_ENDINGS",
    "READING_VERSION",
    "UNREAD_ENDINGS",
    "audio_digest",
    "duration_seconds",
    "read_audio",
    "read_blocks",
    "read_crop",
    "why_unreadable",
]
