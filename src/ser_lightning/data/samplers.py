"""Which utterances make a batch: of similar length in training, each exactly once in evaluation, whatever the devices.

``batch_size`` is always the global batch; every process takes its share of each one.
"""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from torch.utils.data import Sampler

from ser_lightning.errors import ConfigurationError


class BucketBatchSampler(Sampler[list[int]]):
    """Shuffled batches of utterances of similar length, so that little is padded.

    Every epoch shuffles all utterances, sorts pools of ``pool_batches`` batches by length, cuts them into batches and
    shuffles the batches. All processes draw the same global batches from (seed, epoch) and take every
    ``num_processes``-th utterance of each, so they always agree on the number of batches.

    Args:
        lengths: Frames of each utterance.
        batch_size: Utterances of a global batch.
        seed: Seed of the shuffling.
        process: Index of this process.
        num_processes: Processes that share a batch.
        pool_batches: Batches that are sorted together; more pad less and shuffle less.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
        pool_batches: int = 16,
    ) -> None:
        if batch_size < num_processes:
            raise ConfigurationError(
                f"batch_size is {batch_size}, less than one utterance for each of {num_processes} processes; "
                f"raise data.init_args.batch_size to at least {num_processes}"
            )
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.process = process
        self.num_processes = num_processes
        self.pool_size = pool_batches * batch_size
        self.epoch = 0

    @property
    def sampler(self) -> Self:
        """Itself: Lightning looks for ``set_epoch`` on a batch sampler's ``sampler``, and only there."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this, also when it resumes."""
        self.epoch = epoch

    def _cuts(self) -> list[tuple[int, int]]:
        starts = list(range(0, len(self.lengths), self.batch_size))
        # A last batch too small to give every process an utterance joins the one before it.
        if len(starts) > 1 and len(self.lengths) - starts[-1] < self.num_processes:
            starts.pop()
        return list(zip(starts, [*starts[1:], len(self.lengths)], strict=True))

    def __len__(self) -> int:
        """Return the number of batches, the same in every process."""
        return len(self._cuts())

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this process's share of each batch of the epoch."""
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        for start in range(0, len(order), self.pool_size):
            pool = order[start : start + self.pool_size]
            order[start : start + self.pool_size] = pool[np.argsort(self.lengths[pool], kind="stable")]
        cuts = self._cuts()
        for index in generator.permutation(len(cuts)):
            first, last = cuts[index]
            yield order[first:last][self.process :: self.num_processes].tolist()


class EvaluationBatchSampler(Sampler[list[int]]):
    """Every utterance exactly once over all processes, in batches of similar length.

    Nothing is padded or repeated to even out the processes: one may have fewer batches than another.

    Args:
        lengths: Frames of each utterance.
        batch_size: Utterances of a global batch.
        process: Index of this process.
        num_processes: Processes that share the set.

    Raises:
        ConfigurationError: If there are more processes than utterances.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, process: int = 0, num_processes: int = 1) -> None:
        if len(lengths) < num_processes:
            raise ConfigurationError(
                f"process {process} of {num_processes} would have nothing to evaluate: the set holds only "
                f"{len(lengths)} utterances; use at most {max(len(lengths), 1)} devices"
            )
        share = np.argsort(np.asarray(lengths), kind="stable")[process::num_processes].tolist()
        size = max(batch_size // num_processes, 1)
        self.batches: list[list[int]] = [share[start : start + size] for start in range(0, len(share), size)]

    def __len__(self) -> int:
        """Return the number of this process's batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this process's batches, shortest utterances first."""
        return iter(self.batches)
