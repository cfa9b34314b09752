"""The cuts of a ranking that a race decides: which units lie below, which above, and which are still open.

The lowest k of U units are those below the cut after place k; the highest k are those above the cut after place U - k.
A cut of U' open units, k' of which lie below, is settled by evidence for "a has a lower mean than b", where 1 is proof:

- a unit lies *below* when its k' smallest evidence for being below its rivals sums to 1,
- *above* when the U' - k' smallest evidence for its rivals being below it sums to 1.

Why this is safe. Let A be the units that truly lie below, and let all that is settled so far be right: then k' open
units are of A. If a unit outside A is settled below, its evidence against the k' of A is at least the sum of its k'
smallest, so at least 1. If a unit of A is settled above, the evidence of the U' - k' open units outside A against it
sums to 1. In both cases evidence for something false, between a unit of A and one outside, sums to 1. So a cut can only
be wrong where the sum over all *crossing pairs* of this cut does; which pairs these are need not be known.

*Within a tolerance* cuts are closed at once: the open units of lowest mean so far go below, if there is evidence of 1
that each of them is not the tolerance or more above each that goes above. Say that c went below, l above, and c's mean
is more than the tolerance above l's. If c is of A or l is not, some open unit of the other kind stands in for it: with
c of A and l of A, one outside A went below, and its mean is at least c's; with both outside, one of A went above, and
its mean is at most l's. (With c of A and l not, nothing is wrong.) So a crossing pair has evidence of 1 for something
false. Units are not settled one by one on such evidence: of units each of which is within the tolerance of the next,
one after the other could go, and leave the last, far from the first.

Sets of different sizes must stay nested. So cuts are closed together, by one order, and only with what the other cuts
have settled alike.

Shapes: U units, A active units.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sightline.statistics.bootstrap import chosen
from sightline.statistics.matrix import Floats
from sightline.statistics.paired_claims import Flags, Indices

BELOW, OPEN, ABOVE = -1, 0, 1


@dataclass
class Cut:
    """One set that is raced for, as a cut of the ranking.

    Attributes:
        mode: ``lowest`` or ``highest``.
        k: Size of the set.
        side: Of every unit: below, above, or open, (U,).
        exact: Whether the set is the full data's; otherwise it is so within a tolerance.
    """

    mode: str
    k: int
    side: NDArray[np.int8]
    exact: bool = True

    @property
    def place(self) -> int:
        """How many units lie below."""
        return self.k if self.mode == "lowest" else len(self.side) - self.k

    @property
    def members(self) -> Indices:
        """Units known to be in the set, ascending."""
        return np.flatnonzero(self.side == (BELOW if self.mode == "lowest" else ABOVE))

    @property
    def open(self) -> Flags:
        return self.side == OPEN

    def settle(self, active: Indices, below: Floats) -> None:
        """Settle what the evidence for the row being below the column, (A, A), allows; repeat while it helps."""
        while self.open.any():
            rows = np.flatnonzero(self.open[active])
            low = self.place - int((self.side == BELOW).sum())
            high = len(rows) - low
            if low == 0 or high == 0:
                self.side[self.open] = ABOVE if low == 0 else BELOW
                return
            among = below[np.ix_(rows, rows)]
            np.fill_diagonal(among, np.inf)
            sinks = np.partition(among, low - 1, axis=1)[:, :low].sum(axis=1)
            rises = np.partition(among, high - 1, axis=0)[:high].sum(axis=0)
            if not self._close(active[rows], sinks, low, BELOW) and not self._close(active[rows], rises, high, ABOVE):
                return

    def _close(self, units: Indices, evidence: Floats, room: int, side: int) -> bool:
        """Settle the surest units, no more than there is room for (contradictory evidence is rare, but may be)."""
        best = np.argsort(-evidence, kind="stable")[:room]
        sure = units[best[evidence[best] >= 1]]
        self.side[sure] = side
        return len(sure) > 0

    def decide(self, means: Floats) -> None:
        """Close all by the full data's means, (U,); only those of open units are looked at; ties to the lower index."""
        rows = np.flatnonzero(self.open)
        wanted = self.k - len(self.members)
        inside, outside = (BELOW, ABOVE) if self.mode == "lowest" else (ABOVE, BELOW)
        self.side[rows] = outside
        if wanted:
            self.side[rows[chosen(means[rows], wanted, self.mode)]] = inside


