"""How far two models' results on the same clips differ, with an interval that respects subjects where it can.

Shapes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri

from sightline.statistics.subject_intervals import leave_one_out_of, symmetric_interval


@dataclass(frozen=True)
class PairedChange:
    """A mean difference over clips, with its 95 % interval.

    Attributes:
        change: The mean difference.
        low: Lower end of the interval.
        high: Upper end.
        over: What was taken as independent: ``subjects``, or single ``clips`` where there are too few subjects.
        subjects: How many subjects there are; 0 where that of any clip is unknown.
        clips: How many clips.
    """

    change: float
    low: float
    high: float
    over: Literal["subjects", "clips"]
    subjects: int
    clips: int

    @property
    def above(self) -> bool:
        """Whether the difference is surely positive."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether the difference is surely negative."""
        return self.high < 0


def paired_change(differences: ArrayLike, subjects: ArrayLike, confidence: float = 0.95) -> PairedChange:
    """Take the mean of differences between two models, clip by clip, and its interval.

    With at least 8 subjects it is that of `sightline.statistics.subject_intervals`, and never narrower than over clips:
    subjects who happen to agree are no evidence that others would. Otherwise it is over clips, the adjusted interval of
    Bonett and Price (2012): two more differences, 1 and -1, are added, so that it has a width also where the models
    never differ.

    Args:
        differences: Between the two models' results, each within [-1, 1], (N,).
        subjects: Whom each clip shows, (N,); "" where that is unknown.
        confidence: Share of such intervals that hold the true mean.

    Raises:
        ValueError: If there is no clip, or a difference is out of range.
    """
    d, who = np.asarray(differences, dtype=float), np.asarray(subjects, dtype=str)
    if d.ndim != 1 or d.shape != who.shape or not len(d) or not np.all(np.abs(d) <= 1):
        raise ValueError(
            f"Expected the difference of every clip, within -1 and 1, and its subject; got {d.shape} and {who.shape}."
        )
    n, mean, tail = len(d), float(d.mean()), (1 - confidence) / 2
    centre = d.sum() / (n + 2)
    half = -ndtri(tail) * np.sqrt(((np.sum(d * d) + 2) / (n + 2) - centre**2) / (n + 2))
    low, high = min(centre - half, mean), max(centre + half, mean)
    over: Literal["subjects", "clips"] = "clips"
    known = bool(np.all(who != ""))
    left_out = leave_one_out_of(d, who.astype(object)) if known else None
    if left_out is not None:
        ends = symmetric_interval(left_out.own, left_out.means, left_out.degrees, confidence)
        low, high, over = min(low, float(ends[0][0])), max(high, float(ends[1][0])), "subjects"
    groups = len(np.unique(who)) if known else 0
    return PairedChange(mean, float(max(low, -1)), float(min(high, 1)), over, groups, n)


def sign_test(more: int, less: int) -> float:
    """Return the two-sided p-value of so many clips that changed one way and so many the other (exact McNemar test)."""
    return min(1.0, 2 * float(bdtr(min(more, less), more + less, 0.5))) if more + less else 1.0
