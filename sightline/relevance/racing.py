"""Racing: stop evaluating a unit once its place in the lowest-k (or highest-k) sets is settled.

Samples come in one seeded random order, in looks that grow by a fifth. After a look, unit a is *surely below* unit b
where the upper end of the interval of mean(a - b) over the samples seen is below 0. In a set of k out of U open units,
a unit is in where all but k - 1 of the others are surely above it, and out where k are surely below. Settled units
leave that set's contest, and k shrinks by those that are in. A unit that is settled for every set stops. What is still
open when all samples are seen is decided by the full means, exactly; ties go to the lower index.

The answer raced for is the ranking of the *full data*. No look but the last leaves fewer samples unseen than the first
one sees: the mean of a few unseen samples follows no normal law, on which the intervals rest (see `paired_claims`).

Bonferroni: a set can only be wrong if some unit outside it was called surely below one that belongs into it. For a
false "in" of u, all but k - 1 others were called above it, and so one of the k of the true set; for a false "out", k
others were called below it, and so one from outside the true set. Hence only the pairs that a cut separates count, each
in one direction, times the looks before the last. How many there are follows from U and the ks; which, need not be
known.

Shapes: U units, A active units, S samples of a look, N samples in all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.statistics.bootstrap import chosen
from sightline.statistics.matrix import Floats
from sightline.statistics.paired_claims import Flags, Indices, PairedSums
from sightline.types import Unit

GROWTH = 1.2


@dataclass
class _Contest:
    """One set of k units that is raced for: who is in, out, or still open, (U,) each."""

    mode: str
    k: int
    inside: Flags
    open: Flags

    def settle(self, active: Indices, below: Flags) -> None:
        """Close what is settled, given which active unit is surely below which, (A, A); repeat while it helps."""
        below = below if self.mode == "lowest" else below.T
        while True:
            rows = np.flatnonzero(self.open[active])
            wanted = self.k - int(self.inside.sum())
            among = below[np.ix_(rows, rows)]
            enters = among.sum(axis=1) >= len(rows) - wanted
            leaves = among.sum(axis=0) >= wanted
            if wanted == 0:
                enters[:] = False
            if not (enters | leaves).any():
                return
            self.inside[active[rows[enters]]] = True
            self.open[active[rows[enters | leaves]]] = False

    def decide(self, means: Floats) -> None:
        """Close all by the full data's means, (U,); only those of open units are looked at."""
        rows = np.flatnonzero(self.open)
        wanted = self.k - int(self.inside.sum())
        if wanted:
            self.inside[rows[chosen(means[rows], wanted, self.mode)]] = True
        self.open[:] = False


