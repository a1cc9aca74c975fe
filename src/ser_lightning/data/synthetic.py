"""Synthetic emotional speech (source-filter model), to try every system without a corpus.

A pulse train with the emotion's pitch, loudness, rate, brightness and roughness is filtered by the formants of a
speaker's vocal tract. Emotions overlap and speakers differ, so a working classifier is well above chance and well below
perfect on unseen speakers. Scores on it say nothing about real speech.
"""
# Shapes: N samples, S syllables.

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from ser_lightning.files import files_below, write_atomically

Gender = Literal["female", "male"]
Waveform = NDArray[np.float32]

GENERATOR = "ser_lightning.data.synthetic"
VERSION = 1
"""Increase it when the same seed gives other audio."""

MARKER = "SYNTHETIC.json"

# F1 to F3 in Hz of ten American English vowels, means over men (Peterson & Barney 1952, table II).
_VOWELS = (
    (270, 2290, 3010),
    (390, 1990, 2550),
    (530, 1840, 2480),
    (660, 1720, 2410),
    (730, 1090, 2440),
    (570, 840, 2410),
    (440, 1020, 2240),
    (300, 870, 2240),
    (640, 1190, 2390),
    (490, 1350, 1690),
)
_F4_HZ = 3500
_BANDWIDTHS_HZ = (70, 100, 150, 220)


@dataclass(frozen=True, slots=True)
class EmotionStyle:
    """How an emotion differs from the speaker's neutral voice, at intensity 1.

    Attributes:
        pitch: Mean pitch, in semitones from the speaker's own.
        pitch_range: Standard deviation of the syllables' pitch, in semitones.
        slope: Pitch at the end less pitch at the start, in semitones.
        level: Loudness, in dB.
        rate: Speaking rate, in octaves (1 is twice as fast).
        brightness: Corner of the source's low-pass, in octaves.
        jitter: Standard deviation of the pitch's fast wobble, as a part of the pitch.
        breath: Noise in the source, in dB.
    """

    pitch: float = 0.0
    pitch_range: float = 1.8
    slope: float = -1.5
    level: float = 0.0
    rate: float = 0.0
    brightness: float = 0.0
    jitter: float = 0.008
    breath: float = 0.0


STYLES = {
    "neutral": EmotionStyle(),
    "calm": EmotionStyle(-1.2, 1.4, -1.5, -3.0, -0.18, -0.30, 0.006, 5.0),
    "happy": EmotionStyle(3.5, 3.4, 0.5, 4.0, 0.14, 0.60, 0.010, -2.0),
    "sad": EmotionStyle(0.5, 1.2, -3.0, -7.0, -0.30, -1.10, 0.018, 2.0),
    "angry": EmotionStyle(3.0, 3.0, -2.5, 8.0, 0.10, 1.10, 0.030, -3.0),
    "fearful": EmotionStyle(6.0, 2.0, 0.0, -1.5, 0.30, -0.30, 0.040, 6.0),
    "disgust": EmotionStyle(-1.8, 2.4, -3.5, 1.0, -0.22, 0.40, 0.035, -1.0),
    "surprised": EmotionStyle(6.5, 4.8, 5.5, 2.0, -0.08, 0.10, 0.010, 2.0),
    "excited": EmotionStyle(4.5, 4.0, 1.0, 5.5, 0.22, 0.65, 0.014, 0.0),
    "frustrated": EmotionStyle(1.2, 2.3, -2.5, 4.0, -0.06, 0.60, 0.024, -1.0),
}
"""Style of each emotion, by class name."""

