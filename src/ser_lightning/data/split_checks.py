"""Checks of a split that its protocol cannot make: the same audio twice, and classes that cannot be learnt."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_lightning.types import STAGES, Split, TargetKind, Utterance


@dataclass(frozen=True)
class SameAudio:
    """Two or more utterances with the same samples.

    Attributes:
        utterances: The utterances, ordered by name.
        known: Whether the corpus's release has them, and its file lists them.
    """

    utterances: tuple[Utterance, ...]
    known: bool

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return len(self.utterances) * (len(self.utterances) - 1) // 2

    @property
    def contradictions(self) -> list[str]:
        """What the utterances differ in: ``speakers a, b`` and ``labels x, y``."""
        speakers = sorted({utterance.speaker for utterance in self.utterances})
        labels = sorted({utterance.label or "none" for utterance in self.utterances})
        named = (("speakers", speakers), ("labels", labels))
        return [f"{what} {', '.join(names)}" for what, names in named if len(names) > 1]


def find_same_audio(
    utterances: Sequence[Utterance], sounds: Mapping[Path, Hashable], known: Sequence[Sequence[str]] = ()
) -> list[SameAudio]:
    """Return the groups of utterances with the same audio, ordered by name.

    Args:
        utterances: The utterances.
        sounds: A key by audio file that files with the same samples share; other files are not compared.
        known: Groups of names that the release is known for.
    """
    if not sounds:
        return []
    counts = Counter(sounds[utterance.path] for utterance in utterances if utterance.path in sounds)
    groups: dict[Hashable, list[Utterance]] = {sound: [] for sound, count in counts.items() if count > 1}
    for utterance in utterances if groups else ():
        if (sound := sounds.get(utterance.path)) in groups:
            groups[sound].append(utterance)
    several = [sorted(group, key=lambda u: u.name) for group in groups.values()]
    return [
        SameAudio(tuple(group), any({u.name for u in group} <= set(names) for names in known))
        for group in sorted(several, key=lambda group: group[0].name)
    ]


def pairs_across_sets(groups: Sequence[SameAudio], split: Split) -> list[int]:
    """Return, for each group, the number of its pairs whose utterances are in different sets of ``split``."""
    if not groups:
        return []
    names = {utterance.name for group in groups for utterance in group.utterances}
    stage_of = {u.name: stage for stage in STAGES for u in split.of(stage) if u.name in names}
    numbers = []
    for group in groups:
        counts = Counter(stage_of[u.name] for u in group.utterances if u.name in stage_of)
        numbers.append((counts.total() ** 2 - sum(count**2 for count in counts.values())) // 2)
    return numbers


def same_audio_in_words(groups: Sequence[SameAudio], splits: Sequence[Split]) -> str:
    """Return, for example, "3 pairs of utterances have the same audio, in two sets of fold 0, 4".

    Args:
        groups: All groups.
        splits: The folds; without any, none is named.
    """
    pairs = sum(group.pairs for group in groups)
    folds = [str(split.fold) for split in splits if any(pairs_across_sets(groups, split))]
    have = "pair of utterances has" if pairs == 1 else "pairs of utterances have"
    where = f"fold {', '.join(folds)}" if folds else "no fold"
    return f"{pairs} {have} the same audio" + (f", in two sets of {where}" if splits else "")


def untrained_classes(split: Split, class_names: Sequence[str], target_kind: TargetKind) -> dict[str, int]:
    """Return the classes that ``split`` tests and never trains on, with their numbers of test utterances.

    Args:
        split: A fold.
        class_names: The classes.
        target_kind: Kind of training target; other than hard ones learn from votes too.
    """
    trained = {utterance.label for utterance in split.train}
    if target_kind != "hard":
        trained |= {label for utterance in split.train for vote in utterance.votes for label in vote}
    tested = Counter(utterance.label for utterance in split.test)
    return {name: tested[name] for name in class_names if tested[name] and name not in trained}


def classes_of_one_speaker(utterances: Iterable[Utterance], class_names: Sequence[str]) -> dict[str, str]:
    """Return the classes that only one speaker has, with the speaker; none if the classes are the speakers."""
    speakers: defaultdict[str | None, set[str]] = defaultdict(set)
    for utterance in utterances:
        speakers[utterance.label].add(utterance.speaker)
    if all(label in (None, *own) for label, own in speakers.items()) or len(set().union(*speakers.values())) < 2:
        return {}
    return {name: next(iter(speakers[name])) for name in class_names if len(speakers[name]) == 1}
