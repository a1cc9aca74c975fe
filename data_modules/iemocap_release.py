"""The files of IEMOCAP's release: which sessions, annotations and audio are there, and whether they fit together."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_modules.discovery import CorpusWarning, find_audio, check_names, first_few
from data_modules.emo_evaluation import Evaluation, read_evaluations
from ser_lightning.errors import CorpusError

DIALOGS = 151
"""Dialogs of the whole release."""

COUNTS: Mapping[str, int] = {
    **{"neu": 1708, "hap": 595, "sad": 1084, "ang": 1103, "exc": 1041, "fru": 1849},
    **{"sur": 107, "fea": 40, "dis": 2, "oth": 3, "xxx": 2507},
}
"""Utterances of the whole release by label code; Huang et al. 2020 use 1708 + 595 + 1084 + 1103 + 1041 = 5531."""

IMPROVISED = 4784
"""Utterances of its improvised dialogs, with whatever label (Ando et al. 2019, section 4.1)."""

IMPROVISED_COUNTS: Mapping[str, int] = {"neu": 1099, "hap": 284, "sad": 608, "ang": 289}
"""Utterances of its improvised dialogs by label code (Ando et al. 2019, section 4.1)."""

NAME_SHAPE = re.compile(r"Ses\d\d[FM]_(impro|script)\w+")
"""What every audio file is named like, without ending."""

_SESSIONS = {1, 2, 3, 4, 5}
_TITLE = "IEMOCAP"
_EXAMPLE = "Ses01F_impro01_F000.wav"
_LEVELS = 5  # the root itself, the sessions in it, or below up to three folders in it


class ReleaseWarning(CorpusWarning):
    """A copy of the release holds less, or other things, than the release."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a copy of the release, or of a part of it, holds.

    Attributes:
        root: The folder that was given.
        evaluations: By utterance name, ordered by it; utterances of all labels, with and without audio.
        audio: Files by utterance name, with and without annotation.
    """

    root: Path
    evaluations: Mapping[str, Evaluation]
    audio: Mapping[str, Path]

    def check_audio_has_label(self, names: Iterable[str]) -> None:
        """Check that every one of the audio files ``names`` has an annotation.

        Raises:
            CorpusError: If one has none; names up to five.
        """
        silent = [self.audio[name] for name in names if name not in self.evaluations]
        if silent:
            raise CorpusError(
                f"{_TITLE}: {len(silent)} of the {len(self.audio)} audio files in {self.root} have no annotation in "
                f"their session's dialog/EmoEvaluation: {first_few([os.path.relpath(p, self.root) for p in silent])}. Add "
                "the release's annotation files, or move the audio out of the folder."
            )

    def check_labels_have_audio(self, used: Sequence[Evaluation]) -> None:
        """Check that every utterance that is ``used`` has audio.

        Raises:
            CorpusError: If some have none; names them all.
        """
        silent = [e.name for e in used if e.name not in self.audio]
        if silent:
            raise CorpusError(
                f"{_TITLE}: {len(silent)} of the {len(used)} utterances to be used from {self.root} have no audio: "
                f"{', '.join(silent)}. Unpack the release's SessionN/sentences/wav again, or do without them: "
                "data.init_args.on_bad_audio: skip leaves them out and records them."
            )


def read_release(root: Path) -> Release:
    """Read every annotation and look up every audio file of the sessions in ``root``.

    Args:
        root: The folder that holds the ``Session*`` folders, one up to three levels above, or one of them.

    Raises:
        CorpusError: If ``root`` is missing or holds no session of this corpus, if a session is there twice or has no
            audio, if an annotation cannot be read or stands there twice, or if audio is named as in another corpus.
    """
    evaluations: dict[str, Evaluation] = {}
    audio: dict[str, Path] = {}
    for session in _sessions(root):
        # Folders in this folder hold each evaluator's own files, in other grammars.
        for file in sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
            for evaluation in read_evaluations(file):
                if twin := evaluations.get(evaluation.name):
                    raise CorpusError(
                        f"{_TITLE}: {twin.name} is annotated twice, in {twin.file} and {file}; compare with the "
                        "release's, and remove one."
                    )
                evaluations[evaluation.name] = evaluation
        sentences = session / "sentences" / "wav"
        if not sentences.is_dir():
            raise CorpusError(
                f"{_TITLE}: {session} has no sentences/wav, where the audio is; unpack the release again, or move the "
                "session out of the folder to do without it."
            )
        audio |= find_audio(sentences, _TITLE)
    check_names(root, _TITLE, NAME_SHAPE, _EXAMPLE, audio)
    return Release(root, dict(sorted(evaluations.items())), audio)


def count_differences(evaluations: Iterable[Evaluation]) -> list[str]:
    """Return in what way the counts of a whole release differ from what is known of it.

    Args:
        evaluations: Of all dialogs. What is checked is a copy with all five sessions; of one that has improvised
            dialogs alone, only these.

    Returns:
        The differences in words; none for some of the sessions, or scripted dialogs alone.
    """
    everything = list(evaluations)
    improvised = Counter(e.code for e in everything if e.improvised)
    if {e.session for e in everything} != _SESSIONS or not improvised:
        return []
    checks = [
        ("improvised", improvised.total(), IMPROVISED),
        *((f"improvised with the label {code}", improvised[code], n) for code, n in IMPROVISED_COUNTS.items()),
    ]
    if improvised.total() < len(everything):
        codes = Counter(e.code for e in everything)
        checks = [
            ("dialogs", len({e.dialog for e in everything}), DIALOGS),
            ("utterances", codes.total(), sum(COUNTS.values())),
            *((f"with the label {code}", codes[code], count) for code, count in COUNTS.items()),
            *checks,
        ]
    return [f"{there} {what}, not {known}" for what, there, known in checks if there != known]


def _sessions(root: Path) -> list[Path]:
    level = [root] if root.is_dir() else []
    for _ in range(_LEVELS):
        named: defaultdict[int, list[Path]] = defaultdict(list)
        for folder in level:
            if match := re.fullmatch(r"(?i)session([1-5])", folder.absolute().name):
                named[int(match[1])].append(folder)
        sessions = [_session(number, folders, root) for number, folders in sorted(named.items())]
        if found := [folder for folder in sessions if folder]:
            return found
        level = [folder for above in level for folder in _folders_in(above)]
    audio = find_audio(root, _TITLE)
    check_names(root, _TITLE, NAME_SHAPE, _EXAMPLE, audio)
    raise CorpusError(
        f"{_TITLE}: {root} holds {len(audio)} audio files, but none of the folders Session1 to Session5, which hold "
        "dialog/EmoEvaluation with the labels and sentences/wav. Set `root` to the folder of the unpacked release."
    )


def _session(number: int, folders: Sequence[Path], root: Path) -> Path | None:
    """Return the one of equally named ``folders`` that is a session, if one is."""
    parts = {folder: sum(os.path.isdir(folder / part) for part in ("dialog", "sentences")) for folder in folders}
    most = max(parts.values())
    # What is reached by a link too is one folder. One with only annotation or audio is a session where no other is.
    found = {os.path.realpath(folder): folder for folder, count in reversed(parts.items()) if count == most > 0}
    if len(found) > 1:
        raise CorpusError(
            f"{_TITLE}: session {number} lies below {root} {len(found)} times: {first_few(sorted(map(str, found.values())))}"
            ". Set `root` to the folder of one copy of the release, or move the others out of it."
        )
    return next(iter(found.values()), None)


def _folders_in(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # such as lost+found, which nobody may read, and which files_below passes over too
        return []
    return [folder / name for name in names if not name.startswith(".") and os.path.isdir(folder / name)]
