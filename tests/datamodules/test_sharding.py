from collections import Counter

import pytest
from torch.utils.data import DistributedSampler

from datamodules.sharding import BalancedSampler, EpochSampler, ShardSampler


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [0, 1, 3, 7, 12])
def test_shards_cover_every_sample_once(size, world):
    shards = [list(ShardSampler(range(size), rank, world)) for rank in range(world)]
    assert sorted(index for shard in shards for index in shard) == list(range(size))
    assert [len(ShardSampler(range(size), rank, world)) for rank in range(world)] == [len(shard) for shard in shards]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 3, 7, 12])
def test_training_gives_ranks_equally_many_and_drops_none(size, world):
    samplers = [EpochSampler(range(size), rank, world) for rank in range(world)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {-(-size // world)} == {len(sampler) for sampler in samplers}
    assert {index for share in shares for _, index in share} == set(range(size))


def test_training_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        sampler = EpochSampler(range(20), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert {epoch for epoch, _ in order(0, 3)} == {3}
    orders = [tuple(index for _, index in order(seed, epoch)) for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert len(set(orders)) == 4


LABELS = [0] * 2 + [1] * 7 + [2] * 11 + [1]  # 2, 8 and 11 samples


def balanced(epoch: int = 0, seed: int = 0, rank: int = 0, world: int = 1):
    sampler = BalancedSampler(LABELS, rank, world, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_balanced_epochs_by_hand(epoch):
    found = balanced(epoch)
    assert len(found) == 21
    assert Counter(LABELS[index] for _, index in found) == {0: 7, 1: 7, 2: 7}
    come = Counter(index for _, index in found)
    assert sorted(come[index] for index in (0, 1)) == [3, 4]
    assert max(come[index] for index in range(2, 21)) == 1


def test_a_balanced_epoch_gives_the_rest_to_some_classes():
    sampler = BalancedSampler([0] * 2 + [1] * 9)
    shares = set()
    for epoch in range(8):
        sampler.set_epoch(epoch)
        shares.add(tuple(Counter(int(index >= 2) for _, index in sampler)[label] for label in (0, 1)))
    assert shares == {(5, 6), (6, 5)}


def test_a_clip_is_seen_in_another_way_each_time():
    found = [item for epoch in range(6) for item in balanced(epoch)]
    assert len(set(found)) == len(found)


def test_balanced_order_depends_on_seed_and_epoch_only():
    assert balanced(3, 1) == balanced(3, 1)
    assert len({tuple(balanced(epoch, seed)) for epoch in (0, 1) for seed in (0, 1)}) == 4
    # Of the large classes, other samples come in other epochs.
    assert {index for epoch in range(12) for _, index in balanced(epoch)} == set(range(21))


@pytest.mark.parametrize("world", [2, 4, 5])
def test_ranks_share_a_balanced_epoch(world):
    shares = [balanced(2, rank=rank, world=world) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-21 // world)}
    together = [item for turn in zip(*shares, strict=True) for item in turn]
    assert together[:21] == balanced(2)
    assert together[21:] == together[: len(together) - 21]


def test_balancing_balanced_classes_drops_none():
    sampler = BalancedSampler([0, 1, 2] * 4)
    assert sorted(index for _, index in sampler) == list(range(12))


def test_lightning_leaves_them_alone():
    assert issubclass(BalancedSampler, DistributedSampler)
    assert issubclass(ShardSampler, DistributedSampler)
    assert issubclass(EpochSampler, DistributedSampler)
