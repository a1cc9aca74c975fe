"""CREMA-D: 91 actors, 12 sentences, 6 emotions, 7442 clips (Cao et al. 2014)."""

import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from data_modules.base import CorpusDataModule
from data_modules.crema_d_tables import (
    DEMOGRAPHICS,
    VOTES,
    Actor,
    Votes,
    find_table,
    perceived,
    read_actors,
    read_votes,
    synthetic_tables,
)
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
from ser_lightning.data.corpora import CorpusSource
from ser_lightning.data.protocols import ActorFolds, Protocol
from ser_lightning.data.synthetic import Gender
from ser_lightning.data.synthetic_corpus import Clip, write_corpus
from ser_lightning.data.targets import Targets
from ser_lightning.errors import CorpusError, CorpusWarning
from ser_lightning.features import FeatureExtractor
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

Labels = Literal["intended", "perceived"]
Others = Literal["leave_out", "keep"]


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


def find_utterances(root: Path, labels: Labels = "intended", others: Others = "leave_out") -> Found:
    """Find the clips below ``root``.

    The release's tables are looked for in ``root``, in its parent, and next to the folder of clips:
    ``VideoDemographics.csv`` with the actors' sex and age, and ``processedResults/tabulatedVotes.csv`` with the votes.

    Args:
        root: The release's folder, its ``AudioWAV``, or one above.
        labels: ``intended`` is the emotion that the actor was asked to play; ``perceived`` is the one that most
            listeners heard in the voice alone, and gives utterances these listeners' votes.
        others: Drop clips that listeners do not agree on, or keep them unlabelled.

    Raises:
        CorpusError: If ``root`` is missing, has no clip of this corpus, or has other audio; if ``labels`` is
            ``perceived`` and votes are missing or damaged; or if no clip has a label.

    Warns:
        CorpusWarning: If all actors are present but clips are missing, or are only in an unsupported format, or if the
            table of actors is missing.
    """
    audio = find_audio(root, _TITLE)
    for old, new in _RENAMED.items():
        if old in audio and new in audio:
            del audio[old]
    check_names(root, _TITLE, NAME_SHAPE, _EXAMPLE, audio)
    parsed = parse_names(parse_name, audio.values())
    folders = [root, root.parent, *dict.fromkeys(u.path.parent.parent for u in parsed)]
    actors = _read_actors(root, folders)
    unknown = Actor(None, None)
    spoken = (replace(u, **vars(actors.get(u.speaker, unknown))) for u in parsed)
    found = sorted(spoken, key=lambda u: u.name)
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
    if labels == "perceived":
        utterances = _as_perceived(root, folders, utterances, others)
    return Found(utterances, left_out)


def _read_actors(root: Path, folders: Sequence[Path]) -> Mapping[str, Actor]:
    if (path := find_table(DEMOGRAPHICS, folders)) is not None:
        return read_actors(path)
    warnings.warn(
        f"{_TITLE}: {DEMOGRAPHICS} is not in {root} or next to the clips: the actors' sex and age are unknown, so that "
        "ser audit cannot show how they are balanced. Copy it there from the release.",
        CorpusWarning,
        stacklevel=4,
    )
    return {}


def _as_perceived(
    root: Path, folders: Sequence[Path], utterances: Sequence[Utterance], others: Others
) -> tuple[Utterance, ...]:
    """Return the clips with listeners' votes, labelled with the emotion of most votes."""
    way_out = "copy it there from the release, or choose labels: intended"
    if (path := find_table(VOTES, folders)) is None:
        raise CorpusError(
            f"{_TITLE}: {VOTES} is not in {root} or next to the clips; labels: perceived reads the listeners' votes "
            f"from it; {way_out}."
        )
    votes: Mapping[str, Votes] = read_votes(path)
    if missing := [u.name for u in utterances if u.name not in votes]:
        raise CorpusError(
            f"{path} has no votes for {len(missing)} of {len(utterances)} clips: {first_few(missing)}; fetch the file "
            "again, or choose labels: intended."
        )
    heard = (replace(u, label=perceived(votes[u.name]), votes=votes[u.name]) for u in utterances)
    used = tuple(u for u in heard if others == "keep" or u.label)
    if not any(u.label for u in used):
        raise CorpusError(f"{_TITLE}: {root} has only clips that listeners do not agree on; add others.")
    return used


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
    tables = synthetic_tables(list(itertools.chain(*clips[:speakers])), seed)
    return write_corpus(folder, "crema_d", clips, speakers, seed, clips_per_speaker, progress, tables)


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