@dataclass
class Cuts:
    """All cuts of a race.

    Attributes:
        units: Number of units U.
        ks: Sizes of the sets.
        modes: ``lowest``, ``highest`` or both.
    """

    units: int
    ks: Sequence[int]
    modes: Sequence[str]
    all: list[Cut] = field(init=False)

    def __post_init__(self) -> None:
        self.all = [Cut(mode, k, np.zeros(self.units, dtype=np.int8)) for mode in self.modes for k in self.ks]

    @property
    def open(self) -> Flags:
        """Units that some cut needs yet, (U,)."""
        return np.any([cut.open for cut in self.all], axis=0)

    @property
    def crossing_pairs(self) -> int:
        """How many pairs of units the cuts separate.

        Each mode counts for itself: a tie goes to the lower index in both, so that among tied units the lowest sets and
        the highest ones order a pair differently.
        """
        return sum(_crossing_pairs(self.units, [cut.place for cut in self.all if cut.mode == m]) for m in self.modes)

    def settle(self, active: Indices, below: Floats) -> None:
        """Settle, for every cut, what the evidence for the row being below the column, (A, A), allows."""
        for cut in self.all:
            cut.settle(active, below)

    def close_within(self, active: Indices, nearly_below: Floats, means: Floats) -> None:
        """Close the cuts that can be closed within the tolerance, by the order of the means so far, (U,)."""
        order = np.lexsort((means, np.sum([cut.side for cut in self.all], axis=0)))
        wanted = {}
        for number, cut in enumerate(self.all):
            side = np.full(self.units, ABOVE, dtype=np.int8)
            side[order[: cut.place]] = BELOW
            if cut.open.any() and _agrees(cut, side, active, nearly_below):
                wanted[number] = side
        while unlike := [number for number, side in wanted.items() if not self._nested(number, side, wanted)]:
            for number in unlike:
                del wanted[number]
        for number, side in wanted.items():
            self.all[number].side, self.all[number].exact = side, False

    def _nested(self, number: int, side: NDArray[np.int8], wanted: dict[int, NDArray[np.int8]]) -> bool:
        """Whether all cuts but those closed at the same time have settled alike what this one would close."""
        place = self.all[number].place
        others = [cut for other, cut in enumerate(self.all) if other not in wanted]
        return all(
            (cut.place < place or bool((cut.side[side == BELOW] == BELOW).all()))
            and (cut.place > place or bool((cut.side[side == ABOVE] == ABOVE).all()))
            for cut in others
        )

    def decide(self, means: Floats) -> None:
        """Close all cuts by the full data's means, (U,)."""
        for cut in self.all:
            cut.decide(means)


def _agrees(cut: Cut, side: NDArray[np.int8], active: Indices, nearly_below: Floats) -> bool:
    """Whether a way to close a cut keeps to what is settled, and is right within the tolerance in what is open."""
    if (cut.side * side == -1).any():
        return False
    low, high = (np.flatnonzero((cut.open & (side == which))[active]) for which in (BELOW, ABOVE))
    return bool((nearly_below[np.ix_(low, high)] >= 1).all())


def _crossing_pairs(units: int, places: Sequence[int]) -> int:
    """Count the pairs of units that at least one cut, given by how many lie below, separates."""
    edges = sorted({0, units, *places})
    blocks = [high - low for low, high in itertools.pairwise(edges)]
    return (units**2 - sum(block**2 for block in blocks)) // 2
