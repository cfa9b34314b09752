"""What a score table says about its units, as data frames: intervals, classes, groups, and stability of sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sightline.relevance.race_settings import promise_of
from sightline.statistics.bootstrap import MIN_GROUPS, ResampledMeans, chosen
from sightline.statistics.matrix import ScoreMatrix
from sightline.statistics.subject_intervals import leave_one_out

MODES = ("lowest", "highest")


def interval_table(matrix: ScoreMatrix) -> pd.DataFrame:
    """Return every unit's mean with its 95 % interval over groups, see `sightline.statistics.subject_intervals`.

    Returns:
        layer, site, head, mean, mean_low, mean_high, groups (how many there are). With fewer than 8 groups the ends
        are missing: no interval from so few would be honest; look at the values by group.
    """
    left_out = leave_one_out(matrix)
    low, high = (np.nan, np.nan) if left_out is None else left_out.intervals()
    groups = len(np.unique(matrix.group.astype(str)))
    return matrix.units.assign(mean=matrix.means, mean_low=low, mean_high=high, groups=groups)


def interval_note(groups: int, race: Mapping[str, Any] | None = None) -> str:
    """Say in one line what the intervals and the stability of a table, or the sets of a race, rest on."""
    if groups >= MIN_GROUPS:
        text = f"Intervals and stability are over {groups} groups."
    else:
        text = (
            f"No intervals: {groups} groups are fewer than {MIN_GROUPS}; see the values by group. The stability "
            "resamples single samples and is too optimistic."
        )
    if race is None:
        return text
    return f"{text} {promise_of(race)} No stability of a race: its units saw different samples."


def class_table(matrix: ScoreMatrix, class_names: Sequence[str]) -> pd.DataFrame:
    """Return every unit's mean on the samples of every class: layer, site, head, label, class, n, mean."""
    labels = np.unique(matrix.label)
    codes = np.searchsorted(labels, matrix.label)
    names = [class_names[label] if label < len(class_names) else str(label) for label in labels]
    return _means_by(matrix, codes.astype(np.int64), {"label": labels, "class": np.array(names, dtype=object)})


def group_table(matrix: ScoreMatrix) -> pd.DataFrame:
    """Return every unit's mean on the samples of every group (subject): layer, site, head, group, n, mean."""
    names, codes = np.unique(matrix.group.astype(str), return_inverse=True)
    return _means_by(matrix, codes.astype(np.int64), {"group": names})


def stability_table(
    matrix: ScoreMatrix,
    drawn: ResampledMeans,
    depths: Sequence[int],
    modes: Sequence[str] = MODES,
    allowed: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Tell how often resampled data would have chosen the same k units, and how often each unit.

    Args:
        matrix: The scores, every unit on every sample.
        drawn: The units' means on resampled data.
        depths: Sizes k of the sets.
        modes: ``lowest``, ``highest`` or both.
        allowed: Units that may be chosen, (U,) (e.g. the removable layers); all if not given.

    Returns:
        One row per mode, k, and unit that is in the set or was in some resample's: mode, k, same_set (share of
        resamples with exactly this set), resampled (``groups``; ``samples`` is too optimistic), layer, site, head,
        chosen, share (of resamples with the unit in the set).

    Raises:
        ValueError: If units were evaluated on different samples; differences between them then have no pairing.
    """
    if not matrix.complete:
        raise ValueError("Stability needs every unit on every sample; this table comes from a race. Use sampling full.")
    allowed = np.ones(len(matrix.units), dtype=bool) if allowed is None else allowed
    units = matrix.units[allowed].reset_index(drop=True)
    means, resampled = matrix.means[allowed], drawn.means[:, allowed]
    frames = []
    for mode in modes:
        for k in depths:
            own, others = chosen(means, k, mode), chosen(resampled, k, mode)
            share = others.mean(axis=0)
            rows = units.assign(
                mode=mode,
                k=k,
                same_set=(others == own).all(axis=1).mean(),
                resampled=drawn.resampled,
                chosen=own,
                share=share,
            )
            frames.append(rows[own | (share > 0)])
    columns = ["mode", "k", "same_set", "resampled", *units.columns, "chosen", "share"]
    return pd.concat(frames, ignore_index=True)[columns]


def _means_by(matrix: ScoreMatrix, codes: NDArray[np.int64], names: dict[str, NDArray]) -> pd.DataFrame:
    count = len(next(iter(names.values())))
    sums, counts = matrix.sums_by(codes, count)
    rows = matrix.units.loc[matrix.units.index.repeat(count)].reset_index(drop=True)
    for column, values in names.items():
        rows[column] = np.tile(values, len(matrix.units))
    n = counts.reshape(-1).astype(np.int64)
    with np.errstate(invalid="ignore"):
        rows = rows.assign(n=n, mean=sums.reshape(-1) / n)
    return rows[n > 0].reset_index(drop=True)
