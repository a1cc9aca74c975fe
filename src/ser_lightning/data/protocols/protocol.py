"""What a protocol is: the train, validation and test utterances of each fold."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence

from ser_lightning.errors import ProtocolError
from ser_lightning.types import STAGES, Split, Stage, Utterance


class Protocol(ABC):
    """A rule that divides a corpus into train, validation and test sets for each fold.

    Protocols are pure: the same utterances in any order, on any machine, give the same split.

    Attributes:
        speakers_disjoint: Whether no speaker is in two sets of a fold. If true, every split is checked; if false,
            reports say so.
        has_test_set: Whether folds have a test set.
        uses_listed_sets: Whether folds are the sets that the corpus's table lists.
    """

    speakers_disjoint: bool = True
    has_test_set: bool = True
    uses_listed_sets: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the protocol in reports."""

    def check_has_test_set(self) -> None:
        """Reject testing without test sets.

        Raises:
            ProtocolError: Naming the protocol.
        """
        if not self.has_test_set:
            raise ProtocolError(
                f"{self.name}: nothing is tested (the protocol is for pre-training); use ser validate, or another "
                "protocol"
            )

    @abstractmethod
    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of folds for ``utterances``."""

    @abstractmethod
    def stages(self, utterances: Sequence[Utterance], fold: int) -> Sequence[Stage | None]:
        """Return the set that each of ``utterances`` belongs to in ``fold``, or None.

        Args:
            utterances: The corpus, ordered by name; no name occurs twice.
            fold: Index of the fold, counted from 0 and within range.

        Raises:
            ProtocolError: If the corpus does not fit the protocol.
        """

    def split(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the sets of one fold, each ordered by utterance name.

        Args:
            utterances: The corpus, in any order.
            fold: Index of the fold, counted from 0.

        Raises:
            ProtocolError: If the corpus is empty, has a duplicate name or does not fit the protocol, if the fold is out
                of range, if a set would be empty, or if a speaker would be in two sets despite
                ``speakers_disjoint``.
        """
        if not utterances:
            raise ProtocolError(f"{self.name}: there is no utterance to split; check the corpus folder.")
        ordered = sorted(utterances, key=lambda utterance: utterance.name)
        duplicates = [name for name, count in Counter(u.name for u in ordered).items() if count > 1]
        if duplicates:
            raise ProtocolError(
                f"{self.name}: utterance names are not unique: {first_few(duplicates)}. Give each its own name."
            )
        folds = self.num_folds(ordered)
        if not 0 <= fold < folds:
            raise ProtocolError(
                f"{self.name}: fold {fold} is out of range; folds count from 0, so choose 0 to {folds - 1}."
            )
        sets: dict[Stage, list[Utterance]] = {stage: [] for stage in STAGES}
        for utterance, stage in zip(ordered, self.stages(ordered, fold), strict=True):
            if stage is not None:
                sets[stage].append(utterance)
        for stage in STAGES:
            if not sets[stage] and (stage != "test" or self.has_test_set):
                raise ProtocolError(
                    f"{self.name}: the {stage} set of fold {fold} is empty ({len(ordered)} utterances of "
                    f"{len({u.speaker for u in ordered})} speakers); add utterances or choose fewer folds."
                )
        split = Split(fold, tuple(sets["train"]), tuple(sets["validation"]), tuple(sets["test"]))
        if self.speakers_disjoint and (shared := speaker_overlap(split)):
            raise ProtocolError(
                f"{self.name}: fold {fold} has speakers in more than one set: {first_few(shared)}. Fix the sets, or "
                "set the protocol's `speakers_disjoint` to false."
            )
        return split


def speaker_overlap(split: Split) -> tuple[str, ...]:
    """Return the sorted speakers who are in more than one set of ``split``."""
    counts = Counter(speaker for stage in STAGES for speaker in split.speakers(stage))
    return tuple(sorted(speaker for speaker, count in counts.items() if count > 1))


def by_speaker(utterances: Sequence[Utterance], validation: Iterable[str], test: Iterable[str]) -> list[Stage]:
    """Return each utterance's set: those of the given speakers validate or are tested, all others train."""
    stage_of: dict[str, Stage] = dict.fromkeys(validation, "validation")
    stage_of.update(dict.fromkeys(test, "test"))
    return [stage_of.get(utterance.speaker, "train") for utterance in utterances]


def speakers_of(utterances: Sequence[Utterance]) -> list[str]:
    """Return the speakers, by number if all are numbers."""
    speakers = {utterance.speaker for utterance in utterances}
    if all(map(is_number, speakers)):
        return sorted(speakers, key=lambda speaker: (int(speaker), speaker))
    return sorted(speakers)


def is_number(speaker: str) -> bool:
    """Whether a speaker's name is a number."""
    return speaker.isdecimal()


def first_few(values: Sequence[object], limit: int = 5) -> str:
    """Return the first values, and the number of others, for a message."""
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(map(str, values[:limit])) + more
