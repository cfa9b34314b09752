"""Claims, after n samples, that one unit has a lower mean over all N samples than another.

The samples are drawn without replacement from the finite population of all samples, so nothing has to be assumed about
drivers or classes. The intervals are one-sided, of the mean of paired differences: Student's t, with the
finite-population correction sqrt(1 - f), f = n/N. Where the differences are skewed towards the side that would hide an
error, t grows by

    skew / sqrt(n) * (t^2 sqrt(1 - f) / 2 - (t^2 - 1) (1 - 2 f) / (6 sqrt(1 - f)))

the first-order Edgeworth term of a mean divided by its estimated error (for f = 0, Hall 1992, section 2.6), in which
1 - 2 f is the skew of sampling without replacement; where the skew is to the other side, t stays. The samples that
hide an error are those that lack the rare large values, and so show too little skew: three standard errors of a skew
are added to it.

Differences that (nearly) do not vary, such as those of two units that are 0 on every sample so far, say nothing.

Shapes: U units, A of them active, S new samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sightline.statistics.matrix import Floats

SKEW_ERRORS = 3.0
"""How many of its standard errors, sqrt(6/n), are added to a skew."""
# A share of a pair's second moment, well above what rounding leaves of a difference that is constant.
_NO_VARIANCE = 1e-9

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


class PairedSums:
    """Sums over the samples seen, from which all pairs' means, variances and skews follow.

    Active units must have seen the same samples.

    Args:
        units: Number of units U.
        total: Number of samples N. Those that turn out unreadable only shrink it: counting them is safe.
        error: Probability with which a single claim may be wrong.
    """

    def __init__(self, units: int, total: int, error: float) -> None:
        self._total, self._error, self._n = total, error, 0
        # Of x_a, x_a x_b and x_a^2 x_b, where x is what a score has beyond the mean of the active units on its sample:
        # what they have in common cancels in differences, but would leave its rounding behind.
        self._sums = np.zeros(units)
        self._products, self._cubes = np.zeros((units, units)), np.zeros((units, units))

    def add(self, active: Indices, scores: Floats) -> None:
        """Add new samples of the active units, (A, S); a sample that is not a number is left out."""
        scores = scores[:, ~np.isnan(scores).any(axis=0)]
        self._n += scores.shape[1]
        x = scores - scores.mean(axis=0)
        block = np.ix_(active, active)
        self._sums[active] += x.sum(axis=1)
        self._products[block] += x @ x.T
        self._cubes[block] += (x * x) @ x.T

    def below(self, active: Indices) -> Floats:
        """Return 1 where it is claimed that one active unit (row) has a lower mean than another (column), (A, A)."""
        n, block = self._n, np.ix_(active, active)
        if n < 2:
            return np.zeros((len(active), len(active)))
        mean = (self._sums[active][:, None] - self._sums[active]) / n
        products, cubes = self._products[block] / n, self._cubes[block] / n
        second = np.diag(products)[:, None] + np.diag(products) - 2 * products
        third = np.diag(cubes)[:, None] - 3 * cubes + 3 * cubes.T - np.diag(cubes)
        variance = np.maximum(second - mean**2, 0.0)
        varies = variance > _NO_VARIANCE * second
        with np.errstate(invalid="ignore", divide="ignore"):
            skew = (third - 3 * second * mean + 2 * mean**3) / variance**1.5
        skew_at_most = np.where(varies, np.maximum(skew + SKEW_ERRORS * math.sqrt(6 / n), 0.0), 0.0)
        t = -stdtrit(n - 1, self._error)
        factor = t + skew_at_most * skew_correction(t, n, n / self._total)
        width = factor * np.sqrt(variance / (n - 1) * (1 - n / self._total))
        return (varies & (mean + width < 0)).astype(np.float64)


def skew_correction(t: float, n: int, seen: float) -> float:
    """By how much t grows per unit of skew, after n samples, which are a share ``seen`` of all."""
    unseen = math.sqrt(1 - seen)
    return (t * t * unseen / 2 - (t * t - 1) * (1 - 2 * seen) / (6 * unseen)) / math.sqrt(n)
