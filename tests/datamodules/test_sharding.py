import pytest
from torch.utils.data import DistributedSampler

from datamodules.sharding import EpochSampler, ShardSampler


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


def test_lightning_leaves_them_alone():
    assert issubclass(ShardSampler, DistributedSampler)
    assert issubclass(EpochSampler, DistributedSampler)
