"""The interval of a mean of values of any size, over subjects where there are enough of them, else over clips.

Shapes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from sightline.statistics.subject_intervals import leave_one_out_of, symmetric_interval


@dataclass(frozen=True)
class MeanInterval:
    """A mean over clips with its 95 % interval.

    Attributes:
        mean: The mean.
        low: Lower end; NaN with one clip.
        high: Upper end; NaN with one clip.
        over: What was taken as independent.
    """

    mean: float
    low: float
    high: float
    over: Literal["subjects", "clips"]


def mean_interval(values: ArrayLike, subjects: ArrayLike, confidence: float = 0.95) -> MeanInterval:
    """Take a mean and its interval.

    With at least 8 subjects it is that of `sightline.statistics.subject_intervals`, and never narrower than Student's
    over clips; otherwise it is Student's, which takes clips of one subject for independent and so is too narrow.

    Args:
        values: One per clip, (N,).
        subjects: Whom each clip shows, (N,); "" where that is unknown.
        confidence: Share of such intervals that hold the true mean.

    Raises:
        ValueError: If there is no clip.
    """
    x, who = np.asarray(values, dtype=float), np.asarray(subjects, dtype=str)
    if x.ndim != 1 or x.shape != who.shape or not len(x):
        raise ValueError(f"Expected the value of every clip and its subject; got {x.shape} and {who.shape}.")
    mean, low, high = float(x.mean()), float("nan"), float("nan")
    if len(x) > 1:
        half = -stdtrit(len(x) - 1, (1 - confidence) / 2) * x.std(ddof=1) / np.sqrt(len(x))
        low, high = mean - half, mean + half
    left_out = leave_one_out_of(x, who.astype(object)) if bool(np.all(who != "")) else None
    if left_out is None:
        return MeanInterval(mean, float(low), float(high), "clips")
    ends = symmetric_interval(left_out.own, left_out.means, left_out.degrees, confidence)
    return MeanInterval(mean, min(float(low), float(ends[0][0])), max(float(high), float(ends[1][0])), "subjects")
