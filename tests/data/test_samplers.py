"""Who gets which utterance, and when."""

from itertools import chain

import numpy as np
import pytest

from ser_lightning.data.samplers import BucketBatchSampler, EvaluationBatchSampler
from ser_lightning.errors import ConfigurationError

LENGTHS = np.random.default_rng(0).integers(50, 500, 61).tolist()


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_every_utterance_is_trained_on_once_an_epoch(num_processes: int) -> None:
    samplers = [BucketBatchSampler(LENGTHS, 8, 0, rank, num_processes, pool_batches=2) for rank in range(num_processes)]
    seen = [list(sampler) for sampler in samplers]
    assert sorted(chain.from_iterable(chain.from_iterable(seen))) == list(range(61))
    assert {len(batches) for batches in seen} == {len(samplers[0])}
    assert all(batch for batches in seen for batch in batches)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_the_processes_share_the_batches_of_a_single_one(num_processes: int) -> None:
    whole = [sorted(batch) for batch in BucketBatchSampler(LENGTHS, 8, 3)]
    shares = zip(
        *(BucketBatchSampler(LENGTHS, 8, 3, rank, num_processes) for rank in range(num_processes)), strict=True
    )
    assert [sorted(chain.from_iterable(parts)) for parts in shares] == whole


def test_a_last_batch_too_small_for_all_processes_joins_the_one_before() -> None:
    samplers = [BucketBatchSampler([10] * 17, 8, 0, rank, 4) for rank in range(4)]
    assert [len(sampler) for sampler in samplers] == [2] * 4
    assert sorted(chain.from_iterable(chain.from_iterable(samplers))) == list(range(17))


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = BucketBatchSampler(LENGTHS, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 4) == order(0, 4)
    assert order(0, 4) != order(0, 5)
    assert order(0, 4) != order(1, 4)


def test_lightning_finds_set_epoch_where_it_looks_for_it() -> None:
    sampler = BucketBatchSampler(LENGTHS, 8, 0)
    sampler.sampler.set_epoch(7)
    assert sampler.epoch == 7


def test_batches_pad_far_less_than_random_ones() -> None:
    lengths = np.asarray(LENGTHS * 20)

    def padding(batches: list[list[int]]) -> float:
        return sum(lengths[batch].max() * len(batch) for batch in batches) / lengths.sum() - 1

    random = np.random.default_rng(0).permutation(len(lengths)).reshape(-1, 20).tolist()
    assert padding(list(BucketBatchSampler(lengths.tolist(), 20, 0))) < 0.25 * padding(random)


def test_fewer_utterances_in_a_batch_than_processes_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigurationError, match=r"batch_size is 3.*4 processes"):
        BucketBatchSampler(LENGTHS, 3, 0, 0, 4)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 61])
def test_evaluation_counts_each_utterance_once_over_all_processes(num_processes: int) -> None:
    shares = [EvaluationBatchSampler(LENGTHS, 8, rank, num_processes) for rank in range(num_processes)]
    assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(61))
    assert all(len(share) > 0 for share in shares)


def test_a_process_without_anything_to_evaluate_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"process 1 of 62 .* only 61 utterances"):
        EvaluationBatchSampler(LENGTHS, 8, 1, 62)
