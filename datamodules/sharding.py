"""Which rank reads which clip, and in which order: evaluation reads every clip once, training reshuffles every epoch.

Both samplers are DistributedSamplers so that Lightning leaves them alone, also where ``use_distributed_sampler`` is on.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence, Sized
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
        padded = islice(cycle(self._order()), self.total_size)
        return islice(padded, self.rank, None, self.num_replicas)

    def _order(self) -> list[tuple[int, int]]:
        """What all ranks together read in this epoch."""
        order = list(range(self._size))
        random.Random(f"order/{self.seed}/{self.epoch}").shuffle(order)
        return [(self.epoch, index) for index in order]


class BalancedSampler(EpochSampler):
    """As many samples of every class (at most one more or less) in every epoch, which stays as long as it was.

    Of a large class an epoch takes a part, another one each time; a small class comes round several times. In both, no
    clip comes twice more often than another of its class. Yields (view, index): each time a clip comes it has another
    number, by which it is seen in another way.
    """

    def __init__(self, labels: Sequence[int], rank: int = 0, world: int = 1, seed: int = 0) -> None:
        super().__init__(labels, rank, world, seed)
        self._places: dict[int, list[int]] = defaultdict(list)
        for index, label in enumerate(labels):
            self._places[label].append(index)

    def _order(self) -> list[tuple[int, int]]:
        chance = random.Random(f"balanced/{self.seed}/{self.epoch}")
        classes = sorted(self._places)
        chance.shuffle(classes)  # the first ones get one sample more, where the division leaves a rest
        share, rest = divmod(self._size, len(classes))
        # How often a clip can come in an epoch, which keeps the numbers of different epochs apart.
        most = -(-(share + 1) // min(map(len, self._places.values())))
        order = []
        for number, label in enumerate(classes):
            places = chance.sample(self._places[label], len(self._places[label]))
            for turn in range(share + (number < rest)):
                come, place = divmod(turn, len(places))
                order.append((self.epoch * most + come, places[place]))
        chance.shuffle(order)
        return order
