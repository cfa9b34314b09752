"""How stable the chosen sets are: resampling whole groups. Intervals are made in `subject_intervals`.

Samples of one driver are similar, so what another data set would draw anew is drivers and not samples (Davison and
Hinkley 1997, section 3.8). A resample is a vector of weights, how often each group was drawn, and a mean under it
is a ratio of two weighted sums; so thousands of resamples of all units together are two matrix products.

Shapes: U units, N samples, G clusters (groups, or single samples), R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.statistics.matrix import Floats, ScoreMatrix

MIN_GROUPS = 8
"""With fewer groups a bootstrap over them sees too few different resamples to mean anything, and intervals over them
would be right but so wide, and of a width so much up to chance, that they say less than the values by group."""
RESAMPLES = 2000
SEED = 0
# Weights held at a time: 16 MB.
_WEIGHTS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class ResampledMeans:
    """Means of units on resampled data.

    Attributes:
        means: (R, U).
        resampled: ``groups``, or ``samples`` where there are too few groups: then too optimistic, as it takes the
            samples of a group as independent.
    """

    means: Floats
    resampled: str


def resampled_means(matrix: ScoreMatrix, resamples: int = RESAMPLES, seed: int = SEED) -> ResampledMeans:
    """Draw whole groups with replacement (samples where there are fewer than 8 groups) and take every unit's mean.

    All units share the same resamples, so that differences between units keep their pairing.
    """
    names, codes = np.unique(matrix.group.astype(str), return_inverse=True)
    if len(names) >= MIN_GROUPS:
        sums, counts = matrix.sums_by(codes.astype(np.int64), len(names))
        resampled = "groups"
    else:
        seen = ~np.isnan(matrix.values)
        sums, counts = np.where(seen, matrix.values, 0.0), seen.astype(float)
        resampled = "samples"
    clusters = sums.shape[1]
    # Where all units saw the same samples, one count serves all.
    counts = counts[:1] if matrix.complete else counts
    means = np.empty((resamples, len(sums)))
    start = 0
    for weights in _weights(clusters, resamples, seed):
        with np.errstate(invalid="ignore"):
            # A unit of a race may have none of the drawn groups: no mean there.
            means[start : start + len(weights)] = (weights @ sums.T) / (weights @ counts.T)
        start += len(weights)
    return ResampledMeans(means, resampled)


def chosen(means: Floats, k: int, mode: str) -> NDArray[np.bool_]:
    """Mark the k units of lowest (or highest) mean in every row; ties go to the lower index.

    Args:
        means: (..., U).
        k: Size of the set.
        mode: ``lowest`` or ``highest``.

    Returns:
        True where a unit is in the set, (..., U).
    """
    if mode not in ("lowest", "highest"):
        raise ValueError(f"mode must be lowest or highest, got {mode!r}.")
    if not 1 <= k <= means.shape[-1]:
        raise ValueError(f"A set of {k} units cannot be chosen from {means.shape[-1]}.")
    order = np.argsort(means if mode == "lowest" else -means, axis=-1, kind="stable")
    marks = np.zeros(means.shape, dtype=bool)
    np.put_along_axis(marks, order[..., :k], True, axis=-1)
    return marks


def _weights(clusters: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield, some resamples at a time, how often each cluster was drawn, (rows, G)."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _rows_at_once(clusters)):
        rows = min(_rows_at_once(clusters), resamples - start)
        drawn = generator.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=rows * clusters).reshape(rows, clusters).astype(float)


def _rows_at_once(clusters: int) -> int:
    return max(1, _WEIGHTS_AT_ONCE // clusters)
