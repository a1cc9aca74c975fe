"""The files of IEMOCAP's release: sessions, annotations and audio, and checks that they match."""

import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_modules.discovery import check_names, find_audio, first_few
from data_modules.emo_evaluation import Evaluation, read_evaluations
from ser_lightning.errors import CorpusError, CorpusWarning

DIALOGS = 151
"""Dialogs of the whole release."""

COUNTS: Mapping[str, int] = {
    **{"neu": 1708, "hap": 595, "sad": 1084, "ang": 1103, "exc": 1041, "fru": 1849},
    **{"sur": 107, "fea": 40, "dis": 2, "oth": 3, "xxx": 2507},
}
"""Utterances of the whole release by label code; Huang et al. 2020 use 1708 + 595 + 1084 + 1103 + 1041 = 5531."""

IMPROVISED = 4784
"""Utterances of its improvised dialogs with any label (Ando et al. 2019, section 4.1)."""

IMPROVISED_COUNTS: Mapping[str, int] = {"neu": 1099, "hap": 284, "sad": 608, "ang": 289}
"""Utterances of its improvised dialogs by label code (Ando et al. 2019, section 4.1)."""

NAME_SHAPE = re.compile(r"Ses\d\d[FM]_(impro|script)\w+")
"""Pattern of audio file names, without extension."""

_SESSIONS = {1, 2, 3, 4, 5}
_TITLE = "IEMOCAP"
_EXAMPLE = "Ses01F_impro01_F000.wav"
_PARTS = ("dialog", "sentences")  # of a session's folder
_SESSION = re.compile(r"(?i)session([1-5])")
_LIKE_A_SESSION = re.compile(r"(?i)ses(s?ion)?[ _.-]*0*\d+.*")
_LEVELS = 5  # root is a session, holds sessions, or holds them up to three folders below


class ReleaseWarning(CorpusWarning):
    """A copy of the release differs from the release."""


@dataclass(frozen=True, slots=True)
class Release:
    """The content of a copy of the release, or of a part of it.

    Attributes:
        root: The corpus folder.
        evaluations: Annotation by utterance name, sorted, of all labels, with and without audio.
        audio: Files by utterance name, with and without annotation.
    """

    root: Path
    evaluations: Mapping[str, Evaluation]
    audio: Mapping[str, Path]

    def check_audio_has_label(self, names: Iterable[str]) -> None:
        """Check that every audio file in ``names`` has an annotation.

        Raises:
            CorpusError: If any has none; it names up to five.
        """
        unlabelled = [self.audio[name] for name in names if name not in self.evaluations]
        if unlabelled:
            shown = first_few([os.path.relpath(path, self.root) for path in unlabelled])
            raise CorpusError(
                f"{_TITLE}: {len(unlabelled)} of the {len(self.audio)} audio files in {self.root} have no annotation "
                f"in their session's dialog/EmoEvaluation: {shown}. Add the release's annotation files, or move the "
                "audio out of the folder."
            )

    def check_labels_have_audio(self, used: Sequence[Evaluation]) -> None:
        """Check that every ``used`` utterance has audio.

        Raises:
            CorpusError: If any has none; it names them all.
        """
        silent = [e.name for e in used if e.name not in self.audio]
        if silent:
            raise CorpusError(
                f"{_TITLE}: {len(silent)} of the {len(used)} utterances used from {self.root} have no audio: "
                f"{', '.join(silent)}. Unpack the release's SessionN/sentences/wav again, or skip and record them by "
                "data.init_args.on_bad_audio: skip."
            )


def read_release(root: Path) -> Release:
    """Read all annotation and find all audio files of the sessions in ``root``.

    Args:
        root: The parent of the ``Session*`` folders, a folder up to three levels above, or one of them.

    Raises:
        CorpusError: If ``root`` is missing or has no session of this corpus, if a session is there twice or has no
            audio, if an annotation is invalid or duplicate, or if audio is named as in another corpus.

    Warns:
        ReleaseWarning: If a folder or file looks like a part of the release, but has another name or place.
    """
    evaluations: dict[str, Evaluation] = {}
    audio: dict[str, Path] = {}
    sessions = _sessions(root)
    for session in sessions:
        # Its subfolders have each evaluator's files, in other formats.
        for file in sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
            for evaluation in read_evaluations(file):
                if twin := evaluations.get(evaluation.name):
                    raise CorpusError(
                        f"{_TITLE}: {twin.name} is annotated twice, in {twin.file} and {file}; remove the one that is "
                        "not in the release."
                    )
                evaluations[evaluation.name] = evaluation
        sentences = session / "sentences" / "wav"
        if not sentences.is_dir():
            raise CorpusError(
                f"{_TITLE}: {session} has no sentences/wav with the audio; unpack the release again, or move the "
                "session out of the folder."
            )
        audio |= find_audio(sentences, _TITLE)
    check_names(root, _TITLE, NAME_SHAPE, _EXAMPLE, audio)
    _warn_of_unused(root, sessions)
    return Release(root, dict(sorted(evaluations.items())), audio)


