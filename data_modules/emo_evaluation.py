"""IEMOCAP's EmoEvaluation files: each evaluator's labels of each utterance (Busso et al. 2008, section 4)."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ser_lightning.data.synthetic import Gender
from ser_lightning.errors import CorpusError

CODES: Mapping[str, str | None] = {
    "neu": "neutral",
    "hap": "happy",
    "sad": "sad",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgust",
    "oth": "other",
    "xxx": None,  # no majority
}
"""Class name by label code in an utterance's first line."""

WORDS: Mapping[str, str] = {
    "Neutral": "neutral",
    "Happiness": "happy",
    "Sadness": "sad",
    "Anger": "angry",
    "Excited": "excited",
    "Frustration": "frustrated",
    "Surprise": "surprised",
    "Fear": "fearful",
    "Disgust": "disgust",
    "Other": "other",
}
"""Class name by an evaluator's word."""

NAME = re.compile(r"(?P<dialog>Ses0(?P<session>[1-5])[FM]_(?P<kind>impro|script)\w+)_(?P<letter>[FM])[^\W_]+")
"""An utterance's name. The dialog's letter is the actor with motion capture, the last part's the speaker."""

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_FIRST = re.compile(
    rf"\[\s*(?P<start>{_NUMBER})\s*-\s*(?P<end>{_NUMBER})\s*\]\s+(?P<name>\S+)\s+(?P<code>[^\s\[]+)"
    r"(?:\s*\[(?P<means>[^\]]*)\])?"
)
_LINE = re.compile(r"(?i)(?P<kind>[CA])-(?P<evaluator>[EFM]\d*)\s*:(?P<values>[^(]*)(\(.*)?")
_REMARK_BETWEEN = re.compile(r"\((?:[^()]|\([^()]*\))*\)(?=\s*;)")
_SCALES = re.compile(rf"(?i)\b(val|act|dom)\s+(-?{_NUMBER})\s*(?:;|$)")


@dataclass(frozen=True, slots=True)
class Attributes:
    """Valence, activation and dominance of an utterance, 1 to 5 each; None if not given."""

    valence: float | None = None
    activation: float | None = None
    dominance: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One utterance of an EmoEvaluation file.

    Attributes:
        name: Name of the utterance.
        file: The EmoEvaluation file.
        start_seconds: Start of the utterance in its dialog.
        end_seconds: End of the utterance in its dialog.
        code: Majority label, a key of `CODES`.
        means: Means of the evaluators' attributes; None if the file has no number.
        votes: Each evaluator's labels, one or several, as class names, in the file's order.
        self_assessments: The actors' labels of themselves, by their name in the file (``F1``, ``M1``).
        attributes: Attributes given by each evaluator and actor, by their name in the file (``E3``, ``F1``).
    """

    name: str
    file: Path
    start_seconds: float
    end_seconds: float
    code: str
    means: Attributes
    votes: tuple[tuple[str, ...], ...] = ()
    self_assessments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: Mapping[str, Attributes] = field(default_factory=dict)

    @property
    def label(self) -> str | None:
        """The majority label as a class name; None if there is no majority."""
        return CODES[self.code]

    @property
    def dialog(self) -> str:
        """The utterance's dialog, such as ``Ses01F_impro01``."""
        return self._part("dialog")

    @property
    def improvised(self) -> bool:
        """Whether the dialog was improvised, not scripted."""
        return self._part("kind") == "impro"

    @property
    def session(self) -> int:
        """The session, 1 to 5."""
        return int(self._part("session"))

    @property
    def speaker(self) -> str:
        """Session and letter of the speaker, such as ``Ses01F``."""
        return f"Ses0{self._part('session')}{self._part('letter')}"

    @property
    def gender(self) -> Gender:
        """Gender of the speaker."""
        return "female" if self._part("letter") == "F" else "male"

    def _part(self, group: Literal["dialog", "session", "kind", "letter"]) -> str:
        match = NAME.fullmatch(self.name)
        assert match is not None, self.name
        return match[group]


