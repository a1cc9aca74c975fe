"""CREMA-D: 91 actors, 12 sentences, 6 emotions, 7442 clips (Cao et al. 2014)."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_modules.base import CorpusDataModule
from data_modules.discovery import (
    Found,
    bad_field,
    check_names,
    find_audio,
    parse_names,
    warn_if_incomplete,
    warn_of_unread,
)
from ser_lightning.data.corpora import CorpusSource
from ser_lightning.data.protocols import ActorFolds, Protocol
from ser_lightning.data.synthetic import Gender
from ser_lightning.data.synthetic_corpus import Clip, write_corpus
from ser_lightning.errors import CorpusError
from ser_lightning.text import identity
from ser_lightning.types import Utterance

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
CLASS_NAMES = tuple(EMOTIONS.values())
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
ACTORS = tuple(str(actor) for actor in range(1001, 1092))
CLIPS = 7442
"""Clips of the whole release, about 82 of each actor."""

NAME_SHAPE = re.compile(r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}")
"""Pattern of audio file names, without extension."""

PAPER_BLOCKS = (*(f"{first}-{first + 8}" for first in range(1001, 1082, 9)), "1082-1091")
"""Ten blocks of actors for `ActorFolds`, as far as Table 1 of Mocanu et al. 2021 can be read."""

# 1076_MTI_NEU_XX is nearly silent, but is used.
FAULTY = {"1076_MTI_SAD_XX": "no audio: every sample is zero"}
"""Reason by utterance name, for the unusable files of the release."""

SAME_AUDIO = (
    ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
    ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
    ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
)
"""Utterances that are byte-identical in the release under two labels."""

SOURCE = CorpusSource(
    title="CREMA-D (91 actors, 7442 clips)",
    licence="Open Database License (ODbL) 1.0, its contents under the Database Contents License 1.0",
    terms="You may share, use and adapt it with attribution, and must share adaptations under the same licence.",
    licence_url="https://opendatacommons.org/licenses/odbl/1-0/",
    home="https://github.com/CheyneyComputerScience/CREMA-D",
    citation="Cao et al. 2014, IEEE Transactions on Affective Computing 5(4), https://doi.org/10.1109/TAFFC.2014.2336244",
    speech="91 actors of several backgrounds playing six emotions in twelve English sentences",
    name_shape=NAME_SHAPE,
    steps=(
        "Install git and git-lfs (https://git-lfs.com), and run once: git lfs install",
        "GIT_LFS_SKIP_SMUDGE=1 git clone https://github.com/CheyneyComputerScience/CREMA-D {folder}",
        'git -C {folder} lfs pull --include "AudioWAV/*"     (without the videos, which are much larger)',
        "Set data.init_args.root to {folder}/AudioWAV, and see ser audit.",
    ),
)

_TITLE = "CREMA-D"
_EXAMPLE = "1001_DFA_ANG_XX.wav"
# Older copies of the release lack a letter; the utterance gets its newer name.
_RENAMED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}
_DEMOGRAPHICS = "VideoDemographics.csv"


def parse_name(path: Path) -> Utterance:
    """Read actor_sentence_emotion_level from a file name; the gender is not in it.

    Args:
        path: A file of the release.

    Raises:
        CorpusError: If the name has another shape or an unknown value.
    """
    name = _RENAMED.get(path.stem, path.stem)
    if not NAME_SHAPE.fullmatch(name):
        raise CorpusError(f"{path}: not a {_TITLE} file name such as {_EXAMPLE}.")
    actor, sentence, emotion, level = name.split("_")
    if actor not in ACTORS:
        raise bad_field(path, "actor", actor, [f"{ACTORS[0]} to {ACTORS[-1]}"])
    for field, value, known in (
        ("sentence", sentence, SENTENCES),
        ("emotion", emotion, tuple(EMOTIONS)),
        ("level", level, tuple(LEVELS)),
    ):
        if value not in known:
            raise bad_field(path, field, value, known)
    return Utterance(name=name, path=path, speaker=actor, label=EMOTIONS[emotion], level=LEVELS[level])


def find_utterances(root: Path) -> Found:
    """Find the clips below ``root``.

    Genders come from ``VideoDemographics.csv`` in ``root``, in its parent, or next to the folder of clips, if present.

    Args:
        root: The release's folder, its ``AudioWAV``, or one above.

    Raises:
        CorpusError: If ``root`` is missing, has no clip of this corpus, or has other audio.

    Warns:
        CorpusWarning: If all actors are present but clips are missing, or are only in an unsupported format.
    """
    audio = find_audio(root, _TITLE)
    for old, new in _RENAMED.items():
        if old in audio and new in audio:
            del audio[old]
    check_names(root, _TITLE, NAME_SHAPE, _EXAMPLE, audio)
    parsed = parse_names(parse_name, audio.values())
    genders = _read_genders([root, root.parent, *dict.fromkeys(u.path.parent.parent for u in parsed)])
    found = sorted((replace(u, gender=genders.get(u.speaker)) for u in parsed), key=lambda u: u.name)
    left_out = {u.name: FAULTY[u.name] for u in found if u.name in FAULTY}
    utterances = tuple(u for u in found if u.name not in left_out)
    if not utterances:
        raise CorpusError(f"{_TITLE}: {root} has only known faulty clips: {', '.join(left_out)}. Add the others.")
    names = {u.name for u in found}
    warn_of_unread(
        root,
        _TITLE,
        lambda path: _RENAMED.get(path.stem, path.stem),
        lambda name: name in names or not NAME_SHAPE.fullmatch(name),
    )
    warn_if_incomplete(root, _TITLE, utterances, ACTORS, CLIPS - len(FAULTY))
    return Found(utterances, left_out)


def write_synthetic(
    folder: Path, speakers: int, seed: int, clips_per_speaker: int | None = None, progress: bool = False
) -> int:
    """Write a synthetic corpus in this release's layout and grammar.

    Args:
        folder: Target folder: empty, missing, or with (part of) the same synthetic corpus.
        speakers: Number of actors, 1 to 91.
        seed: Seed of voices and clips.
        clips_per_speaker: 1 to 82, balanced over emotions as far as possible; all 82 if None.
        progress: Whether to show a progress bar.

    Returns:
        Number of clips written now; existing clips are kept.

    Raises:
        CorpusError: If a number is out of the release's range, or ``folder`` has other content.
    """
    clips = [list(_clips(actor)) for actor in ACTORS]
    written = write_corpus(folder, "crema_d", clips, speakers, seed, clips_per_speaker, progress)
    with (folder / _DEMOGRAPHICS).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ActorID", "Age", "Sex", "Race", "Ethnicity"])
        table.writerows([actor, "", _synthetic_gender(actor).title(), "", ""] for actor in ACTORS[:speakers])
    return written


def _clips(actor: str) -> Iterator[Clip]:
    for index, sentence in enumerate(SENTENCES):
        for code, emotion in EMOTIONS.items():
            # In the release one sentence has three levels, for every emotion except neutral.
            levels = ("LO", "MD", "HI") if sentence == "IEO" and code != "NEU" else ("XX",)
            for level in levels:
                yield Clip(
                    file=Path("AudioWAV", f"{actor}_{sentence}_{code}_{level}.wav"),
                    speaker=actor,
                    gender=_synthetic_gender(actor),
                    emotion=emotion,
                    intensity={"LO": 0.7, "MD": 1.0, "HI": 1.3, "XX": 1.0}[level],
                    sentence=index,
                )


def _synthetic_gender(actor: str) -> Gender:
    return "male" if int(actor) % 2 else "female"


def _read_genders(folders: Sequence[Path]) -> Mapping[str, Gender]:
    path = next((folder / _DEMOGRAPHICS for folder in folders if (folder / _DEMOGRAPHICS).is_file()), None)
    if path is None:
        return {}
    way_out = "fetch the file again, or move it away; genders are optional."
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}); {way_out}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 text ({error.reason}); {way_out}") from error
    table = csv.DictReader(io.StringIO(text, newline=""), restval="")
    if missing := {"ActorID", "Sex"} - set(table.fieldnames or ()):
        raise CorpusError(f"{path}: the column {', '.join(sorted(missing))} is missing; {way_out}")
    genders: dict[str, Gender] = {}
    for row in table:
        match identity(row["Sex"]).lower():
            case "male":
                genders[identity(row["ActorID"])] = "male"
            case "female":
                genders[identity(row["ActorID"])] = "female"
    return genders


class CremaD(CorpusDataModule):
    """CREMA-D under the ten actor folds of Mocanu et al. 2021, or any other protocol.

    Six emotions; chance is 16.7% UA. Neutral has slightly fewer clips.
    """

    corpus = "crema_d"
    class_names = CLASS_NAMES
    known_same_audio = SAME_AUDIO

    def find(self) -> Found:
        """Return the clips below ``root``, without the release's empty one."""
        return find_utterances(self.root)

    @staticmethod
    def default_protocol() -> Protocol:
        """Return the ten actor folds."""
        return ActorFolds(list(PAPER_BLOCKS))
