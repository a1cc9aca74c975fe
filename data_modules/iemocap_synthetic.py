"""Content of a synthetic IEMOCAP: dialogs, speakers, emotions, and the votes of simulated evaluators.

Each evaluator votes for the played emotion or a similar one; the label is the majority of at least two votes, as in the
release (Busso et al. 2008). The fewer agree, the weaker the emotion is played.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_modules.emo_evaluation import CODES, WORDS, Attributes, Evaluation
from ser_lightning.data.synthetic import generator
from ser_lightning.data.synthetic_corpus import Clip
from ser_lightning.errors import CorpusError

Votes = tuple[tuple[str, ...], ...]

MOST_CLIPS = 100
"""Clips of a speaker: 50 in improvised dialogs and 50 in scripted ones."""

LABELS = {"neu": 8, "hap": 4, "sad": 6, "ang": 6, "xxx": 11, "fru": 8, "exc": 5, "sur": 1, "fea": 1}
"""Number of each label in 50 utterances, about as in the release; a smaller corpus keeps the proportions."""

NEIGHBOURS = {
    "neutral": ("frustrated", "sad"),
    "happy": ("excited", "neutral"),
    "sad": ("frustrated", "neutral"),
    "angry": ("frustrated", "disgust"),
    "frustrated": ("angry", "neutral"),
    "excited": ("happy", "surprised"),
    "surprised": ("excited", "fearful"),
    "fearful": ("surprised", "sad"),
}
"""Similar emotions that evaluators give instead of the played one."""

# Votes, mostly of three evaluators: P the played emotion, Q and R similar ones, O other.
_AGREEING = ("P P P", "P P P", "P P P Q", "P P Q", "P P Q", "PQ P P", "PQ P P", "P PQ R", "P P O", "PQ PR P")
_DISAGREEING = ("P Q R", "PQ P Q", "P Q R O", "P QR O")
_PLAYED_WITHOUT_MAJORITY = ("frustrated", "neutral", "happy", "angry", "sad", "excited")
_TURNS_A_DIALOG = 5
_EVALUATORS = ("E1", "E2", "E3", "E4", "E5", "E6")
_PARTS = {
    False: ("impro01", "impro02", "impro03", "impro04", "impro05"),
    True: ("script01_1", "script01_2", "script01_3", "script02_1", "script02_2"),
}
# By session and whether scripted: the release's names of some dialogs with motion capture of the male actor.
_LETTERED = {(3, False): ("impro05a", "impro05b"), (5, True): ("script01_1b", "script01_1")}
_REMARKS = ("", "", "", "amused", "tired; hesitant", "speaks (almost) to herself", "caf\xe9")
_ATTRIBUTES = {  # valence, activation, dominance
    "neutral": (3, 2, 3),
    "happy": (4, 3, 3),
    "sad": (2, 2, 2),
    "angry": (1, 4, 4),
    "frustrated": (2, 3, 3),
    "excited": (5, 4, 3),
    "surprised": (3, 4, 2),
    "fearful": (2, 4, 1),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """An utterance: its clip and its annotation; files are relative to the corpus folder."""

    clip: Clip
    evaluation: Evaluation


def majority(votes: Votes) -> str:
    """Return the label code of the most frequent emotion, if it is unique and has at least two votes."""
    counts = Counter(emotion for emotions in votes for emotion in emotions).most_common(2)
    alone = len(counts) == 1 or counts[0][1] > counts[1][1]
    return next(c for c, emotion in CODES.items() if emotion == counts[0][0]) if alone and counts[0][1] > 1 else "xxx"


def recordings(speakers: int, seed: int, clips_per_speaker: int | None = None) -> list[Turn]:
    """Return every utterance of a synthetic corpus, in the order of its dialogs.

    Args:
        speakers: 2, 4, 6, 8 or 10.
        seed: Seed of the votes.
        clips_per_speaker: 1 to `MOST_CLIPS`; all if None.

    Raises:
        CorpusError: If a number is out of the release's range.
    """
    clips = MOST_CLIPS if clips_per_speaker is None else clips_per_speaker
    if speakers not in range(2, 11, 2):
        raise CorpusError(f"{speakers} speakers do not fit iemocap; choose 2, 4, 6, 8 or 10: two speak in a session.")
    if not 1 <= clips <= MOST_CLIPS:
        raise CorpusError(f"{clips} clips per speaker do not fit iemocap; choose 1 to {MOST_CLIPS}.")
    codes = sorted(
        ((turn / count, place, code) for place, (code, count) in enumerate(LABELS.items()) for turn in range(count)),
    )
    turns = []
    for session in range(1, speakers // 2 + 1):
        for scripted in (False, True):
            clock = 0.0
            dialogs = _dialogs(session, scripted)
            for index in range((clips + (not scripted)) // 2):
                dialog = dialogs[index // _TURNS_A_DIALOG]
                clock = 0.0 if index % _TURNS_A_DIALOG == 0 else clock
                for letter in "FM":
                    name = f"{dialog}_{letter}{_number(index % _TURNS_A_DIALOG, letter != dialog[5])}"
                    turn = _turn(session, dialog, name, codes[index][2], index, clock, seed)
                    clock = turn.evaluation.end_seconds
                    turns.append(turn)
    return turns


def documents(turns: Iterable[Turn]) -> dict[Path, bytes]:
    """Return the contents of a synthetic corpus's other files, by path relative to the corpus folder.

    These are the annotation of ``turns``, and files that a reader must skip: macOS's ``._*``, and each evaluator's and
    actor's files. Scripted dialogs have Windows line ends, improvised ones Unix line ends.
    """
    blocks: defaultdict[Path, list[Evaluation]] = defaultdict(list)
    for turn in turns:
        blocks[turn.evaluation.file].append(turn.evaluation)
    contents: dict[Path, bytes] = {}
    for file, evaluations in blocks.items():
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for evaluation in evaluations:
            lines += [*_block(evaluation), ""]
        end = "\n" if evaluations[0].improvised else "\r\n"
        contents[file] = "".join(line + end for line in lines).encode("latin-1")
        contents[file.with_name(f"._{file.name}")] = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
        for rater_file, rater_lines in _rater_files(evaluations).items():
            contents[file.parent / rater_file] = "".join(f"{line}\n" for line in rater_lines).encode()
    return contents


def _dialogs(session: int, scripted: bool) -> list[str]:
    """Return ten dialogs of the release, with motion capture of the female and male actor in turn."""
    hers = _PARTS[scripted]
    his = dict.fromkeys((*_LETTERED.get((session, scripted), ()), *hers))
    pairs = zip(hers, his, strict=False)
    return [f"Ses0{session}{letter}_{part}" for pair in pairs for letter, part in zip("FM", pair, strict=True)]


def _number(place: int, unrecorded: bool) -> str:
    # The release numbers turns, except some of the actor without motion capture: FXX0, MXX1.
    return "XX0" if unrecorded and place == 3 else f"{place:03d}"


def _evaluators(evaluation: Evaluation) -> list[str]:
    """Return the evaluators of an utterance; a dialog has the same ones, though one may miss parts."""
    listeners = generator(0, evaluation.dialog, "evaluators").permutation(_EVALUATORS)
    return sorted(map(str, listeners[: len(evaluation.votes)]))


def _rater_files(evaluations: Iterable[Evaluation]) -> dict[Path, list[str]]:
    """Return the lines of each evaluator's and actor's files of a dialog, in their formats."""
    files: defaultdict[Path, list[str]] = defaultdict(list)
    for e in evaluations:
        for evaluator, votes in zip(_evaluators(e), e.votes, strict=True):
            words = _words(votes).replace("Neutral", "Neutral state")
            files[Path("Categorical", f"{e.dialog}_{evaluator.lower()}_cat.txt")].append(f"{e.name} :{words} ()")
        for actor, emotions in e.self_assessments.items():
            words = _words(emotions).replace("Neutral", "Neutral state")
            files[Path("Self-evaluation", f"{e.dialog}_{actor.lower()}_cat.txt")].append(f"{e.name} :{words} ()")
        for name, values in e.attributes.items():
            folder = "Attribute" if name in _EVALUATORS else "Self-evaluation"
            scales = " ".join(f":{scale.strip()};" for scale in _scales(values).split(";") if scale)
            files[Path(folder, f"{e.dialog}_{name.lower()}_atr.txt")].append(f"{e.name} {scales} ()")
    return files


def _turn(session: int, dialog: str, name: str, code: str, index: int, clock: float, seed: int) -> Turn:
    rng = generator(seed, "iemocap", "evaluation", name)
    played = CODES[code] or _PLAYED_WITHOUT_MAJORITY[index % len(_PLAYED_WITHOUT_MAJORITY)]
    votes = _votes(played, _DISAGREEING if code == "xxx" else _AGREEING, rng)
    heard = sum(played in emotions for emotions in votes)
    letter = name.rsplit("_", 1)[1][0]
    start = round(clock + rng.uniform(0.1, 1.5), 4)
    attributes = {evaluator: _attributes(played, rng) for evaluator in ("E3", "E4")}
    means = [
        round((getattr(attributes["E3"], scale) + getattr(attributes["E4"], scale)) / 2, 4)
        for scale in ("valence", "activation", "dominance")
    ]
    attributes[f"{letter}1"] = Attributes(attributes["E3"].valence, None, attributes["E4"].dominance)
    self_labels = (played,) if rng.random() < 0.7 else (played, NEIGHBOURS[played][0])
    evaluation = Evaluation(
        name=name,
        file=Path(f"Session{session}", "dialog", "EmoEvaluation", f"{dialog}.txt"),
        start_seconds=start,
        end_seconds=round(start + rng.uniform(1.2, 2.0), 4),
        code=majority(votes),
        means=Attributes(*means),
        votes=votes,
        self_assessments={f"{letter}1": self_labels},
        attributes=attributes,
    )
    clip = Clip(
        file=Path(f"Session{session}", "sentences", "wav", dialog, f"{name}.wav"),
        speaker=evaluation.speaker,
        gender=evaluation.gender,
        emotion=played,
        intensity=(0.5, 0.7, 0.9, 1.1)[heard],
        sentence=int(rng.integers(30)),  # independent of the dialog, so that words do not reveal the emotion
    )
    return Turn(clip, evaluation)


def _votes(played: str, patterns: Sequence[str], rng: np.random.Generator) -> Votes:
    near, far = rng.permutation(NEIGHBOURS[played])
    heard = {"P": played, "Q": str(near), "R": str(far), "O": "other"}
    evaluators = patterns[int(rng.integers(len(patterns)))].split()
    return tuple(tuple(heard[key] for key in evaluators[place]) for place in rng.permutation(len(evaluators)))


def _attributes(played: str, rng: np.random.Generator) -> Attributes:
    return Attributes(*(float(np.clip(value + rng.integers(-1, 2), 1, 5)) for value in _ATTRIBUTES[played]))


def _block(evaluation: Evaluation) -> list[str]:
    e = evaluation
    remarks = generator(0, e.name).choice(_REMARKS, len(e.votes) + len(e.self_assessments) + len(e.attributes))
    means = ", ".join(f"{mean:.4f}" for mean in (e.means.valence, e.means.activation, e.means.dominance))
    lines = [f"C-{evaluator}:\t{_words(votes)}" for evaluator, votes in zip(_evaluators(e), e.votes, strict=True)]
    lines += [f"C-{actor}:\t{_words(emotions)}" for actor, emotions in e.self_assessments.items()]
    lines += [f"A-{evaluator}:\t{_scales(values)}" for evaluator, values in e.attributes.items()]
    return [
        f"[{e.start_seconds:.4f} - {e.end_seconds:.4f}]\t{e.name}\t{e.code}\t[{means}]",
        *(f"{line}\t({remark})" for line, remark in zip(lines, remarks, strict=True)),
    ]


def _words(emotions: tuple[str, ...]) -> str:
    return " ".join(f"{next(word for word, name in WORDS.items() if name == emotion)};" for emotion in emotions)


def _scales(values: Attributes) -> str:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.0f}"

    return f"val {number(values.valence)}; act {number(values.activation)}; dom  {number(values.dominance)};"
