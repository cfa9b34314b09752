"""Racing: stop evaluating a unit once its place in the lowest-k (or highest-k) sets is settled.

Samples come in one seeded random order, in looks that grow by a fifth. After a look, the
evidence that one unit has a lower mean than another settles what it can (`race_cuts`), and a unit that is settled for
every set stops. What is still open when all samples are seen is decided by the full means, exactly; ties go to the
lower index. The answer raced for is the ranking of the *full data*.

**Guaranteed.** The evidence is that of bets (`paired_bets`): for every ordered pair (a, b) an e-process for a's mean
being the lower one. Consider the pairs that a set truly separates. For each, the e-process of the false order is a
supermartingale that starts at 1, and so their sum over the C crossing pairs of all sets is one that starts at C: it
ever reaches C / delta with a probability of at most delta = 1 - confidence (Ville). Evidence is given in units of
C / delta, and a set can only be wrong if evidence for false orders of crossing pairs sums to 1 (`race_cuts`). Hence all
sets together are right with a probability of at least the confidence, at every look at once; nothing is added for the
number of looks, and there is no minimum of samples. A pair whose units are not both evaluated any more keeps its
evidence, and a stopped supermartingale is one. With a tolerance every crossing pair also has the e-process of the
weaker claim, which counts where this claim is false; so the sum starts at 2 C at most, and 2 C / delta is the unit.

All of it rests on the order: every permutation of the samples, readable or not, must be as likely as any other, and
chosen without regard to the scores. So the order comes from a stream of random numbers of the race's own; whoever tries
seeds until a result pleases has no guarantee.

**Approximate.** The evidence is 0 or 1: claims from Student's t with a correction for skew (`paired_claims`), by
Bonferroni for the crossing pairs and the looks before the last. No look but the last leaves fewer samples unseen than
the first one sees: the mean of a few unseen samples follows no normal law. Scores are often skewed too much for it:
the confidence is nominal.

Shapes: U units, A active units, S samples of a look, N samples in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.relevance.race_cuts import Cuts
from sightline.relevance.race_settings import RaceSettings
from sightline.statistics.matrix import Floats
from sightline.statistics.paired_bets import PairedBets
from sightline.statistics.paired_claims import Indices, PairedSums
from sightline.types import Unit

FIRST_LOOK = 30
"""Samples before the first look of a guaranteed race: fewer can hardly prove anything."""
# Every look is a round of loading clips; half as many samples between looks would save 2 % of the evaluations.
GROWTH = 1.2
# So that no other use of the same seed, such as a division into splits, draws the same numbers.
_STREAM = 0x7ACE


class Race:
    """Decides, look by look, which units need no further evaluation.

        race = Race(304, 9537, RaceSettings(ks=(1, 3, 6)))
        while not race.finished:
            scores = ...            # of units race.active on the samples at places race.look, same order
            race.update(scores)

    Everything follows from the arguments and the scores, so a killed job replays its stored scores (`replay`), and
    several processes that merge the rows of a look decide alike.

    Args:
        units: Number of units U. Ties go to the lower place, so give them sorted (`sorted` of `Unit`s), as a ranking
            sorts them, and only those that may be chosen (e.g. the removable layers).
        total: Number of samples N, readable or not.
        settings: What to race for, and how surely.

    Attributes:
        n: Samples that each unit was evaluated on, (U,).
        order: Places of all samples in the order in which they are taken, (N,).
        settled_at: Samples seen by units that were settled before the last look, else -1, (U,).
    """

    def __init__(self, units: int, total: int, settings: RaceSettings) -> None:
        if units < 1 or total < 1:
            raise ValueError(f"A race needs units and samples, got {units} units and {total} samples.")
        settings.check(units)
        self.units, self.total, self.settings = units, total, settings
        self.n = np.zeros(units, dtype=np.int64)
        self.settled_at = np.full(units, -1, dtype=np.int64)
        self.order = np.random.default_rng([_STREAM, settings.seed]).permutation(total)
        self._cuts = Cuts(units, sorted(set(settings.ks)), list(dict.fromkeys(settings.modes)))
        self._totals = np.zeros(units)
        self._looks = 0
        pairs, error = max(self._cuts.crossing_pairs, 1), 1 - settings.confidence
        self._evidence: PairedBets | PairedSums
        if settings.approximate:
            self.ends = look_ends(total, settings.first, settings.first)
            self._evidence = PairedSums(units, total, error / (pairs * max(len(self.ends) - 1, 1)))
        else:
            self.ends = look_ends(total, FIRST_LOOK)
            started = 2 * pairs if settings.tolerance else pairs
            self._evidence = PairedBets(units, total, started / error, settings.tolerance)

    @property
    def active(self) -> Indices:
        """Units still to be evaluated, ascending."""
        return np.flatnonzero(self._cuts.open)

    @property
    def finished(self) -> bool:
        """Whether every set is decided."""
        return len(self.active) == 0

    @property
    def look(self) -> Indices:
        """Places of the samples that come next."""
        start = 0 if self._looks == 0 else self.ends[self._looks - 1]
        return self.order[start : self.ends[self._looks]] if not self.finished else self.order[:0]

    @property
    def sets(self) -> dict[tuple[str, int], Indices]:
        """Units known to be in every set, ascending, by (mode, k); whole once the race is finished."""
        return {(cut.mode, cut.k): cut.members for cut in self._cuts.all}

    @property
    def saving(self) -> float:
        """How many times fewer evaluations than all units on all samples."""
        return self.units * self.total / max(int(self.n.sum()), 1)

    def update(self, scores: Floats) -> Indices:
        """Take in the scores of a look and settle what they settle.

        Args:
            scores: Of the active units on the samples of `look`, both in that order, (A, S); columns of samples that
                cannot be read are not a number.

        Returns:
            The units that need no further evaluation from now on.

        Raises:
            ValueError: If the race is finished, or the scores are not of this look or not in [0, 1].
        """
        active, look, scores = self.active, self.look, np.asarray(scores, dtype=np.float64)
        if self.finished or scores.shape != (len(active), len(look)):
            raise ValueError(
                f"Expected the scores of {len(active)} active units on {len(look)} samples, got an array of shape "
                f"{scores.shape}. Evaluate `active` on `look`, then update once."
            )
        read = ~np.isnan(scores).all(axis=0)
        # Not above 1 or below 0 but by what rounding adds.
        if not ((scores[:, read] > -1e-6) & (scores[:, read] < 1 + 1e-6)).all():
            raise ValueError(
                "Scores must lie in [0, 1], on which the bounds of a race rest, and be known for all active units or, "
                "of a sample that cannot be read, for none."
            )
        self.n[active] += int(read.sum())
        self._totals[active] += scores[:, read].sum(axis=1)
        self._looks += 1
        if self._looks == len(self.ends):
            self._cuts.decide(self._means)
            return active
        self._evidence.add(active, scores)
        self._cuts.settle(active, self._evidence.below(active))
        if isinstance(self._evidence, PairedBets) and self.settings.tolerance:
            self._cuts.close_within(active, self._evidence.nearly_below(active), self._means)
        settled = np.setdiff1d(active, self.active)
        self.settled_at[settled] = self.n[settled]
        return settled

    @property
    def _means(self) -> Floats:
        """Of what each unit saw, (U,)."""
        return self._totals / np.maximum(self.n, 1)

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
            stored = scores[np.ix_(self.active, self.look)]
            stored[:, bad[self.look]] = np.nan
            if np.isnan(stored[:, ~bad[self.look]]).any():
                break
            self.update(stored)
        return self._looks - before

    def record(self, units: Sequence[Unit]) -> dict[str, Any]:
        """Return what a manifest says of a race, in plain values; `rank_units` and pruning read it.

        Args:
            units: The units that were raced, in the race's order.
        """
        names = [[unit.layer, unit.site, unit.head] for unit in units]
        return {
            "score": self.settings.score,
            **self.settings.promise(),
            "seed": self.settings.seed,
            "total": self.total,
            "saving": self.saving,
            "units": names,
            "settled_at": [None if n < 0 else n for n in self.settled_at.tolist()],
            "sets": [
                {"mode": cut.mode, "k": cut.k, "exact": cut.exact, "units": [names[place] for place in cut.members]}
                for cut in self._cuts.all
            ],
        }


def look_ends(total: int, first: int, unseen: int = 1) -> list[int]:
    """Return after how many samples there is a look; the last is after all, the others leave ``unseen`` or more."""
    ends, following = [], first
    while following <= total - unseen:
        ends.append(following)
        following = math.ceil(following * GROWTH)
    return [*ends, total]
