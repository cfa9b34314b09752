"""Bets that one unit has a lower mean over all N samples than another: evidence that stays valid at any time.

The samples are drawn without replacement, in a uniformly random order. For the claim that the mean of a lies below that
of b, let d = x_b - x_a in [-1, 1]. Before draw t, with S and Q the sums of d and d^2 so far, the claim's opposite says
that the samples that are left have a mean of at most

    mu = -S / (N - t + 1)

so a bettor who puts lambda >= 0 on d > mu cannot expect to gain: where the opposite is true, the product of

    1 + lambda (d - mu)

over the draws is a nonnegative supermartingale that starts at 1 (an e-process). By Ville's inequality it ever reaches x
with a probability of at most 1/x. The stake may be anything that is fixed before the draw and leaves the factor
positive; here

    m = S / (t + 9),  V = max((0.1 + Q) / (t + 9) - m^2, 1e-8),  g = m - mu
    lambda = clip(g / (V + g^2), 0, 0.99 / (1 + mu))

which comes near to the largest growth, E[g / (V + g^2)] being the first term of it. Where mu < -1 the opposite has
become impossible, and the evidence is infinite.

With a *tolerance* eps the claim is weaker: a's mean is not eps or more above b's. Its opposite leaves a mean of at most
(-eps N - S) / (N - t + 1).

A sample that cannot be read is a draw with d = 0: who cannot be read is settled before the order is drawn, and such a
sample changes neither the sum of d nor its sign. With a tolerance N counts the readable samples alone. How many these
are becomes known on the way, so eps is added to d where a sample is read and not where it is not, which amounts to N
less the unreadable ones so far, and a draw of d = -eps.

Sources: Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement" (2020), for the mean that is
left; "Estimating means of bounded random variables by betting" (JRSS B, 2024), section 4 for stakes of this kind and
section 5 for sampling without replacement. Deviations: pairs of units instead of one mean; one-sided; a prior of ten
draws with d = 0 and a mean square of 0.01 instead of 1/4; caps of 0.99 instead of 1/2 or 3/4.

Shapes: U units, A of them active, S new samples.
"""

from __future__ import annotations

import numpy as np

from sightline.statistics.matrix import Floats
from sightline.statistics.paired_claims import Flags, Indices

PRIOR_DRAWS = 10
PRIOR_SQUARES = 0.1
LEAST_VARIANCE = 1e-8
CAP = 0.99
# How far mu has to lie below -1 to count as impossible: far more than what rounding makes of a tie.
_SURELY = 1e-9
# Differences held at a time: 2 MB, which stays in a processor's cache; and draws, so that no product leaves float64.
_AT_ONCE, _DRAWS_AT_ONCE = 1 << 18, 64


class PairedBets:
    """The e-processes of all pairs of units, in both directions.

    Active units must have seen the same samples; a unit that is not active any more keeps what it had.

    Args:
        units: Number of units U.
        total: Number of samples N, readable or not.
        enough: The e-value that proves a claim; evidence is given as a share of it.
        tolerance: By how much a claim of `nearly_below` may be wrong.
    """

    def __init__(self, units: int, total: int, enough: float, tolerance: float = 0.0) -> None:
        self._total, self._enough, self._tolerance = total, enough, tolerance
        self._drawn = self._unreadable = 0
        self._sums, self._squares = np.zeros((units, units)), np.zeros((units, units))
        # Logarithms of the e-values, of whether the row lies below the column; one array per tolerance.
        self._logs = {eps: np.zeros((units, units)) for eps in sorted({0.0, tolerance})}

    def add(self, active: Indices, scores: Floats) -> None:
        """Add the draws that follow.

        Args:
            active: Units that were evaluated, (A,).
            scores: Theirs in [0, 1] in the order of the draws, (A, S); not a number where a sample could not be read.
        """
        step = max(1, min(_DRAWS_AT_ONCE, _AT_ONCE // len(active) ** 2))
        block = np.ix_(active, active)
        sums, squares = self._sums[block], self._squares[block]
        logs = {eps: log[block] for eps, log in self._logs.items()}
        for start in range(0, scores.shape[1], step):
            drawn = scores[:, start : start + step]
            unreadable: Flags = np.any(np.isnan(drawn), axis=0)
            x = np.where(unreadable, 0.0, np.clip(drawn, 0, 1)).T
            self._bet(x, unreadable, sums, squares, logs)
        self._sums[block], self._squares[block] = sums, squares
        for eps, log in logs.items():
            self._logs[eps][block] = log

    def below(self, active: Indices) -> Floats:
        """Return the evidence that one active unit (row) has a lower mean than another (column), (A, A); 1 proves."""
        return self._evidence(active, 0.0)

    def nearly_below(self, active: Indices) -> Floats:
        """Return the evidence that a unit (row) is not the tolerance or more above another (column), (A, A)."""
        return self._evidence(active, self._tolerance)

    def _evidence(self, active: Indices, eps: float) -> Floats:
        # Beyond e^600 float64 ends, and no sum of evidence needs more.
        logs = self._logs[eps][np.ix_(active, active)]
        return np.where(np.isinf(logs), np.inf, np.exp(np.minimum(logs, 600.0)) / self._enough)

    def _bet(self, x: Floats, unreadable: Flags, sums: Floats, squares: Floats, logs: dict[float, Floats]) -> None:
        """Bet on draws x (S, A) one after the other, changing the arrays (A, A) in place."""
        t = (self._drawn + 1 + np.arange(len(x)))[:, None, None]
        left, weight = self._total - t + 1, t + PRIOR_DRAWS - 1
        d = x[:, None, :] - x[:, :, None]
        squared = d * d
        before = np.cumsum(d, axis=0)
        before += sums
        sums[:] = before[-1]
        before -= d
        spread = np.cumsum(squared, axis=0)
        spread += squares
        squares[:] = spread[-1]
        spread -= squared
        spread += PRIOR_SQUARES
        mean = before / weight
        spread /= weight
        spread -= mean * mean
        np.maximum(spread, LEAST_VARIANCE, out=spread)
        lost = self._unreadable + np.cumsum(unreadable) - unreadable
        for eps, log in logs.items():
            mu = (-eps * (self._total - lost)[:, None, None] - before) / left
            gain = mean - mu
            stake = gain / (spread + gain * gain)
            room = 1 + mu
            np.clip(stake, 0, CAP / np.maximum(room, _SURELY), out=stake)
            stake[room < _SURELY] = 0
            mu -= d
            mu[unreadable] += eps
            log += np.log(np.prod(1 - stake * mu, axis=0))
            log[(room < -_SURELY).any(axis=0)] = np.inf
        self._drawn += len(x)
        self._unreadable += int(unreadable.sum())