class CremaD(CorpusDataModule):
    """CREMA-D under the ten actor folds of Mocanu et al. 2021, or any other protocol.

    Six emotions; chance is 16.7% UA. Intended labels are balanced, but neutral has slightly fewer clips; as perceived,
    half of the clips are neutral, and 644 have no dominant emotion.

    Args:
        root: The release's folder, its ``AudioWAV``, or one above.
        extractor: The feature extractor.
        protocol: How utterances become folds; by default the ten actor folds.
        fold: Fold to train and test, counted from 0.
        batch_size: Utterances of a global batch; every process takes its share.
        on_bad_audio: ``stop`` raises an error that names all unusable files; ``skip`` skips and records them.
        feature_folder: Where extracted features are stored; processes and machines may share it.
        workers: Processes that extract features.
        seed: Seed of the training order.
        targets: The training targets; by default hard ones, the dominant emotion.
        speeds: Further speeds of training utterances, such as 0.9 and 1.1.
        features: ``stored`` stores extracted frames; ``on_device`` stores waveforms, and extracts frames of each batch
            on the training device.
        crop_frames: Frames of a random crop of each training utterance; by default whole utterances.
        batches: ``length`` batches training utterances of similar length; ``class`` balances the classes.
        recognise: The classes: emotions, or speakers. For speakers the default protocol holds out a few clips of each.
        label_map: New names of labels, such as ``{calm: neutral, surprised: null}``: null leaves a label's utterances
            out, labels that are not named stay, and classes are in alphabetical order.
        labels: ``intended`` is the emotion that the actor was asked to play; ``perceived`` is the one that most
            listeners heard in the voice alone, and gives the targets these listeners' votes.
        others: Drop clips that listeners do not agree on, or keep them unlabelled for targets that use votes.
    """

    corpus = "crema_d"
    class_names = CLASS_NAMES
    known_same_audio = SAME_AUDIO

    def __init__(
        self,
        root: str | Path,
        extractor: FeatureExtractor,
        protocol: Protocol | None = None,
        fold: int = 0,
        batch_size: int = 32,
        on_bad_audio: Literal["stop", "skip"] = "stop",
        feature_folder: str | Path = Path(".cache/features"),
        workers: int = 1,
        seed: int = 0,
        targets: Targets | None = None,
        speeds: tuple[float, ...] = (),
        features: Literal["stored", "on_device"] = "stored",
        crop_frames: int | None = None,
        batches: Literal["length", "class"] = "length",
        recognise: Literal["emotion", "speaker"] = "emotion",
        labels: Labels = "intended",
        others: Others = "leave_out",
        label_map: dict[str, str | None] | None = None,
    ) -> None:
        self.labels: Labels = labels
        self.others: Others = others
        super().__init__(
            root=root,
            extractor=extractor,
            protocol=protocol,
            fold=fold,
            batch_size=batch_size,
            on_bad_audio=on_bad_audio,
            feature_folder=feature_folder,
            workers=workers,
            seed=seed,
            targets=targets,
            speeds=speeds,
            features=features,
            crop_frames=crop_frames,
            batches=batches,
            recognise=recognise,
            label_map=label_map,
        )

    def find(self) -> Found:
        """Return the clips below ``root``, without the release's empty one."""
        return find_utterances(self.root, self.labels, self.others)

    @staticmethod
    def default_protocol() -> Protocol:
        """Return the ten actor folds."""
        return ActorFolds(list(PAPER_BLOCKS))
