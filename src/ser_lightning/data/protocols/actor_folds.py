"""Folds over blocks of actors."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from ser_lightning.data.protocols.protocol import Protocol, by_speaker, first_few, is_number, speakers_of
from ser_lightning.errors import ProtocolError
from ser_lightning.types import Stage, Utterance

MOST_FOLDS = 100_000


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
                raise ProtocolError(f"blocks: {first_few(repeated)} in more than one block; put each actor into one.")
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
        speakers = speakers_of(utterances)
        if self._ranges is None:
            if len(speakers) < self._num_folds:
                way_out = f"Set num_folds to {len(speakers)} or less, or add speakers"
                if len(speakers) < 3:
                    way_out = "Add speakers: at least 3 are needed, one each for test, validation and training"
                raise ProtocolError(
                    f"{self.name}: {self._num_folds} folds need as many speakers, but the corpus has {len(speakers)}: "
                    f"{first_few(speakers)}. {way_out}."
                )
            size, larger = divmod(len(speakers), self._num_folds)
            starts = [index * size + min(index, larger) for index in range(self._num_folds + 1)]
            return [tuple(speakers[start:end]) for start, end in pairwise(starts)]
        if words := [speaker for speaker in speakers if not is_number(speaker)]:
            raise ProtocolError(
                f"{self.name}: blocks are ranges of actor numbers, but these speakers are not numbers: "
                f"{first_few(words)}. Use `blocks: even` with num_folds."
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
        return by_speaker(utterances, validation=blocks[fold], test=blocks[(fold + 1) % len(blocks)])


def _actor_range(block: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", block.strip()) if isinstance(block, str) else None
    if match is None:
        raise ProtocolError(f'blocks: {block!r} is not a range of actor numbers such as "3-5" or "6".')
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ProtocolError(f'blocks: {block!r} runs backwards; write "{last}-{first}".')
    return range(first, last + 1)
