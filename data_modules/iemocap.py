"""IEMOCAP: 5 sessions, 10 speakers, 10039 utterances, each labelled by several evaluators (Busso et al. 2008).

Licensed; to be asked for at https://sail.usc.edu/iemocap.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from data_modules.base import CorpusDataModule
from data_modules.discovery import Found, first_few
from data_modules.emo_evaluation import CODES, Evaluation
from data_modules.iemocap_release import NAME_SHAPE, ReleaseWarning, count_differences, read_release
from data_modules.iemocap_synthetic import documents, recordings
from ser_lightning.data.corpora import CorpusSource
from ser_lightning.data.protocols import LeaveOneSpeakerOut, Protocol
from ser_lightning.data.synthetic import is_synthetic
from ser_lightning.data.synthetic_corpus import Clip, write_corpus
from ser_lightning.data.targets import Targets
from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.features import FeatureExtractor
from ser_lightning.types import Utterance

Dialogs = Literal["all", "improvised", "scripted"]
Others = Literal["leave_out", "keep"]

EMOTIONS = tuple(emotion for emotion in CODES.values() if emotion)
"""What a majority can agree on."""

CLASS_NAMES = ("angry", "happy", "sad", "neutral")
"""The four that most papers use, in the order in which Huang et al. 2020, section 3.1, name them."""

SOURCE = CorpusSource(
    title="IEMOCAP (10 speakers, 10039 utterances)",
    licence="the University of Southern California's own, for research",
    terms="It is handed out on request to those who sign its release form, and must not be passed on.",
    licence_url="https://sail.usc.edu/iemocap/iemocap_release.htm",
    home="https://sail.usc.edu/iemocap",
    citation="Busso et al. 2008, Language Resources and Evaluation 42(4), https://doi.org/10.1007/s10579-008-9076-6",
    speech="ten actors in a laboratory, in pairs, who improvise and play scripted scenes in American English",
    name_shape=NAME_SHAPE,
    steps=(
        "Fill in and send the release form at https://sail.usc.edu/iemocap/iemocap_release.htm; a link comes by mail.",
        "Unpack IEMOCAP_full_release into {folder}; needed are sentences/wav and dialog/EmoEvaluation of each session.",
        "Set data.init_args.root to {folder}, and see ser audit.",
    ),
)

_PART_OF_NAME = {"all": "", "improvised": "_impro", "scripted": "_script"}


def find_utterances(
    root: Path,
    dialogs: Dialogs = "all",
    classes: Sequence[str] = CLASS_NAMES,
    merge_excited: bool = True,
    others: Others = "leave_out",
    on_bad_audio: Literal["stop", "skip"] = "stop",
) -> Found:
    """Find utterances, their dominant emotions and their evaluators' votes.

    A part of the release will do: some sessions, or some dialogs, each with annotation and audio. Only the utterances
    that are used need audio.

    Args:
        root: The folder that holds the ``Session*`` folders, one up to three levels above, or one of them.
        dialogs: Which dialogs to use.
        classes: Emotions that can be dominant.
        merge_excited: Count excited as happy, in labels and votes.
        others: Leave utterances without a dominant emotion of ``classes`` out, or keep them without label.
        on_bad_audio: Whether an utterance without audio is an error, or is left out and recorded.

    Raises:
        CorpusError: If ``root`` is missing or holds no session of this corpus, if an annotation cannot be read or
            stands there twice, if an utterance that is used has no audio and that is an error, if audio has no
            annotation, or if no utterance is left.
    """
    release = read_release(root)
    if (differences := count_differences(release.evaluations.values())) and not is_synthetic(root):
        warnings.warn(
            f"IEMOCAP: {root} holds all five sessions, but there are {'; '.join(differences)}. Unless you have left "
            "them out on purpose, unpack the release again: results may not be comparable with others'.",
            ReleaseWarning,
            stacklevel=2,
        )
    release.check_audio_has_label(name for name in release.audio if _PART_OF_NAME[dialogs] in name)
    renamed: Mapping[str | None, str] = {"excited": "happy"} if merge_excited else {}

    def dominant(evaluation: Evaluation) -> str | None:
        label = renamed.get(evaluation.label, evaluation.label)
        return label if label in classes else None

    chosen = [e for e in release.evaluations.values() if _PART_OF_NAME[dialogs] in e.name]
    used = [e for e in chosen if others == "keep" or dominant(e)]
    if not used:
        raise CorpusError(
            f"IEMOCAP: {root} has {len(release.evaluations)} utterances, {len(chosen)} of them in the dialogs that are "
            f"used ({dialogs}), but none has the label {' or '.join(classes)}; choose other `dialogs` or `classes`."
        )
    if unheard := [e.name for e in used if not e.votes]:
        warnings.warn(
            f"IEMOCAP: {len(unheard)} of the {len(used)} utterances to be used from {root} have no evaluator (C-E): "
            f"{first_few(unheard)}. Where targets are made of votes, their label counts as one; compare the annotation with "
            "the release's.",
            ReleaseWarning,
            stacklevel=2,
        )
    audible = [e for e in used if e.name in release.audio]
    if on_bad_audio == "stop" or not audible:
        release.check_labels_have_audio(used)
    return Found(
        utterances=tuple(
            Utterance(
                name=e.name,
                path=release.audio[e.name],
                speaker=e.speaker,
                label=dominant(e),
                gender=e.gender,
                session=f"Ses0{e.session}",
                votes=tuple(tuple(dict.fromkeys(renamed.get(vote, vote) for vote in votes)) for votes in e.votes),
            )
            for e in audible
        ),
        left_out={e.name: f"labelled in {e.file}, but has no audio" for e in used if e.name not in release.audio},
    )


def write_synthetic(
    folder: Path, speakers: int, seed: int, clips_per_speaker: int | None = None, progress: bool = False
) -> int:
    """Write a synthetic corpus in this release's layout and grammar, with evaluators who disagree.

    Args:
        folder: Where to write; empty, missing, or holding (part of) the same synthetic corpus.
        speakers: 2, 4, 6, 8 or 10: two speak in each session.
        seed: Seed of voices, clips and votes.
        clips_per_speaker: 1 to 100, labels about in the release's proportions; all 100 if None.
        progress: Whether to show a progress bar.

    Returns:
        Number of clips written now; clips that are already there are kept.

    Raises:
        CorpusError: If a number does not fit the release, or ``folder`` holds something else, such as the synthetic
            corpus of an earlier version.
    """
    turns = recordings(speakers, seed, clips_per_speaker)
    by_speaker = {turn.evaluation.speaker: list[Clip]() for turn in turns}
    for turn in turns:
        by_speaker[turn.evaluation.speaker].append(turn.clip)
    contents = documents(turns)
    for file, content in contents.items():
        # Annotation of other turns would stay beside this one's, and both would count.
        if (folder / file).is_file() and (folder / file).read_bytes() != content:
            raise CorpusError(
                f"{folder / file} is not what is to be written there: {folder} holds a synthetic corpus of another "
                "seed or size, or of an earlier version. Choose another folder, or delete this one."
            )
    return write_corpus(
        folder, "iemocap", list(by_speaker.values()), speakers, seed, clips_per_speaker, progress, contents
    )


class IEMOCAP(CorpusDataModule):
    """IEMOCAP, leaving one speaker out, or under any other protocol.

    With the defaults there are four classes and 5531 utterances, and chance is 25% UA. Improvised dialogs with
    excited not merged, as Ando et al. 2019 use them, have 2280 utterances, or 4784 if others are kept.

    Args:
        root: The folder that holds the ``Session*`` folders, one up to three levels above, or one of them.
        extractor: What makes frames of waveforms.
        dialogs: Which dialogs to use.
        classes: The emotions to tell apart, in the order of the logits.
        merge_excited: Count excited as happy, in labels and votes.
        others: Leave utterances without a dominant emotion of ``classes`` out, or keep them without label: evaluators
            may have heard one of ``classes`` in them, which targets made of votes can use.
        protocol: How utterances become folds; one fold for each speaker if left out.
        fold: Fold to train and test, counted from 0.
        batch_size: Utterances of a global batch; every process takes its share.
        on_bad_audio: ``stop`` names all unusable and missing files and ends; ``skip`` leaves them out and records them.
        feature_folder: Where extracted features are stored; processes and machines may share it.
        workers: Processes that extract features.
        seed: Seed of the order of training utterances.
        targets: What an utterance teaches; its dominant emotion if left out.
        speeds: Further speeds at which training utterances are heard, such as 0.9 and 1.1.
        features: ``stored`` extracts frames once and keeps them; ``on_device`` keeps waveforms, and makes frames of
            each batch where the system is trained.
        crop_frames: Frames of a random stretch of each training utterance; whole utterances if left out.
        batches: ``length`` batches training utterances of similar length; ``class`` takes equally many of each class.
        recognise: What the classes are: ``classes``, or speakers, of whom a few clips are then held out unless
            ``protocol`` says otherwise.

    Raises:
        ConfigurationError: If ``classes`` holds fewer than two emotions, one twice, an unknown one, or excited though
            that is merged into happy.
    """

    corpus = "iemocap"

    def __init__(
        self,
        root: Path,
        extractor: FeatureExtractor,
        dialogs: Dialogs = "all",
        classes: tuple[str, ...] = CLASS_NAMES,
        merge_excited: bool = True,
        others: Others = "leave_out",
        protocol: Protocol | None = None,
        fold: int = 0,
        batch_size: int = 32,
        on_bad_audio: Literal["stop", "skip"] = "stop",
        feature_folder: Path = Path(".cache/features"),
        workers: int = 1,
        seed: int = 0,
        targets: Targets | None = None,
        speeds: tuple[float, ...] = (),
        features: Literal["stored", "on_device"] = "stored",
        crop_frames: int | None = None,
        batches: Literal["length", "class"] = "length",
        recognise: Literal["emotion", "speaker"] = "emotion",
    ) -> None:
        unknown = [name for name in classes if name not in EMOTIONS]
        if unknown:
            raise _bad_classes(f"unknown {unknown[0]!r}; choose from {', '.join(EMOTIONS)}")
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise _bad_classes(f"{list(classes)}; choose two or more, each once")
        if merge_excited and "excited" in classes:
            raise _bad_classes("'excited', which is counted as happy; set merge_excited to false, or leave it out")
        self.classes = tuple(classes)
        self.class_names = self.classes
        self.dialogs = dialogs
        self.merge_excited = merge_excited
        self.others = others
        # Last: whose classes are speakers looks for utterances at once.
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
        )

    def find(self) -> Found:
        """Return the utterances of the chosen dialogs below ``root``."""
        return find_utterances(
            self.root, self.dialogs, self.classes, self.merge_excited, self.others, self.on_bad_audio
        )

    @staticmethod
    def default_protocol() -> Protocol:
        """Return one fold for each speaker, whose partner in the session validates."""
        return LeaveOneSpeakerOut()


def _bad_classes(what: str) -> ConfigurationError:
    return ConfigurationError(f"data.init_args.classes holds {what}.")