def read_evaluations(file: Path) -> list[Evaluation]:
    """Read an EmoEvaluation file with any line ends, blank lines and white space.

    Free text in brackets is ignored, and so are lines that neither look like annotation nor name an utterance.

    Args:
        file: Such as ``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt``.

    Returns:
        The utterances in the file's order.

    Raises:
        CorpusError: If an annotation line is invalid, is before the first utterance or has an unknown label, or if an
            utterance ends before it starts; it names file, line and value.
    """
    blocks: list[tuple[Evaluation, list[tuple[str, ...]], dict[str, tuple[str, ...]], dict[str, Attributes]]] = []
    for number, line in _lines(file):
        where = f"{file}, line {number}"
        if line.startswith("["):
            blocks.append((_first_line(line, file, where), [], {}, {}))
        elif match := _LINE.fullmatch(_REMARK_BETWEEN.sub("", line)):
            if not blocks:
                raise _unreadable(where, line, "it is before the first utterance")
            _, votes, self_assessments, attributes = blocks[-1]
            evaluator, values = match["evaluator"].upper(), match["values"]
            if match["kind"].upper() == "A":
                attributes[evaluator] = _attributes(values)
            elif evaluator.startswith("E"):
                votes.append(_labels(values, where))
            else:
                self_assessments[evaluator] = _labels(values, where)
        elif line.upper().startswith(("C-", "A-")) or NAME.search(line):
            raise _unreadable(where, line, "it is neither an utterance's first line nor an evaluator's")
    return [
        Evaluation(
            *(first.name, first.file, first.start_seconds, first.end_seconds, first.code, first.means),
            votes=tuple(votes),
            self_assessments=self_assessments,
            attributes=attributes,
        )
        for first, votes, self_assessments, attributes in blocks
    ]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    # Only free text has non-ASCII characters, in unknown encodings, and it is ignored.
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if (stripped := line.strip()) and not stripped.startswith("%"):
                yield number, stripped


def _first_line(line: str, file: Path, where: str) -> Evaluation:
    match = _FIRST.fullmatch(line)
    if match is None:
        raise _unreadable(where, line, "an utterance's first line is [start - end], name, label, [val, act, dom]")
    start, end = float(match["start"]), float(match["end"])
    if end < start:
        raise _unreadable(where, line, "the utterance ends before it starts")
    name, code = match["name"], match["code"].lower()
    if not NAME.fullmatch(name):
        raise _unknown(where, "utterance name", name, ["names such as Ses01F_impro01_F000"])
    if code not in CODES:
        raise _unknown(where, "label", match["code"], CODES)
    return Evaluation(name, file, start, end, code, _means(match["means"] or ""))


def _means(values: str) -> Attributes:
    # The means are not used for training, so an invalid one (NaN) is not an error.
    numbers = [float(value) if re.fullmatch(_NUMBER, value.strip()) else None for value in values.split(",")]
    return Attributes(*numbers) if len(numbers) == 3 else Attributes()


def _labels(values: str, where: str) -> tuple[str, ...]:
    words = [word.strip() for word in values.split(";") if word.strip()]
    if unknown := [word for word in words if word.capitalize() not in WORDS]:
        raise _unknown(where, "category", unknown[0], WORDS)
    return tuple(dict.fromkeys(WORDS[word.capitalize()] for word in words))


def _attributes(values: str) -> Attributes:
    scales = {scale.lower(): float(value) for scale, value in _SCALES.findall(values)}
    return Attributes(scales.get("val"), scales.get("act"), scales.get("dom"))


def _unknown(where: str, field_name: str, value: str, known: Collection[str]) -> CorpusError:
    return CorpusError(
        f"{where}: the {field_name} {value!r} is unknown; known are {', '.join(known)}. Restore the file from the "
        "release."
    )


def _unreadable(where: str, line: str, why: str) -> CorpusError:
    return CorpusError(f"{where}: cannot read {line!r}: {why}. Restore the file from the release.")
