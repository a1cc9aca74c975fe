"""Folds over shuffled utterances."""

from collections.abc import Sequence

import numpy as np

from ser_lightning.data.protocols.protocol import Protocol
from ser_lightning.errors import ProtocolError
from ser_lightning.types import Stage, Utterance


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
