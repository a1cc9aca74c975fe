"""Batch samplers: by length or balanced over classes in training, each utterance once in evaluation.

``batch_size`` is always that of the global batch, which the processes share.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ser_lightning.errors import ConfigurationError


class BucketBatchSampler(Sampler[list[int]]):
    """Shuffled batches of utterances of similar length, to reduce padding.

    Every epoch shuffles all utterances, sorts pools of ``pool_batches`` batches by length, cuts them into batches and
    shuffles the batches. All processes draw the same global batches from (seed, epoch) and take every
    ``num_processes``-th utterance of each, so they have the same number of batches.

    Args:
        lengths: Frames of each utterance.
        batch_size: Utterances of a global batch.
        seed: Seed of the shuffling.
        process: Rank of this process.
        num_processes: Number of processes.
        pool_batches: Batches that are sorted together; more means less padding and less shuffling.
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
        self.num_utterances = len(lengths)
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
        """Set the epoch, which selects the order; Lightning calls this, also when it resumes."""
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

    No utterance is repeated to even out the processes: one may have fewer batches than another.

    Args:
        lengths: Frames of each utterance.
        batch_size: Utterances of a global batch.
        process: Rank of this process.
        num_processes: Number of processes.

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


class ClassBatchSampler(Sampler[list[int]]):
    """Class-balanced batches: K utterances of each of P classes.

    P is the number of classes that occur, K = batch_size // P. An epoch draws as many utterances as the set has. Each
    class is shuffled, and again when it is used up, so rare classes are oversampled and frequent ones undersampled. No
    utterance is twice in a batch unless its class has fewer than K. All processes draw the same global batches from
    (seed, epoch) and take every ``num_processes``-th utterance of each; with K of at least ``num_processes``, each
    process has every class.

    Args:
        labels: Class index of each utterance; those with -1 are in no batch.
        num_classes: Classes of the experiment.
        batch_size: Maximum number of utterances of a global batch.
        seed: Seed of the shuffling.
        process: Rank of this process.
        num_processes: Number of processes.

    Raises:
        ConfigurationError: If fewer than two classes occur, if K is less than two, or if processes would have unequal
            shares.
    """

    def __init__(
        self,
        labels: Sequence[int],
        num_classes: int,
        batch_size: int,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        members = [np.flatnonzero(np.asarray(labels) == index) for index in range(num_classes)]
        self.members = [positions for positions in members if len(positions)]
        self.num_utterances = len(labels)
        num_present = len(self.members)
        if num_present < 2:
            raise ConfigurationError(
                f"the training set has utterances of {num_present} of {num_classes} classes; class-balanced batches "
                "need at least two: use another fold, or set data.init_args.batches to length"
            )
        self.per_class = batch_size // num_present
        if self.per_class < 2:
            raise ConfigurationError(
                f"batch_size is {batch_size}, less than two utterances for each of {num_present} classes; "
                f"raise data.init_args.batch_size to at least {2 * num_present}"
            )
        drawn = num_present * self.per_class
        if drawn % num_processes:
            step = math.lcm(num_present, num_processes)
            raise ConfigurationError(
                f"batch_size is {batch_size}, which is {self.per_class} utterances for each of {num_present} classes, "
                f"{drawn} that {num_processes} processes cannot share equally; set data.init_args.batch_size to "
                f"{math.ceil(drawn / step) * step}, or to another multiple of {step}"
            )
        self.seed = seed
        self.process = process
        self.num_processes = num_processes
        self.num_batches = math.ceil(sum(map(len, self.members)) / drawn)
        self.epoch = 0

    @property
    def sampler(self) -> Self:
        """Itself: Lightning looks for ``set_epoch`` on a batch sampler's ``sampler``, and only there."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the order; Lightning calls this, also when it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches, the same in every process."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this process's share of each batch of the epoch."""
        generator = np.random.default_rng((self.seed, self.epoch))
        classes = [self._portions(positions, generator) for positions in self.members]
        for _ in range(self.num_batches):
            # Ordered by class, so that the processes' strided shares have every class.
            batch = np.concatenate([next(portions) for portions in classes])
            yield batch[self.process :: self.num_processes].tolist()

    def _portions(self, positions: NDArray[np.int64], generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Yield K of a class's ``positions``, endlessly."""
        left = generator.permutation(positions)
        while True:
            portion, left = left[: self.per_class], left[self.per_class :]
            while len(portion) < self.per_class:
                left = generator.permutation(positions)
                # Utterances already in the batch come last, and are repeated only if the class is too small.
                times_held = (left[:, None] == portion).sum(1)
                left = left[np.argsort(times_held, kind="stable")]
                missing = self.per_class - len(portion)
                portion, left = np.concatenate([portion, left[:missing]]), left[missing:]
            yield portion


class RandomCrops(Sampler[list[tuple[int, float]]]):
    """Batches of another sampler, with a random crop start for each utterance.

    The relative start, in [0, 1), depends only on seed, epoch and the utterance's position, so it is the same for any
    number of processes and after a resume.

    Args:
        batch_sampler: Sampler of the batches.
        seed: Seed of the crop starts.
    """

    def __init__(self, batch_sampler: BucketBatchSampler | ClassBatchSampler, seed: int) -> None:
        self.batch_sampler = batch_sampler
        self.seed = seed
        self.epoch = 0

    @property
    def sampler(self) -> Self:
        """Itself: Lightning looks for ``set_epoch`` on a batch sampler's ``sampler``, and only there."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects order and crops; Lightning calls this, also when it resumes."""
        self.epoch = epoch
        self.batch_sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Return the number of batches, the same in every process."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        """Yield this process's share of each batch of the epoch, each position with a crop start."""
        # Another random stream than the one that shuffles.
        places = np.random.default_rng((self.seed, self.epoch, 1)).random(self.batch_sampler.num_utterances)
        for batch in self.batch_sampler:
            yield list(zip(batch, places[batch].tolist(), strict=True))


BatchSampler = BucketBatchSampler | ClassBatchSampler | RandomCrops | EvaluationBatchSampler
