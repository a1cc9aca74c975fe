"""Protocols: the train, validation and test utterances of each fold."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from ser_lightning.errors import ProtocolError
from ser_lightning.types import STAGES, Split, Stage, Utterance

MOST_FOLDS = 100_000


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
                f"{self.name}: utterance names are not unique: {_first_few(duplicates)}. Give each its own name."
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
                f"{self.name}: fold {fold} has speakers in more than one set: {_first_few(shared)}. Fix the sets, or "
                "set the protocol's `speakers_disjoint` to false."
            )
        return split


class ActorFolds(Protocol):
    """Folds over blocks of consecutive actors (Mocanu et al. 2021, section 4.1).

    Fold k tests block k+1 (cyclic), validates on block k and trains on the rest: every actor is tested once.

    Args:
        blocks: Inclusive ranges of actor numbers, such as ``["1-2", "3-5", "6"]``, that cover every actor of the
            corpus; or ``"even"`` for consecutive blocks of the actors present, whose sizes differ by at most one, the
            larger ones first.
        num_folds: Number of even blocks; omit it with ranges.

    Raises:
        ProtocolError: If the blocks cannot be parsed, overlap or are fewer than three, or if ``num_folds`` is missing,
            too small or not the number of blocks.
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
            if repeated := [actor for actor, count in counts.items() if count > 1]:
                raise ProtocolError(f"blocks: {_first_few(repeated)} in more than one block; put each actor into one.")
            if num_folds is not None and num_folds != len(self._ranges):
                raise ProtocolError(
                    f"num_folds is {num_folds}, but there are {len(self._ranges)} blocks; omit num_folds, or use "
                    "`blocks: even`."
                )
            self._num_folds = len(self._ranges)
        if not 3 <= self._num_folds <= MOST_FOLDS:
            raise ProtocolError(
                f"num_folds is {self._num_folds}; choose at least 3 and at most {MOST_FOLDS} blocks: "
                "one each for test, validation and training."
            )

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return f"actor folds ({'even' if self._ranges is None else 'blocks'}, {self._num_folds})"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of blocks."""
        return self._num_folds

    def speaker_blocks(self, utterances: Sequence[Utterance]) -> list[tuple[str, ...]]:
        """Return the speakers of each block.

        Raises:
            ProtocolError: If there are fewer speakers than even blocks, if blocks and corpus have different actors, or
                if a speaker is not a number.
        """
        speakers = _speakers(utterances)
        if self._ranges is None:
            if len(speakers) < self._num_folds:
                way_out = f"Set num_folds to {len(speakers)} or less, or add speakers"
                if len(speakers) < 3:
                    way_out = "Add speakers: at least 3 are needed, one each for test, validation and training"
                raise ProtocolError(
                    f"{self.name}: {self._num_folds} folds need as many speakers, but the corpus has {len(speakers)}: "
                    f"{_first_few(speakers)}. {way_out}."
                )
            size, larger = divmod(len(speakers), self._num_folds)
            starts = [index * size + min(index, larger) for index in range(self._num_folds + 1)]
            return [tuple(speakers[start:end]) for start, end in pairwise(starts)]
        if words := [speaker for speaker in speakers if not _is_number(speaker)]:
            raise ProtocolError(
                f"{self.name}: blocks are ranges of actor numbers, but these speakers are not numbers: "
                f"{_first_few(words)}. Use `blocks: even` with num_folds."
            )
        present = {int(speaker) for speaker in speakers}
        named = {actor for actors in self._ranges for actor in actors}
        if missing := sorted(named - present):
            raise ProtocolError(
                f"{self.name}: the corpus lacks {len(missing)} of the {len(named)} actors that the blocks name: "
                f"{', '.join(map(str, missing))}. Add their audio, or divide the present ones by `blocks: even` with "
                "num_folds."
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

    The other speakers of the session validate, or, in a corpus without sessions, the next speaker (cyclic).
    """

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return "leave one speaker out"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of speakers.

        Raises:
            ProtocolError: If there are fewer than three.
        """
        speakers = _speakers(utterances)
        if len(speakers) < 3:
            raise ProtocolError(
                f"{self.name}: at least 3 speakers are needed, one each for test, validation and training, but the "
                f"corpus has {len(speakers)}: {_first_few(speakers)}. Add speakers."
            )
        return len(speakers)

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``.

        Raises:
            ProtocolError: If only some utterances have a session, or a session has one speaker.
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
                f"{self.name}: speaker {tested} is alone in session {', '.join(sorted(map(str, sessions)))}, so the "
                "validation set is empty. Add the session's other speaker, or omit sessions."
            )
        return _by_speaker(utterances, validation=partners, test=[tested])


class RandomFolds(Protocol):
    """Folds over shuffled utterances, regardless of speaker (Zhou & Liu 2020, section 4.1).

    Every utterance is tested once. With the defaults train, validation and test sets have 55%, 25% and 20%. As in the
    paper, speakers are in all three sets, so scores are not valid for unseen speakers.

    Args:
        num_folds: Number of folds; each tests 1 / ``num_folds`` of the utterances.
        validation_fraction: Validation share of all utterances.
        seed: Seed of the shuffle.

    Raises:
        ProtocolError: If ``num_folds`` is less than 2, or no utterance is left to train on.
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
        """Name of the protocol in reports."""
        return f"random folds ({self._num_folds}, seed {self._seed})"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of folds."""
        return self._num_folds

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``.

        Over the shuffled utterances (cyclic), the validation set follows the fold's test set.
        """
        total = len(utterances)
        start, end = (total * edge // self._num_folds for edge in (fold, fold + 1))
        validation_end = end + round(total * self._validation_fraction)
        order = np.random.Generator(np.random.PCG64(self._seed)).permutation(total)
        stages: list[Stage] = ["train"] * total
        for position in range(start, validation_end):
            stages[order[position % total]] = "test" if position < end else "validation"
        return stages


_SPELLINGS: dict[str, Stage] = {
    **dict.fromkeys(("train", "training", "tr", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "te", "tst", "eval", "evaluation"), "test"),
}


class ListedFolds(Protocol):
    """One fold: the sets that the corpus's table lists, such as the ``split`` column of a ``labels.csv``.

    In any letter case, ``train``, ``training``, ``tr`` and ``trn`` are the training set, ``validation``, ``valid``,
    ``val``, ``dev``, ``devel`` and ``development`` the validation set, and ``test``, ``testing``, ``te``, ``tst``,
    ``eval`` and ``evaluation`` the test set.

    Args:
        speakers_disjoint: Whether to reject sets that share a speaker. If false, reports say that speakers are shared.
    """

    uses_listed_sets = True

    def __init__(self, speakers_disjoint: bool = True) -> None:
        self.speakers_disjoint = speakers_disjoint

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return "listed folds"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return 1."""
        return 1

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` is listed in.

        Raises:
            ProtocolError: If some are in none, or in one of an unknown name, or if a set is empty.
        """
        if unlisted := [u.name for u in utterances if u.listed_set is None]:
            raise ProtocolError(
                f"{self.name}: {len(unlisted)} of {len(utterances)} utterances are listed in no set: "
                f"{_first_few(unlisted)}. Fill the column `split` of the corpus's table, or choose another protocol."
            )
        names = sorted({str(u.listed_set) for u in utterances})
        if unknown := [name for name in names if name.casefold() not in _SPELLINGS]:
            raise ProtocolError(
                f"{self.name}: the set {_first_few([repr(name) for name in unknown])} is unknown; write train, "
                "validation or test."
            )
        stages = [_SPELLINGS[str(u.listed_set).casefold()] for u in utterances]
        if missing := [stage for stage in STAGES if stage not in stages]:
            raise ProtocolError(
                f"{self.name}: no utterance is listed in the {' or '.join(missing)} set; the sets listed are "
                f"{', '.join(names)}. Move some utterances into it, by speaker."
            )
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