class Race:
    """Decides, look by look, which units need no further evaluation.

        race = Race(units=307, total=9537, ks=(1, 3, 6))
        while not race.finished:
            scores = ...            # of units race.active on the samples at places race.look, same order
            race.update(scores)

    Everything follows from the arguments and the scores, so a killed job replays its stored scores (`replay`), and
    several processes that merge the rows of a look decide alike.

    Args:
        units: Number of units U. Ties go to the lower place, so give them sorted (`sorted` of `Unit`s), as a ranking
            sorts them, and only those that may be chosen (e.g. the removable layers).
        total: Number of samples N, readable or not.
        ks: Sizes of the sets that are wanted.
        modes: ``lowest``, ``highest`` or both.
        confidence: Probability that every set equals the full data's.
        min_samples: Samples before the first decision. What shows on fewer than about one sample in
            ``min_samples / 5`` can be overlooked: nothing drawn tells of it.
        seed: Seed of the order of samples.

    Attributes:
        settled_at: Samples seen by units that were settled before the last look, else -1, (U,).
    """

    def __init__(
        self,
        units: int,
        total: int,
        ks: Sequence[int],
        modes: Sequence[str] = ("lowest",),
        confidence: float = 0.99,
        min_samples: int = 100,
        seed: int = 0,
    ) -> None:
        _check(units, total, ks, modes, confidence, min_samples)
        self.units, self.total = units, total
        self.ks, self.modes = tuple(sorted(set(ks))), tuple(dict.fromkeys(modes))
        self.confidence, self.min_samples, self.seed = confidence, min_samples, seed
        self.ends = look_ends(total, min_samples)
        claims = crossing_pairs(units, self.ks, self.modes) * max(len(self.ends) - 1, 1)
        self.error = (1 - confidence) / max(claims, 1)
        self.settled_at = np.full(units, -1, dtype=np.int64)
        self._order = np.random.default_rng(seed).permutation(total)
        self._looks = 0
        self._contests = [
            _Contest(mode, k, np.zeros(units, dtype=bool), np.ones(units, dtype=bool))
            for mode in self.modes
            for k in self.ks
        ]
        self._sums = PairedSums(units)

    @property
    def n(self) -> Indices:
        """Samples that each unit was evaluated on, (U,)."""
        return self._sums.n

    @property
    def active(self) -> Indices:
        """Units still to be evaluated, ascending."""
        return np.flatnonzero(np.any([contest.open for contest in self._contests], axis=0))

    @property
    def finished(self) -> bool:
        """Whether every set is decided."""
        return len(self.active) == 0

    @property
    def look(self) -> Indices:
        """Places of the samples that come next."""
        start = 0 if self._looks == 0 else self.ends[self._looks - 1]
        return self._order[start : self.ends[self._looks]] if not self.finished else self._order[:0]

    @property
    def sets(self) -> dict[tuple[str, int], Indices]:
        """Units known to be in every set, ascending, by (mode, k); whole once the race is finished."""
        return {(contest.mode, contest.k): np.flatnonzero(contest.inside) for contest in self._contests}

    @property
    def saving(self) -> float:
        """How many times fewer evaluations than all units on all samples."""
        return self.units * self.total / max(int(self.n.sum()), 1)

    def update(self, scores: Floats) -> Indices:
        """Take in the scores of a look and settle what they settle.

        Args:
            scores: Of the active units on the samples of `look`, both in that order, (A, S); without the samples that
                cannot be read.

        Returns:
            The units that need no further evaluation from now on.

        Raises:
            ValueError: If the race is finished, or the scores are not of this look or not finite.
        """
        active, scores = self.active, np.asarray(scores, dtype=np.float64)
        if self.finished or scores.ndim != 2 or len(scores) != len(active) or scores.shape[1] > len(self.look):
            raise ValueError(
                f"Expected the scores of {len(active)} active units on at most {len(self.look)} samples, got an array "
                f"of shape {scores.shape}. Evaluate `active` on `look`, then update once."
            )
        if not np.isfinite(scores).all():
            raise ValueError("Scores must be finite; leave out whole samples that could not be read.")
        self._sums.add(active, scores)
        self._looks += 1
        last = self._looks == len(self.ends)
        if last:
            means = self._sums.totals / np.maximum(self.n, 1)
            for contest in self._contests:
                contest.decide(means)
            return active
        if self.n[active[0]] >= self.min_samples:
            below = self._sums.surely_below(active, self.total, self.error)
            for contest in self._contests:
                contest.settle(active, below)
        settled = np.setdiff1d(active, self.active)
        self.settled_at[settled] = self.n[settled]
        return settled

    def replay(self, scores: Floats, unreadable: NDArray[np.bool_] | None = None) -> int:
        """Go through all looks whose scores are stored already.

        Args:
            scores: (U, N), in the order of the data; not a number where nothing is stored.
            unreadable: Samples that were left out, (N,).

        Returns:
            How many looks were replayed. The next one may be stored in part.
        """
        bad = np.zeros(self.total, dtype=bool) if unreadable is None else unreadable
        before = self._looks
        while not self.finished:
            places = self.look[~bad[self.look]]
            stored = scores[np.ix_(self.active, places)]
            if np.isnan(stored).any():
                break
            self.update(stored)
        return self._looks - before

    def record(self, units: Sequence[Unit], score: str) -> dict[str, Any]:
        """Return what a manifest says of a race, in plain values; `rank_units` and pruning read it.

        Args:
            units: The units that were raced, in the race's order.
            score: The score that was raced by.
        """
        names = [[unit.layer, unit.site, unit.head] for unit in units]
        return {
            "score": score,
            "confidence": self.confidence,
            "min_samples": self.min_samples,
            "seed": self.seed,
            "total": self.total,
            "saving": self.saving,
            "units": names,
            "settled_at": [None if n < 0 else n for n in self.settled_at.tolist()],
            "sets": [
                {"mode": mode, "k": k, "units": [names[place] for place in members]}
                for (mode, k), members in self.sets.items()
            ],
        }


def look_ends(total: int, min_samples: int) -> list[int]:
    """Return after how many samples there is a look; the last is after all, the others leave ``min_samples`` unseen."""
    ends, following = [], min_samples
    while following <= total - min_samples:
        ends.append(following)
        following = math.ceil(following * GROWTH)
    return [*ends, total]


def crossing_pairs(units: int, ks: Sequence[int], modes: Sequence[str]) -> int:
    """Count the pairs of units that at least one of the sets separates."""
    cuts = {k if mode == "lowest" else units - k for k in ks for mode in modes}
    edges = sorted({0, units, *cuts})
    blocks = [high - low for low, high in itertools.pairwise(edges)]
    return (units**2 - sum(block**2 for block in blocks)) // 2


def _check(
    units: int, total: int, ks: Sequence[int], modes: Sequence[str], confidence: float, min_samples: int
) -> None:
    if units < 1 or total < 1:
        raise ValueError(f"A race needs units and samples, got {units} units and {total} samples.")
    if not ks or min(ks) < 1 or max(ks) > units:
        raise ValueError(f"ks must be sizes of sets between 1 and the number of units, {units}; got {list(ks)}.")
    if not modes or set(modes) - {"lowest", "highest"}:
        raise ValueError(f"modes must be lowest, highest or both, got {list(modes)}.")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, got {confidence}.")
    if min_samples < 30:
        raise ValueError(f"min_samples must be at least 30 for intervals that assume normal means, got {min_samples}.")
