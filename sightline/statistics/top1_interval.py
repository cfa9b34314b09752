"""The interval of an accuracy: over subjects where there are enough of them, over clips else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sightline.statistics.binomial import accuracy_interval
from sightline.statistics.subject_intervals import leave_one_out_of


@dataclass(frozen=True)
class Top1Interval:
    """A 95 % interval, in percent.

    Attributes:
        low: Lower end.
        high: Upper end.
        subjects: Number of subjects; None where they are not known.
        over: ``subjects``: what other subjects would have given. ``clips``: what other clips of the same subjects
            would have given, which is too narrow for new subjects, see `sightline.statistics.few_subjects`.
    """

    low: float
    high: float
    subjects: int | None
    over: Literal["clips", "subjects"]


def top1_interval(correct: ArrayLike, subjects: Sequence[str] | None = None) -> Top1Interval:
    """Return the interval of the share of clips that were classified correctly.

    Args:
        correct: Whether each clip was, (N,).
        subjects: Subject of every clip, (N,); None or empty names where they are not known.
    """
    right = np.asarray(correct, dtype=float)
    group = np.array([] if subjects is None else subjects, dtype=object)
    known = len(group) == len(right) and all(group)
    if known:
        left_out = leave_one_out_of(right, group)
        if left_out is not None:
            low, high = left_out.intervals(shares=True)
            return Top1Interval(100 * float(low[0]), 100 * float(high[0]), len(set(group)), "subjects")
    low_end, high_end = accuracy_interval(int(right.sum()), len(right))
    return Top1Interval(low_end, high_end, len(set(group)) if known else None, "clips")
