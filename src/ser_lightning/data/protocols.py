"""Protocols: which utterances a fold learns from, chooses its checkpoint by, and is scored on."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from ser_lightning.errors import ProtocolError
from ser_lightning.types import STAGES, Split, Stage, Utterance


class Protocol(ABC):
    """A rule that divides a corpus into train, validation and test, once for each fold.

    Protocols are pure: the same utterances in any order, on any machine, give the same split.

    Attributes:
        speakers_disjoint: Whether the protocol promises that no speaker is in two sets of a fold. Where it does,
            every split is checked; where it does not, every report says so.
        has_test_set: Whether a fold has utterances to score in the end; where not, its test set is empty.
    """

    speakers_disjoint: bool = True
    has_test_set: bool = True

    @property
    @abstractmethod
    def name(self) -> str:
        """The protocol in the words of a report."""

    @abstractmethod
    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return how many folds the protocol makes of ``utterances``."""

    @abstractmethod
    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``.

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
            ProtocolError: If the corpus is empty, names an utterance twice or does not fit the protocol, if the fold is
                out of range, if a set would be empty, or if a speaker would be in two sets against the promise.
        """
        if not utterances:
            raise ProtocolError(f"{self.name}: there is no utterance to split; check the corpus folder.")
        ordered = sorted(utterances, key=lambda utterance: utterance.name)
        twice = [name for name, count in Counter(u.name for u in ordered).items() if count > 1]
        if twice:
            raise ProtocolError(
                f"{self.name}: utterance names are not unique: {_first_few(twice)}. Utterances are told apart by name; "
                "give each its own."
            )
        folds = self.num_folds(ordered)
        if not 0 <= fold < folds:
            raise ProtocolError(
                f"{self.name}: fold {fold} is out of range; folds count from 0, so choose 0 to {folds - 1}."
            )
        sets: dict[Stage, list[Utterance]] = {stage: [] for stage in STAGES}
        for utterance, stage in zip(ordered, self.stages(ordered, fold), strict=True):
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
                f"{self.name}: fold {fold} has speakers in more than one set: {_first_few(shared)}. The protocol promises "
                "disjoint speakers; mend its `stages`, or set its `speakers_disjoint` to false."
            )
        return split


class ActorFolds(Protocol):
    """Folds over blocks of consecutive actors (Mocanu et al. 2021, section 4.1).

    Fold k tests block k+1 (cyclic), validates on block k and trains on the rest, so that every actor is tested once and
    no actor is in two sets.

    Args:
        blocks: Inclusive ranges of actor numbers, such as ``["1-2", "3-5", "6"]``, that together name every actor of
            the corpus; or ``"even"`` to divide whoever is present into consecutive blocks whose sizes differ by at
            most one, the larger ones first.
        num_folds: How many even blocks; with ranges, leave it out.

    Raises:
        ProtocolError: If the blocks cannot be read, overlap or are fewer than three, or if ``num_folds`` is missing,
            too small or against the blocks.
    """

    def __init__(self, blocks: list[str] | tuple[str, ...] | Literal["even"], num_folds: int | None = None) -> None:
        if isinstance(blocks, str) and blocks != "even":
            raise ProtocolError(f'blocks: {blocks!r} is neither "even" nor a list of ranges such as ["1-2", "3-5"].')
        self._ranges: tuple[range, ...] | None = None
        if isinstance(blocks, str):
            if num_folds is None:
                raise ProtocolError("blocks: even needs num_folds, the number of blocks.")
            self._num_folds = num_folds
        else:
            self._ranges = tuple(_actor_range(block) for block in blocks)
            counts = Counter(actor for actors in self._ranges for actor in actors)
            if twice := [actor for actor, count in counts.items() if count > 1]:
                raise ProtocolError(f"blocks: {_first_few(twice)} in more than one block; let each actor stand in one.")
            if num_folds is not None and num_folds != len(self._ranges):
                raise ProtocolError(
                    f"num_folds is {num_folds}, but there are {len(self._ranges)} blocks and so {len(self._ranges)} "
                    "folds; leave num_folds out, or use `blocks: even`."
                )
            self._num_folds = len(self._ranges)
        if self._num_folds < 3:
            raise ProtocolError(
                f"num_folds is {self._num_folds}; choose at least 3 blocks: one to test, one to validate, one to learn."
            )

    @property
    def name(self) -> str:
        """The protocol in the words of a report."""
        return f"actor folds ({'even' if self._ranges is None else 'blocks'}, {self._num_folds})"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of blocks."""
        return self._num_folds

    def speaker_blocks(self, utterances: Sequence[Utterance]) -> list[tuple[str, ...]]:
        """Return the speakers of each block.

        Raises:
            ProtocolError: If there are fewer speakers than even blocks; if a block names an actor who is not in the
                corpus, no block names one who is, or a speaker is not a number.
        """
        speakers = _speakers(utterances)
        if self._ranges is None:
            if len(speakers) < self._num_folds:
                way_out = f"Set num_folds to {len(speakers)} or less, or add speakers"
                if len(speakers) < 3:
                    way_out = "Add speakers: there must be at least 3, one to test, one to validate and one to learn"
                raise ProtocolError(
                    f"{self.name}: {self._num_folds} folds need as many speakers, but the corpus has {len(speakers)}: "
                    f"{_first_few(speakers)}. {way_out}."
                )
            size, larger = divmod(len(speakers), self._num_folds)
            starts = [index * size + min(index, larger) for index in range(self._num_folds + 1)]
            return [tuple(speakers[start:end]) for start, end in pairwise(starts)]
        if words := [speaker for speaker in speakers if not _is_number(speaker)]:
            raise ProtocolError(
                f"{self.name}: blocks are ranges of actor numbers, but these speakers are no numbers: {_first_few(words)}. "
                "Use `blocks: even` with num_folds."
            )
        present = {int(speaker) for speaker in speakers}
        named = {actor for actors in self._ranges for actor in actors}
        if missing := sorted(named - present):
            raise ProtocolError(
                f"{self.name}: the corpus lacks {len(missing)} of the {len(named)} actors that the blocks name: "
                f"{', '.join(map(str, missing))}. Add their audio, or divide whoever is present with `blocks: even` "
                "and num_folds."
            )
        if extra := sorted(present - named):
            raise ProtocolError(
                f"{self.name}: no block holds these speakers of the corpus: {', '.join(map(str, extra))}. Add them to "
                "a block, or use `blocks: even` with num_folds."
            )
        return [tuple(speaker for speaker in speakers if int(speaker) in actors) for actors in self._ranges]

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``."""
        blocks = self.speaker_blocks(utterances)
        return _by_speaker(utterances, validation=blocks[fold], test=blocks[(fold + 1) % len(blocks)])


class LeaveOneSpeakerOut(Protocol):
    """One fold for each speaker, in sorted order (Huang et al. 2020, section 3.1; Ando et al. 2019, section 4.1).

    The speaker is tested; the others of the same session validate, or, in a corpus without sessions, the next speaker
    (cyclic); the rest train.
    """

    @property
    def name(self) -> str:
        """The protocol in the words of a report."""
        return "leave one speaker out"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of speakers.

        Raises:
            ProtocolError: If there are fewer than three.
        """
        speakers = _speakers(utterances)
        if len(speakers) < 3:
            raise ProtocolError(
                f"{self.name}: at least 3 speakers are needed, one to test, one to validate and one to learn from, but "
                f"the corpus has {len(speakers)}: {_first_few(speakers)}. Add speakers."
            )
        return len(speakers)

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``.

        Raises:
            ProtocolError: If only some utterances have a session, or a speaker is alone in theirs.
        """
        speakers = _speakers(utterances)
        tested = speakers[fold]
        without = [u.name for u in utterances if u.session is None]
        if len(without) == len(utterances):
            return _by_speaker(utterances, validation=[speakers[(fold + 1) % len(speakers)]], test=[tested])
        if without:
            raise ProtocolError(
                f"{self.name}: {len(without)} of {len(utterances)} utterances have no session: {_first_few(without)}. "
                "Give every utterance its session, or none."
            )
        sessions = {u.session for u in utterances if u.speaker == tested}
        partners = {u.speaker for u in utterances if u.session in sessions} - {tested}
        if not partners:
            raise ProtocolError(
                f"{self.name}: speaker {tested} is alone in session {', '.join(sorted(map(str, sessions)))}, so nobody "
                "is left to validate on. Add the session's other speaker, or leave sessions out."
            )
        return _by_speaker(utterances, validation=partners, test=[tested])


class RandomFolds(Protocol):
    """Folds over shuffled utterances, whoever speaks (Zhou & Liu 2020, section 4.1).

    Every utterance is tested once. With the defaults train, validation and test hold 55%, 25% and 20%. Speakers are in
    all three sets, by the paper's design: the scores say nothing about unseen speakers.

    Args:
        num_folds: How many folds; each tests 1 / ``num_folds`` of the utterances.
        validation_fraction: Part of all utterances that validates.
        seed: Seed of the shuffle.

    Raises:
        ProtocolError: If ``num_folds`` is less than 2, or test and validation leave nothing to learn from.
    """

    speakers_disjoint = False

    def __init__(self, num_folds: int = 5, validation_fraction: float = 0.25, seed: int = 0) -> None:
        if num_folds < 2:
            raise ProtocolError(f"num_folds is {num_folds}; choose at least 2.")
        if not 0 < validation_fraction < 1 - 1 / num_folds:
            raise ProtocolError(
                f"validation_fraction is {validation_fraction}; with {num_folds} folds choose more than 0 and less "
                f"than {1 - 1 / num_folds:.3g}, which is what the test set leaves."
            )
        if seed < 0:
            raise ProtocolError(f"seed is {seed}; choose 0 or more.")
        self._num_folds = num_folds
        self._validation_fraction = validation_fraction
        self._seed = seed

    @property
    def name(self) -> str:
        """The protocol in the words of a report."""
        return f"random folds ({self._num_folds}, seed {self._seed})"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of folds."""
        return self._num_folds

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``.

        The shuffled utterances stand in a circle: the fold's test set is its arc, validation is the arc that follows.
        """
        total = len(utterances)
        start, end = (total * edge // self._num_folds for edge in (fold, fold + 1))
        validation_end = end + round(total * self._validation_fraction)
        order = np.random.Generator(np.random.PCG64(self._seed)).permutation(total)
        stages: list[Stage] = ["train"] * total
        for position in range(start, validation_end):
            stages[order[position % total]] = "test" if position < end else "validation"
        return stages


def speaker_overlap(split: Split) -> tuple[str, ...]:
    """Return the sorted speakers who are in more than one set of ``split``."""
    counts = Counter(speaker for stage in STAGES for speaker in split.speakers(stage))
    return tuple(sorted(speaker for speaker, count in counts.items() if count > 1))


def _by_speaker(utterances: Sequence[Utterance], validation: Iterable[str], test: Iterable[str]) -> list[Stage]:
    stage_of: dict[str, Stage] = dict.fromkeys(validation, "validation")
    stage_of.update(dict.fromkeys(test, "test"))
    return [stage_of.get(utterance.speaker, "train") for utterance in utterances]


def _speakers(utterances: Sequence[Utterance]) -> list[str]:
    speakers = {utterance.speaker for utterance in utterances}
    if all(map(_is_number, speakers)):
        return sorted(speakers, key=lambda speaker: (int(speaker), speaker))
    return sorted(speakers)


def _is_number(speaker: str) -> bool:
    return speaker.isdecimal()


def _actor_range(block: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", block.strip()) if isinstance(block, str) else None
    if match is None:
        raise ProtocolError(f'blocks: {block!r} is not a range of actor numbers such as "3-5" or "6".')
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ProtocolError(f'blocks: {block!r} runs backwards; write "{last}-{first}".')
    return range(first, last + 1)


def _first_few(values: Sequence[object], limit: int = 5) -> str:
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(map(str, values[:limit])) + more
