"""IEMOCAP: 5 sessions, 10 speakers, 10039 utterances, each labelled by several evaluators (Busso et al. 2008).

The licence is free on request at https://sail.usc.edu/iemocap.
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
from ser_lightning.data.targets import Targets, TrainingSet
from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.features import FeatureExtractor
from ser_lightning.types import Utterance

Dialogs = Literal["all", "improvised", "scripted"]
Others = Literal["leave_out", "keep"]

EMOTIONS = tuple(emotion for emotion in CODES.values() if emotion)
"""The possible majority labels."""

CLASS_NAMES = ("angry", "happy", "sad", "neutral")
"""The four classes of most papers, in the order of Huang et al. 2020, section 3.1."""

SOURCE = CorpusSource(
    title="IEMOCAP (10 speakers, 10039 utterances)",
    licence="licence of the University of Southern California, research use only",
    terms="Access needs a signed release form; redistribution is not allowed.",
    licence_url="https://sail.usc.edu/iemocap/iemocap_release.htm",
    home="https://sail.usc.edu/iemocap",
    citation="Busso et al. 2008, Language Resources and Evaluation 42(4), https://doi.org/10.1007/s10579-008-9076-6",
    speech="ten actors in a laboratory, in pairs, improvising and playing scripted scenes in American English",
    name_shape=NAME_SHAPE,
    steps=(
        "Fill in and send the release form at https://sail.usc.edu/iemocap/iemocap_release.htm; a link comes by mail.",
        "Unpack IEMOCAP_full_release into {folder}; needed are sentences/wav and dialog/EmoEvaluation of each session.",
        "Set data.init_args.root to {folder}, and see ser audit.",
    ),
)

ANDO_TABLE_1: Mapping[TrainingSet, Mapping[str, float]] = {
    "dominant": {"neutral": 58.2, "happy": 15.4, "sad": 30.5, "angry": 15.9},
    "all": {"neutral": 45.2, "happy": 24.0, "sad": 19.8, "angry": 17.8},
}
"""Percent of improvised utterances in which each emotion exists (Ando et al. 2019, table 1)."""

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

    Parts of the release are accepted: some sessions or some dialogs. Only the utterances that are used need audio.

    Args:
        root: The parent of the ``Session*`` folders, a folder up to three levels above, or one of them.
        dialogs: Which dialogs to use.
        classes: Emotions that can be dominant.
        merge_excited: Count excited as happy, in labels and votes.
        others: Drop utterances without a dominant emotion in ``classes``, or keep them unlabelled.
        on_bad_audio: Whether an utterance without audio is an error, or is skipped and recorded.

    Raises:
        CorpusError: If ``root`` is missing or has no session of this corpus, if an annotation is invalid or duplicate,
            if audio has no annotation, if an utterance has no audio and ``on_bad_audio`` is ``stop``, or if no
            utterance remains.
    """
    release = read_release(root)
    if (differences := count_differences(release.evaluations.values())) and not is_synthetic(root):
        warnings.warn(
            f"IEMOCAP: {root} has all five sessions, but {'; '.join(differences)}. Unless you removed them on purpose, "
            "unpack the release again: results may not be comparable.",
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
            f"IEMOCAP: {root} has {len(release.evaluations)} utterances, {len(chosen)} of them in `dialogs` "
            f"({dialogs}), but none has the label {' or '.join(classes)}; choose other `dialogs` or `classes`."
        )
    if unrated := [e.name for e in used if not e.votes]:
        warnings.warn(
            f"IEMOCAP: {len(unrated)} of the {len(used)} utterances used from {root} have no evaluator (C-E): "
            f"{first_few(unrated)}. Their label counts as one vote; compare the annotation with the release's.",
            ReleaseWarning,
            stacklevel=2,
        )
    with_audio = [e for e in used if e.name in release.audio]
    if on_bad_audio == "stop" or not with_audio:
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
            for e in with_audio
        ),
        left_out={e.name: f"labelled in {e.file}, but has no audio" for e in used if e.name not in release.audio},
    )


