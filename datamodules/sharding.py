"""Which rank reads which clip, and in which order: evaluation reads every clip once, training reshuffles every epoch.

Both samplers are DistributedSamplers so that Lightning leaves them alone, also where ``use_distributed_sampler`` is on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from itertools import cycle, islice

from torch.utils.data import DistributedSampler


class ShardSampler(DistributedSampler):
    """Every ``world``-th sample from ``rank`` on: over all ranks each sample exactly once, none added to even out.

    Ranks may thus get different numbers of batches: the evaluation steps must not communicate.
    """

    def __init__(self, dataset: Sized, rank: int = 0, world: int = 1) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self._indices = range(rank, len(dataset), world)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


class EpochSampler(DistributedSampler):
    """A new order for every epoch, the same for a given seed; yields (epoch, index).

    The epoch travels with the index because persistent workers hold a copy of the dataset that could not be told
    otherwise which epoch it is. Ranks get equally many samples (the first ones of the order fill up the last round), as
    training's gradient exchange needs. Lightning calls ``set_epoch``.
    """

    def __init__(self, dataset: Sized, rank: int = 0, world: int = 1, seed: int = 0) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self._size = len(dataset)

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        order = list(range(self._size))
        random.Random(f"order/{self.seed}/{self.epoch}").shuffle(order)
        padded = islice(cycle(order), self.total_size)
        return ((self.epoch, index) for index in islice(padded, self.rank, None, self.num_replicas))