# Standard deviation of a clip from its style, in the units of EmotionStyle; it sets how much emotions overlap.
_STRAY = {"pitch": 0.9, "slope": 1.2, "level": 1.2, "rate": 0.07, "brightness": 0.18, "breath": 1.5}


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker and their recording conditions.

    Attributes:
        pitch_hz: Mean pitch when neutral.
        formant_scale: Formants relative to a man's of average size; longer vocal tracts are below 1.
        breath: Noise in the source, in dB.
        level: Loudness, in dB.
        brightness: Corner of the source's low-pass, in octaves.
        colour: Tilt of the recording: coefficient of a first-order high-pass (above 0) or low-pass (below 0).
        expressiveness: Factor on the intensity of every emotion of this speaker.
    """

    pitch_hz: float
    formant_scale: float
    breath: float
    level: float
    brightness: float
    colour: float
    expressiveness: float

    @classmethod
    def draw(cls, gender: Gender, rng: np.random.Generator) -> Self:
        """Draw a speaker of ``gender``."""
        pitch_hz, formant_scale = (200.0, 1.16) if gender == "female" else (115.0, 1.0)
        return cls(
            pitch_hz=pitch_hz * 2 ** rng.normal(0, 1.5 / 12),
            formant_scale=formant_scale * 2 ** rng.normal(0, 0.04),
            breath=rng.normal(0, 1.5),
            level=rng.normal(0, 1.0),
            brightness=rng.normal(0, 0.15),
            colour=rng.uniform(-0.15, 0.2),
            expressiveness=2 ** rng.normal(0, 0.15),
        )


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator for ``seed`` and ``names``, so that clips are drawn independently."""
    digest = hashlib.sha256("\n".join((str(seed), *names)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def synthesise(
    voice: Voice,
    emotion: str,
    intensity: float,
    sentence: int,
    rng: np.random.Generator,
    sample_rate_hz: int = 16000,
) -> Waveform:
    """Return one utterance of about 1.2 to 2 seconds, float32 [N] within -1 and 1.

    Args:
        voice: The speaker.
        emotion: Key of `STYLES`.
        intensity: Intensity of the emotion; 1 is usual, 0 is neutral.
        sentence: Index of the sentence, 0 or more; determines number, stress and vowels of the syllables.
        rng: Generator of the variation between readings.
        sample_rate_hz: At least 8000.

    Raises:
        ValueError: If the emotion is unknown or the sampling rate too low.
    """
    from scipy.signal import lfilter, sosfilt  # a heavy import

    if emotion not in STYLES:
        raise ValueError(f"emotion {emotion!r} is unknown; known are {', '.join(STYLES)}")
    if sample_rate_hz < 8000:
        raise ValueError(f"sample_rate_hz is {sample_rate_hz}; choose 8000 or more")
    style, neutral, words = STYLES[emotion], STYLES["neutral"], np.random.default_rng(sentence)
    far = intensity * voice.expressiveness

    def cue(key: str) -> float:
        base, full = float(getattr(neutral, key)), float(getattr(style, key))
        return base + far * (full - base) + float(rng.normal(0, _STRAY.get(key, 0.0)))

    syllables = int(words.integers(6, 8))
    vowels = words.choice(len(_VOWELS), syllables)
    stress = words.uniform(0.5, 1.0, syllables)
    seconds = 0.185 * 2 ** -cue("rate") * words.uniform(0.8, 1.2, syllables) * rng.uniform(0.92, 1.08, syllables)
    edges = np.concatenate([[0.0], np.cumsum(seconds)])
    lead, tail = rng.uniform(0.1, 0.22, 2)
    time = np.arange(round(edges[-1] * sample_rate_hz)) / sample_rate_hz
    centres = (edges[:-1] + edges[1:]) / 2

    # Pitch: the speaker's mean, a line, one accent a syllable, and a wobble every 8 ms.
    accents = cue("pitch_range") * (stress - 0.75) / 0.15 * rng.normal(1.0, 0.35, syllables)
    semitones = cue("pitch") + cue("slope") * (time / edges[-1] - 0.5) + np.interp(time, centres, accents)
    knots = np.arange(0, edges[-1] + 0.008, 0.008)
    wobble = np.interp(time, knots, rng.normal(0, max(cue("jitter"), 0.0), len(knots)))
    pitch_hz = np.clip(voice.pitch_hz * 2 ** (semitones / 12), 55, 700) * (1 + wobble)

    # Source: derivative of a polynomial glottal flow that is open for 60% of the period; breath follows the flow.
    phase = np.cumsum(pitch_hz) / sample_rate_hz % 1 / 0.6
    is_open = phase < 1
    breath = 0.06 * 10 ** ((voice.breath + cue("breath")) / 20) * rng.standard_normal(len(time))
    source = is_open * (2 * phase - 3 * phase**2) + (0.4 + is_open) * breath
    corner_hz = min(1400 * 2 ** (voice.brightness + cue("brightness")), 0.45 * sample_rate_hz)
    pole = np.exp(-2 * np.pi * corner_hz / sample_rate_hz)
    source = lfilter([1 - pole], [1, -pole], source)

    # Filter: one vocal tract for each vowel, cross-faded, so that nothing clicks.
    voiced = np.zeros_like(time)
    for vowel in np.unique(vowels):
        weight = np.interp(time, centres, (vowels == vowel).astype(float))
        voiced += weight * sosfilt(_vocal_tract(int(vowel), voice.formant_scale, sample_rate_hz), source)

    # Syllables: loud in the middle; every one begins with a consonant's hiss.
    index = np.clip(np.searchsorted(edges, time, side="right") - 1, 0, syllables - 1)
    inside = (time - edges[index]) / seconds[index]
    speech = voiced * stress[index] * (0.06 + np.sin(np.pi * np.clip(inside, 0, 1)) ** 0.7)
    speech /= np.sqrt(np.mean(speech**2))
    hiss = lfilter([1, -0.9], [1], rng.standard_normal(len(time)))
    consonants = words.uniform(0.0, 0.35, syllables)
    speech += hiss * consonants[index] * np.exp(-(((inside - 0.08) / 0.07) ** 2))
    speech *= 10 ** ((-31 + voice.level + cue("level")) / 20)

    ends = [round(part * sample_rate_hz) for part in (lead, tail)]
    waveform = lfilter([1, -voice.colour], [1], np.pad(speech, ends))
    waveform += 10 ** (-64 / 20) * rng.standard_normal(len(waveform))
    return np.asarray(waveform * min(1.0, 0.98 / np.abs(waveform).max()), dtype=np.float32)


def write_clip(path: Path, waveform: Waveform, sample_rate_hz: int) -> None:
    """Write a mono waveform [N] as 16-bit WAV, atomically."""
    content = io.BytesIO()
    soundfile.write(content, waveform, sample_rate_hz, subtype="PCM_16", format="WAV")
    write_atomically(path, content.getvalue())


def marker_content(corpus: str, seed: int, speakers: int, clips_per_speaker: int | None) -> dict[str, str | int | None]:
    """Return what the marker of a synthetic corpus says."""
    return {
        "generator": GENERATOR,
        "version": VERSION,
        "corpus": corpus,
        "seed": seed,
        "speakers": speakers,
        "clips_per_speaker": clips_per_speaker,
    }


def write_marker(folder: Path, corpus: str, seed: int, speakers: int, clips_per_speaker: int | None = None) -> None:
    """Write the file at the root of a synthetic corpus that marks it as synthetic."""
    marker = marker_content(corpus, seed, speakers, clips_per_speaker)
    write_atomically(folder / MARKER, f"{json.dumps(marker, indent=2)}\n".encode())


def is_synthetic(root: Path) -> bool:
    """Return whether ``root``, a folder above it or one below it is the root of a synthetic corpus."""
    around = (root, *root.resolve().parents)
    return any((folder / MARKER).is_file() for folder in around) or any(
        path.name == MARKER for path in files_below(root, only_readable=True)
    )


def _vocal_tract(vowel: int, formant_scale: float, sample_rate_hz: int) -> NDArray[np.float64]:
    """Return second-order sections, one resonator of unit gain at 0 Hz for each formant (Klatt 1980, eq. 1)."""
    formants = np.array([*_VOWELS[vowel], _F4_HZ]) * formant_scale
    keep = formants < 0.45 * sample_rate_hz
    radius = np.exp(-np.pi * np.array(_BANDWIDTHS_HZ)[keep] / sample_rate_hz)
    cosine = np.cos(2 * np.pi * formants[keep] / sample_rate_hz)
    a1, a2 = -2 * radius * cosine, radius**2
    zero, one = np.zeros_like(a1), np.ones_like(a1)
    return np.stack([1 + a1 + a2, zero, zero, one, a1, a2], axis=1)
