"""Batch samplers: shares of processes, order, balance and crops."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from ser_lightning.data.samplers import BucketBatchSampler, ClassBatchSampler, EvaluationBatchSampler, RandomCrops
from ser_lightning.errors import ConfigurationError

LENGTHS = np.random.default_rng(0).integers(50, 500, 61).tolist()
# Five classes of unequal size; the fourth does not occur, and three utterances have none.
SIZES = {0: 6, 1: 20, 2: 31, 4: 3, -1: 3}
LABELS = np.random.default_rng(0).permutation([label for label, size in SIZES.items() for _ in range(size)]).tolist()


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


def test_a_too_small_last_batch_joins_the_one_before() -> None:
    samplers = [BucketBatchSampler([10] * 17, 8, 0, rank, 4) for rank in range(4)]
    assert [len(sampler) for sampler in samplers] == [2] * 4
    assert sorted(chain.from_iterable(chain.from_iterable(samplers))) == list(range(17))


def test_a_last_batch_of_one_utterance_a_process_is_kept() -> None:
    sampler = BucketBatchSampler([10] * 20, 8, 0, 0, 4)
    assert sorted(map(len, sampler)) == [1, 2, 2]


@pytest.mark.parametrize("utterances", [2, 9])
def test_what_is_left_of_the_only_batch_never_makes_another(utterances: int) -> None:
    assert len(BucketBatchSampler([10] * utterances, 8, 0, 0, 4)) == 1


def test_the_batches_of_a_pool_are_sorted_by_length() -> None:
    batches = sorted(BucketBatchSampler(LENGTHS, 8, 0), key=lambda batch: LENGTHS[batch[-1]])
    assert [LENGTHS[position] for position in chain.from_iterable(batches)] == sorted(LENGTHS)


def test_utterances_of_equal_length_keep_their_order() -> None:
    # So that every machine makes the same batches.
    assert list(chain.from_iterable(EvaluationBatchSampler([10] * 61, 8))) == list(range(61))
    shuffled = np.random.default_rng((0, 0)).permutation(61).tolist()
    assert list(BucketBatchSampler([10] * 61, 61, 0)) == [shuffled]


@pytest.mark.parametrize("kind", ["length", "class", "crops"])
def test_epochs_count_from_zero(kind: str) -> None:
    def new() -> BucketBatchSampler | ClassBatchSampler | RandomCrops:
        if kind == "class":
            return ClassBatchSampler(LABELS, 5, 12, 0)
        by_length = BucketBatchSampler(LENGTHS, 8, 0)
        return RandomCrops(by_length, 0) if kind == "crops" else by_length

    first = new()
    first.set_epoch(0)
    assert list(new()) == list(first)


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


def test_a_batch_smaller_than_the_processes_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"batch_size is 3.*4 processes"):
        BucketBatchSampler(LENGTHS, 3, 0, 0, 4)
    assert {len(batch) for batch in BucketBatchSampler(LENGTHS[:60], 4, 0, 0, 4)} == {1}


@pytest.mark.parametrize("num_processes", [1, 2, 3, 61])
def test_evaluation_visits_each_utterance_once(num_processes: int) -> None:
    shares = [EvaluationBatchSampler(LENGTHS, 8, rank, num_processes) for rank in range(num_processes)]
    assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(61))
    assert all(len(share) > 0 for share in shares)


@pytest.mark.parametrize(("num_processes", "share"), [(1, 8), (2, 4), (3, 2), (9, 1)])
def test_processes_share_an_evaluation_batch(num_processes: int, share: int) -> None:
    sampler = EvaluationBatchSampler(LENGTHS, 8, 0, num_processes)
    assert max(map(len, sampler)) == share
    assert len(sampler) == len(list(sampler)) == -(-len(LENGTHS[::num_processes]) // share)


def test_a_process_without_utterances_to_evaluate_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"process 1 of 62.* 61 "):
        EvaluationBatchSampler(LENGTHS, 8, 1, 62)


def label_counts(batch: list[int]) -> Counter[int]:
    return Counter(LABELS[position] for position in batch)


@pytest.mark.parametrize("batch_size", [12, 15])
def test_every_batch_is_balanced_over_classes_that_occur(batch_size: int) -> None:
    batches = list(ClassBatchSampler(LABELS, 5, batch_size, 0))
    assert len(batches) == 5  # 60 utterances with a class, 12 in a batch
    assert all(label_counts(batch) == {0: 3, 1: 3, 2: 3, 4: 3} for batch in batches)


@pytest.mark.parametrize("batch_size", [8, 12, 40])
def test_utterances_repeat_in_a_batch_only_in_too_small_classes(batch_size: int) -> None:
    sampler = ClassBatchSampler(LABELS, 5, batch_size, 0)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        for batch in sampler:
            for label, size in SIZES.items():
                own = Counter(position for position in batch if LABELS[position] == label)
                # No utterance repeats before all were used.
                assert len(own) == min(size, sampler.per_class) or label == -1
                assert not own or max(own.values()) <= -(-sampler.per_class // size)


def test_each_class_is_used_up_before_utterances_repeat() -> None:
    sampler = ClassBatchSampler(LABELS, 5, 8, 0)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        order = list(chain.from_iterable(sampler))
        for label in (0, 1, 2, 4):
            own = [position for position in order if LABELS[position] == label]
            counts = Counter(own[: len(own) // SIZES[label] * SIZES[label]])
            assert set(counts.values()) <= {len(own) // SIZES[label]}, (label, counts)


def test_a_class_that_is_used_up_is_shuffled_anew() -> None:
    own = [p for p in chain.from_iterable(ClassBatchSampler(LABELS, 5, 12, 0)) if LABELS[p] == 0]
    assert len(own) == 15
    assert sorted(own[:6]) == sorted(own[6:12])
    assert own[:6] != own[6:12]


@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_processes_share_class_batches_equally(num_processes: int) -> None:
    def batches(process: int, num_processes: int) -> list[list[int]]:
        sampler = ClassBatchSampler(LABELS, 5, 48, 3, process, num_processes)
        sampler.set_epoch(2)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    shares = [batches(process, num_processes) for process in range(num_processes)]
    for whole, *parts in zip(batches(0, 1), *shares, strict=True):
        assert sorted(chain.from_iterable(parts)) == sorted(whole)
        assert {len(part) for part in parts} == {48 // num_processes}
        assert all(set(label_counts(part)) == {0, 1, 2, 4} for part in parts)


@pytest.mark.parametrize("crops", [False, True])
def test_a_resumed_class_sampler_continues_the_same_order(crops: bool) -> None:
    def order(seed: int, epochs: list[int]) -> list[object]:
        sampler = ClassBatchSampler(LABELS, 5, 12, seed)
        seen: list[object] = []
        wrapped = RandomCrops(sampler, seed) if crops else sampler
        for epoch in epochs:
            wrapped.sampler.set_epoch(epoch)
            seen = list(wrapped)
        return seen

    assert order(0, [0, 1, 2, 3]) == order(0, [3])
    assert order(0, [3]) != order(0, [4])
    assert order(0, [3]) != order(1, [3])


def test_a_batch_below_two_per_class_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"batch_size is 7.* 4 classes.*data\.init_args\.batch_size .* 8"):
        ClassBatchSampler(LABELS, 5, 7, 0)
    assert len(ClassBatchSampler(LABELS, 5, 8, 0)) == 8


def test_unequal_shares_of_class_batches_are_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"batch_size is 22.* 20 .* 8 processes.*batch_size to 24"):
        ClassBatchSampler(LABELS, 5, 22, 0, 0, 8)
    assert ClassBatchSampler(LABELS, 5, 24, 0, 0, 8).per_class == 6
    with pytest.raises(ConfigurationError, match=r"batch_size to 24, .* multiple of 12"):
        ClassBatchSampler(LABELS, 5, 16, 0, 0, 6)


def test_class_batches_of_a_single_class_are_rejected() -> None:
    with pytest.raises(ConfigurationError, match="1 of 5 classes"):
        ClassBatchSampler([2, 2, 2], 5, 8, 0)


def test_class_batches_of_two_classes_are_balanced() -> None:
    labels = [2, 2, 2, 0, 0]
    for batch in ClassBatchSampler(labels, 5, 4, 0):
        assert Counter(labels[position] for position in batch) == {0: 2, 2: 2}


@pytest.mark.parametrize("kind", ["length", "class"])
def test_crops_do_not_depend_on_the_number_of_processes(kind: str) -> None:
    def batches(process: int, num_processes: int) -> BucketBatchSampler | ClassBatchSampler:
        if kind == "length":
            return BucketBatchSampler(LENGTHS, 8, 0, process, num_processes)
        return ClassBatchSampler(LABELS, 5, 16, 0, process, num_processes)

    def crops(process: int, num_processes: int) -> list[list[tuple[int, float]]]:
        sampler = RandomCrops(batches(process, num_processes), 5)
        sampler.sampler.set_epoch(3)
        assert len(sampler) == len(batches(process, num_processes))
        return list(sampler)

    plain = batches(0, 1)
    plain.set_epoch(3)
    assert [[position for position, _ in batch] for batch in crops(0, 1)] == list(plain)
    places = dict(chain.from_iterable(crops(0, 1)))
    for process in range(2):
        shared = list(chain.from_iterable(crops(process, 2)))
        assert all(places[position] == place for position, place in shared)


def test_crop_places_are_uniform_and_vary() -> None:
    def places(seed: int, epoch: int) -> list[float]:
        sampler = RandomCrops(BucketBatchSampler([10] * 4000, 100, 0), seed)
        sampler.set_epoch(epoch)
        return [place for _, place in sorted(chain.from_iterable(sampler))]

    first, later, other = places(0, 0), places(0, 1), places(1, 0)
    assert all(0.0 <= place < 1.0 for place in first)
    assert np.histogram(first, 10, (0, 1))[0].min() > 320  # 400 expected, with a deviation of 19
    assert len(set(first + later + other)) == 12000
    assert abs(np.corrcoef([first, later, other]) - np.eye(3)).max() < 0.06
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.06
