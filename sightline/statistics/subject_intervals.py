"""Intervals over subjects: what another choice of subjects would have given, from leaving out one at a time.

Samples of one subject are similar, so what another data set would draw anew is subjects and not samples. A quantity's
variance is that of the values without one subject each (the jackknife over clusters, "CR3"; MacKinnon, Nielsen and Webb
2023, section 3), and quantiles are of Student's t. With equal numbers of samples the degrees of freedom are one less
than the subjects; where a few subjects have most of the samples, they are one less than the effective number of
subjects, 1 / sum of squared shares (Kish 1965), as the variance then rests on these few.

A mean of values in [0, 1] (an accuracy, a score) has no symmetric error near the ends of its range: there the interval
is Wilson's, with the quantile of t and an effective number of samples, m (1 - m) / variance, which is what subjects
that differ leave of the samples (Dean and Pagano 2015). It lies inside [0, 1]. All other quantities (differences,
correlations) have a symmetric interval.

How often such intervals hold the true value is simulated in tests/sightline/statistics/test_coverage.py.

Shapes: U units, N samples, G subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from sightline.statistics.bootstrap import MIN_GROUPS
from sightline.statistics.matrix import Floats, ScoreMatrix


@dataclass(frozen=True)
class LeftOut:
    """Means of units with each subject left out.

    Attributes:
        own: Means over all samples, (U,).
        means: Means over the samples of all subjects but one, (G, U).
        degrees: Degrees of freedom, (U,).
        samples: Number of samples that each unit was seen on, (U,).
    """

    own: Floats
    means: Floats
    degrees: Floats
    samples: Floats

    def intervals(self, *, shares: bool = False, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Return the ends of the interval of every unit's mean, of values in [0, 1]; (U,) each.

        Args:
            shares: Whether every value is 0 or 1 (right or wrong). The interval is then never narrower than one over
                independent samples, not even where all subjects agree by chance.
            confidence: Share of such intervals that hold the true mean.
        """
        return share_interval(self.own, self.means, self.degrees, self.samples if shares else None, confidence)


def leave_one_out(matrix: ScoreMatrix) -> LeftOut | None:
    """Take every unit's mean without each subject; None with fewer than `MIN_GROUPS` subjects."""
    names, codes = np.unique(matrix.group.astype(str), return_inverse=True)
    if len(names) < MIN_GROUPS:
        return None
    sums, counts = matrix.sums_by(codes.astype(np.int64), len(names))
    total, samples = sums.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # a unit of a race may have been seen on one subject alone
        means = (total - sums) / (samples - counts)
        own, shares = (total / samples)[:, 0], counts / samples
    degrees = np.maximum(1 / (shares**2).sum(axis=1) - 1, 1.0)
    return LeftOut(own, means.T, degrees, samples[:, 0])


def leave_one_out_of(values: Floats, subjects: NDArray[np.object_]) -> LeftOut | None:
    """Take the mean of one value per sample, (N,), without each subject; U is 1. See `leave_one_out`."""
    return leave_one_out(ScoreMatrix(pd.DataFrame(index=[0]), values[None], np.zeros(len(values), np.int64), subjects))


def symmetric_interval(
    own: Floats, left_out: Floats, degrees: Floats | float, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Return the ends of the interval of quantities of any range.

    Args:
        own: The quantities on all samples, (...).
        left_out: The same without each subject, (G, ...).
        degrees: Degrees of freedom, see `LeftOut`.
        confidence: Share of such intervals that hold the true value.
    """
    width = _t(degrees, confidence) * np.sqrt(_variance(own, left_out))
    return own - width, own + width


def share_interval(
    own: Floats,
    left_out: Floats,
    degrees: Floats | float,
    samples: Floats | float | None = None,
    confidence: float = 0.95,
) -> tuple[Floats, Floats]:
    """Return the ends of the interval of means of values in [0, 1]; arguments as of `symmetric_interval`.

    Args:
        samples: Where every value is 0 or 1: number of samples, which the effective number does not exceed.
    """
    own = np.clip(own, 0.0, 1.0)
    spread = own * (1 - own)
    with np.errstate(invalid="ignore", divide="ignore"):
        # One over the effective number of samples.
        one = np.where(spread > 0, _variance(own, left_out) / spread, 0.0)
    if samples is not None:
        one = np.maximum(one, 1 / np.asarray(samples))
    t = _t(degrees, confidence)
    middle = (own + t**2 * one / 2) / (1 + t**2 * one)
    width = t / (1 + t**2 * one) * np.sqrt(spread * one + (t * one) ** 2 / 4)
    return middle - width, middle + width


def _variance(own: Floats, left_out: Floats) -> Floats:
    groups = len(left_out)
    return (groups - 1) / groups * ((left_out - own) ** 2).sum(axis=0)


def _t(degrees: Floats | float, confidence: float) -> Floats:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    # Of scipy.special, because importing scipy.stats takes a second of every report.
    return -stdtrit(degrees, (1 - confidence) / 2)