def count_differences(evaluations: Iterable[Evaluation]) -> list[str]:
    """Return how the counts of a copy with all five sessions differ from the release's.

    Args:
        evaluations: Annotation of all dialogs, or of the improvised ones only.

    Returns:
        The differences in words; none for a copy with some sessions or only scripted dialogs.
    """
    annotated = list(evaluations)
    improvised = Counter(e.code for e in annotated if e.improvised)
    if {e.session for e in annotated} != _SESSIONS or not improvised:
        return []
    checks = [
        ("improvised", improvised.total(), IMPROVISED),
        *((f"improvised with the label {code}", improvised[code], n) for code, n in IMPROVISED_COUNTS.items()),
    ]
    if improvised.total() < len(annotated):
        codes = Counter(e.code for e in annotated)
        checks = [
            ("dialogs", len({e.dialog for e in annotated}), DIALOGS),
            ("utterances", codes.total(), sum(COUNTS.values())),
            *((f"with the label {code}", codes[code], count) for code, count in COUNTS.items()),
            *checks,
        ]
    return [f"{found} {what}, not {known}" for what, found, known in checks if found != known]


def _sessions(root: Path) -> list[Path]:
    level = [root] if root.is_dir() else []
    for _ in range(_LEVELS):
        named: defaultdict[int, list[Path]] = defaultdict(list)
        for folder in level:
            if match := _SESSION.fullmatch(folder.absolute().name):
                named[int(match[1])].append(folder)
        sessions = [_session(number, folders, root) for number, folders in sorted(named.items())]
        if found := [folder for folder in sessions if folder]:
            return found
        level = [folder for above in level for folder in _folders_in(above)]
    audio = find_audio(root, _TITLE)
    check_names(root, _TITLE, NAME_SHAPE, _EXAMPLE, audio)
    raise CorpusError(
        f"{_TITLE}: {root} has {len(audio)} audio files, but none of the folders Session1 to Session5 with the labels "
        "in dialog/EmoEvaluation and the audio in sentences/wav. Set `root` to the folder of the unpacked release."
    )


def _warn_of_unused(root: Path, sessions: Sequence[Path]) -> None:
    unused = [
        str(file)
        for session in sessions
        for file in sorted((session / "dialog" / "EmoEvaluation").glob("*.[tT][xX][tT]"))
        if not (file.name.startswith(".") or (file.name.startswith("Ses") and file.suffix == ".txt"))
    ]
    found = {os.path.realpath(session) for session in sessions}
    numbers = {session.absolute().name[-1] for session in sessions}
    for folder in [] if root in sessions else _folders_near(root, sessions):
        match = _SESSION.fullmatch(folder.name)
        if os.path.realpath(folder) in found or (match and match[1] in numbers):
            continue  # used, or a copy
        subfolders = {inner.name for inner in _folders_in(folder)}
        if subfolders & set(_PARTS) or (subfolders and _LIKE_A_SESSION.fullmatch(folder.name)):
            unused.append(str(folder))
    if unused:
        warnings.warn(
            f"{_TITLE}: not used, because name or place is not the release's: {first_few(unused)}. Name sessions "
            "Session1 to Session5, in one folder, and their annotations as Ses01F_impro01.txt, or move them away.",
            ReleaseWarning,
            stacklevel=4,
        )


def _folders_near(root: Path, sessions: Sequence[Path]) -> list[Path]:
    """Return the folders down to the level of ``sessions``, and those in the sessions' neighbours."""
    level, found = [root], list[Path]()
    while level and sessions[0] not in level:
        level = [inner for folder in level for inner in _folders_in(folder)]
        found += level
    neighbours = [folder for folder in level if folder.parent == sessions[0].parent and folder not in sessions]
    return found + [inner for folder in neighbours for inner in _folders_in(folder)]


def _session(number: int, folders: Sequence[Path], root: Path) -> Path | None:
    """Return the one of ``folders`` with the same name that is a session, if any."""
    parts = {folder: sum(os.path.isdir(folder / part) for part in _PARTS) for folder in folders}
    most = max(parts.values())
    # A folder and a link to it count once. One with only annotation or audio counts if no other has both.
    found = {os.path.realpath(folder): folder for folder, count in reversed(parts.items()) if count == most > 0}
    if len(found) > 1:
        raise CorpusError(
            f"{_TITLE}: session {number} is below {root} {len(found)} times: "
            f"{first_few(sorted(map(str, found.values())))}. Set `root` to one copy of the release, or move the others "
            "away."
        )
    return next(iter(found.values()), None)


def _folders_in(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # such as lost+found, which files_below skips too
        return []
    return [folder / name for name in names if not name.startswith(".") and os.path.isdir(folder / name)]