def write_synthetic(
    folder: Path, speakers: int, seed: int, clips_per_speaker: int | None = None, progress: bool = False
) -> int:
    """Write a synthetic corpus in this release's layout and grammar, with several evaluators.

    Args:
        folder: Target folder: empty, missing, or with (part of) the same synthetic corpus.
        speakers: 2, 4, 6, 8 or 10: two speak in each session.
        seed: Seed of voices, clips and votes.
        clips_per_speaker: 1 to 100, with about the release's label proportions; all 100 if None.
        progress: Whether to show a progress bar.

    Returns:
        Number of clips written now; existing clips are kept.

    Raises:
        CorpusError: If a number is out of the release's range, or ``folder`` has other content, such as the synthetic
            corpus of an earlier version.
    """
    turns = recordings(speakers, seed, clips_per_speaker)
    by_speaker = {turn.evaluation.speaker: list[Clip]() for turn in turns}
    for turn in turns:
        by_speaker[turn.evaluation.speaker].append(turn.clip)
    contents = documents(turns)
    for file, content in contents.items():
        # Otherwise the old annotation of other turns would remain and count too.
        if (folder / file).is_file() and (folder / file).read_bytes() != content:
            raise CorpusError(
                f"{folder / file} has other content: {folder} is a synthetic corpus of another seed, size or version. "
                "Choose another folder, or delete this one."
            )
    return write_corpus(
        folder, "iemocap", list(by_speaker.values()), speakers, seed, clips_per_speaker, progress, contents
    )


class IEMOCAP(CorpusDataModule):
    """IEMOCAP under leave one speaker out, or any other protocol.

    With the defaults there are four classes and 5531 utterances, and chance is 25% UA. Improvised dialogs without
    merging excited, as in Ando et al. 2019, have 2280 utterances, or 4784 if others are kept.

    Args:
        root: The parent of the ``Session*`` folders, a folder up to three levels above, or one of them.
        extractor: The feature extractor.
        dialogs: Which dialogs to use.
        classes: The emotions, in the order of the logits.
        merge_excited: Count excited as happy, in labels and votes.
        others: Drop utterances without a dominant emotion in ``classes``, or keep them unlabelled for targets that use
            votes.
        protocol: How utterances become folds; by default one fold for each speaker.
        fold: Fold to train and test, counted from 0.
        batch_size: Utterances of a global batch; every process takes its share.
        on_bad_audio: ``stop`` raises an error that names all unusable or missing files; ``skip`` skips and records
            them.
        feature_folder: Where extracted features are stored; processes and machines may share it.
        workers: Processes that extract features.
        seed: Seed of the training order.
        targets: The training targets; by default hard ones, the dominant emotion.
        speeds: Further speeds of training utterances, such as 0.9 and 1.1.
        features: ``stored`` stores extracted frames; ``on_device`` stores waveforms, and extracts frames of each batch
            on the training device.
        crop_frames: Frames of a random crop of each training utterance; by default whole utterances.
        batches: ``length`` batches training utterances of similar length; ``class`` balances the classes.
        recognise: The classes: ``classes``, or speakers. For speakers the default protocol holds out a few clips of
            each.
        label_map: New names of labels, such as ``{calm: neutral, surprised: null}``: null leaves a label's utterances
            out, labels that are not named stay, and classes are in alphabetical order.

    Raises:
        ConfigurationError: If ``classes`` has fewer than two emotions, a duplicate, an unknown one, or excited although
            that is merged into happy.
    """

    corpus = "iemocap"

    def __init__(
        self,
        root: str | Path,
        extractor: FeatureExtractor,
        dialogs: Dialogs = "all",
        classes: tuple[str, ...] = CLASS_NAMES,
        merge_excited: bool = True,
        others: Others = "leave_out",
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
        label_map: dict[str, str | None] | None = None,
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
        # Last, because with speakers as classes it finds utterances.
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

    @property
    def published_existence(self) -> Mapping[TrainingSet, Mapping[str, float]]:
        """Percent of utterances in which each emotion exists, as Ando et al. 2019 state it for these utterances."""
        is_theirs = self.dialogs == "improvised" and not self.merge_excited and set(self.classes) == set(CLASS_NAMES)
        return ANDO_TABLE_1 if is_theirs and self.recognise == "emotion" else {}

    def find(self) -> Found:
        """Return the utterances of the chosen dialogs below ``root``."""
        return find_utterances(
            self.root, self.dialogs, self.classes, self.merge_excited, self.others, self.on_bad_audio
        )

    @staticmethod
    def default_protocol() -> Protocol:
        """Return leave one speaker out."""
        return LeaveOneSpeakerOut()


def _bad_classes(what: str) -> ConfigurationError:
    return ConfigurationError(f"data.init_args.classes holds {what}.")
