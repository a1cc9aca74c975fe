"""RAVDESS speech, audio only: 24 actors, 8 emotions, 1440 clips (Livingstone & Russo 2018, release 1.0.0)."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from data_modules.base import CorpusDataModule
from data_modules.discovery import (
    Found,
    bad_field,
    check_names,
    find_audio,
    first_few,
    parse_names,
    warn_if_incomplete,
    warn_of_unread,
)
from ser_lightning.data.corpora import Archive, CorpusSource
from ser_lightning.data.protocols import ActorFolds, Protocol
from ser_lightning.data.synthetic import Gender
from ser_lightning.data.synthetic_corpus import Clip, write_corpus
from ser_lightning.errors import CorpusError, CorpusWarning
from ser_lightning.types import Utterance

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
CLASS_NAMES = tuple(EMOTIONS.values())
LEVELS = {"01": "normal", "02": "strong"}
ACTORS = tuple(f"{actor:02d}" for actor in range(1, 25))
CLIPS = 1440
"""Speech clips of the whole release, 60 of each actor."""

NAME_SHAPE = re.compile(r"\d+(-\d+){6}")
"""Pattern of audio file names, without extension."""

PAPER_BLOCKS = ("1-2", "3-5", "6-7", "8-10", "11-12", "13-14", "15-17", "18-19", "20-22", "23-24")
"""Ten blocks of actors for `ActorFolds`; Mocanu et al. 2021 (section 4.1) do not state the actors of their ten."""

SAME_AUDIO = (("03-01-03-01-02-01-07", "03-01-03-01-02-02-07"),)
"""Utterances that are byte-identical in the release: all 1440 clips were compared."""

SOURCE = CorpusSource(
    title="RAVDESS, speech part (24 actors, 1440 clips)",
    licence="CC BY-NC-SA 4.0",
    terms=(
        "You may share and adapt it for non-commercial purposes with attribution, under the same licence. The authors "
        "sell commercial licences."
    ),
    licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    home="https://zenodo.org/records/1188976",
    citation="Livingstone & Russo 2018, PLoS ONE 13(5): e0196391, https://doi.org/10.1371/journal.pone.0196391",
    speech="24 actors in a studio playing eight emotions in two North American English sentences",
    name_shape=NAME_SHAPE,
    archive=Archive(
        url="https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1",
        name="Audio_Speech_Actors_01-24.zip",
        md5="bc696df654c87fed845eb13823edef8a",
        size="about 200 MB",
    ),
)

_TITLE = "RAVDESS"
_EXAMPLE = "03-01-05-02-01-01-01.wav"
_TWO = ("01", "02")
_SPEECH_AUDIO_ONLY = ("03", "01")


def parse_name(path: Path) -> Utterance | None:
    """Read modality-channel-emotion-intensity-statement-repetition-actor from a file name.

    Args:
        path: A file of the release.

    Returns:
        The utterance, or None if the file is of another part of the release: song, or video with or without sound.

    Raises:
        CorpusError: If the name has another shape or an unknown value, or is in another actor's folder.
    """
    if not NAME_SHAPE.fullmatch(path.stem):
        raise CorpusError(f"{path}: not a {_TITLE} file name such as {_EXAMPLE}.")
    modality, channel, emotion, level, statement, repetition, actor = path.stem.split("-")
    for field, value, known in (
        ("modality", modality, ("01", "02", "03")),
        ("channel", channel, _TWO),
        ("emotion", emotion, EMOTIONS),
        ("intensity", level, LEVELS),
        ("statement", statement, _TWO),
        ("repetition", repetition, _TWO),
        ("actor", actor, ACTORS),
    ):
        if value not in known:
            raise bad_field(path, field, value, known)
    folder = re.fullmatch(r"actor_(\d+)", path.parent.name, re.IGNORECASE)
    if folder and int(folder[1]) != int(actor):
        raise CorpusError(
            f"{path}: the file name says actor {actor}, its folder {path.parent.name}; move the file to Actor_{actor} "
            "or fix its name."
        )
    if (modality, channel) != _SPEECH_AUDIO_ONLY:
        return None
    return Utterance(
        name=path.stem,
        path=path,
        speaker=actor,
        label=EMOTIONS[emotion],
        gender=_gender(actor),
        level=LEVELS[level],
    )


def find_utterances(root: Path) -> Found:
    """Find the speech clips below ``root``, at any depth; copies count once.

    Args:
        root: The parent of the ``Actor_*`` folders, or a folder above.

    Raises:
        CorpusError: If ``root`` is missing, has no speech of this corpus, or has other audio.

    Warns:
        CorpusWarning: If song or video is left out, or if all actors are present but clips are missing, or are only in
            an unsupported format.
    """
    audio = find_audio(root, _TITLE)
    check_names(root, _TITLE, NAME_SHAPE, _EXAMPLE, audio)
    parsed = dict(zip(audio, parse_names(parse_name, audio.values()), strict=True))
    utterances = tuple(utterance for utterance in parsed.values() if utterance)
    if not utterances:
        raise CorpusError(
            f"{_TITLE}: all {len(audio)} clips in {root} are song or video, such as {next(iter(audio))}; set `root` to "
            "the speech part, whose names begin with 03-01 (Audio_Speech_Actors_01-24.zip of the release)."
        )
    if others := [name for name, utterance in parsed.items() if utterance is None]:
        warnings.warn(
            f"{_TITLE}: {len(others)} clips in {root} are song or video and not used: {first_few(others)}.",
            CorpusWarning,
            stacklevel=2,
        )
    speech = re.compile(r"03-01(-\d+){5}")
    warn_of_unread(root, _TITLE, lambda path: path.stem, lambda name: name in audio or not speech.fullmatch(name))
    warn_if_incomplete(root, _TITLE, utterances, ACTORS, CLIPS)
    return Found(utterances, left_out={})


def write_synthetic(
    folder: Path, speakers: int, seed: int, clips_per_speaker: int | None = None, progress: bool = False
) -> int:
    """Write a synthetic corpus in this release's layout and grammar.

    Args:
        folder: Target folder: empty, missing, or with (part of) the same synthetic corpus.
        speakers: Number of actors, 1 to 24.
        seed: Seed of voices and clips.
        clips_per_speaker: 1 to 60, balanced over emotions as far as possible; all 60 if None.
        progress: Whether to show a progress bar.

    Returns:
        Number of clips written now; existing clips are kept.

    Raises:
        CorpusError: If a number is out of the release's range, or ``folder`` has other content.
    """
    clips = [list(_clips(actor)) for actor in ACTORS]
    return write_corpus(folder, "ravdess", clips, speakers, seed, clips_per_speaker, progress)


def _clips(actor: str) -> Iterator[Clip]:
    for code, emotion in EMOTIONS.items():
        for level, intensity in (("01", 0.85), ("02", 1.25)):
            if emotion == "neutral" and level == "02":
                continue
            for statement in _TWO:
                for repetition in _TWO:
                    name = f"03-01-{code}-{level}-{statement}-{repetition}-{actor}.wav"
                    yield Clip(
                        file=Path(f"Actor_{actor}", name),
                        speaker=actor,
                        gender=_gender(actor),
                        emotion=emotion,
                        intensity=intensity,
                        sentence=int(statement),
                    )


def _gender(actor: str) -> Gender:
    return "male" if int(actor) % 2 else "female"


class RAVDESS(CorpusDataModule):
    """RAVDESS speech under the ten actor folds of Mocanu et al. 2021, or any other protocol.

    Eight emotions; chance is 12.5% UA. Neutral has half as many clips as the others.
    """

    corpus = "ravdess"
    class_names = CLASS_NAMES
    known_same_audio = SAME_AUDIO

    def find(self) -> Found:
        """Return the speech clips below ``root``."""
        return find_utterances(self.root)

    @staticmethod
    def default_protocol() -> Protocol:
        """Return the ten actor folds."""
        return ActorFolds(list(PAPER_BLOCKS))
