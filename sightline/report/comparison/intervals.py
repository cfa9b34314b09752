"""Intervals of accuracies and of differences between pruned models, over the test subjects of all runs.

A subject that several runs test counts as one. Differences are taken clip by clip, so what clips and subjects have in
common drops out of them; their intervals are those of `sightline.statistics.paired_change`, as in the report. Between a
model and itself, as where two ways remove the same layers in every run, the difference is 0 and no interval is wider.
With fewer than 8 subjects there are no intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sightline.report.comparison.runs import Runs
from sightline.report.tables.pruning import (
    REDUCTION,
    RELEVANCE_SCORES,
    UNPRUNED,
    layers_and_heads_alone,
    reference_rows,
)
from sightline.statistics.matrix import ScoreMatrix
from sightline.statistics.paired_change import paired_change
from sightline.statistics.top1_interval import top1_interval

WAY = ["backbone", "method", "score", "mode", "k", *REDUCTION]
"""What models of different runs have in common when they are averaged."""
COLUMNS = [
    "backbone", "k", "score", "other_method", "other_score", "other_mode", "difference", "low", "high",
    "difference_by_run", "runs_ahead", "runs", "subjects",
]  # fmt: skip


def subject_intervals(runs: Runs) -> pd.DataFrame:
    """Say how sure the accuracies and what pruning costs are.

    Returns:
        Indexed by `WAY`: change (points against the unpruned models), change_low, change_high, top1_low, top1_high
        (95 %), subjects.
    """
    frames = []
    for matrix, ways in _outcomes(runs):
        reference = np.flatnonzero(reference_rows(ways.to_frame(index=False)))
        base = int(reference[0]) if len(reference) else None
        rows = []
        for place in range(len(ways)):
            seen = ~np.isnan(matrix.values[place])
            of_top1 = top1_interval(matrix.values[place, seen], matrix.group[seen])
            low, high = (of_top1.low, of_top1.high) if of_top1.over == "subjects" else (np.nan, np.nan)
            subjects = len(set(matrix.group[seen]))
            change = (np.nan,) * 3 if base is None else _difference(matrix, place, base, place == base)[:3]
            rows.append((*change, low, high, subjects))
        columns = ["change", "change_low", "change_high", "top1_low", "top1_high", "subjects"]
        frames.append(pd.DataFrame(rows, index=ways, columns=columns))
    return pd.concat(frames)


def difference_table(runs: Runs) -> pd.DataFrame:
    """Set pruning the least relevant layers against every other way at the same depth, over the runs that have both.

    Returns:
        backbone, k, score (the first of r, jsd and dprob that was used), other_method, other_score, other_mode;
        difference (points of top-1, positive where the least relevant layers' removal keeps more; the mean over the
        test clips of these runs), low, high (95 %), difference_by_run, runs_ahead (in how many of them it keeps more),
        runs, subjects. Removed heads, token reduction and other number formats and runtimes are left out.
    """
    frames = [_differences(matrix, ways, runs) for matrix, ways in _outcomes(runs)]
    return pd.concat(frames, ignore_index=True)


def _differences(matrix: ScoreMatrix, ways: pd.Index, runs: Runs) -> pd.DataFrame:
    places = {way: place for place, way in enumerate(ways)}
    score = next((s for s in RELEVANCE_SCORES if s in set(ways.get_level_values("score"))), None)
    top1 = runs.models.astype({"top1": "float64"}).groupby([*WAY, "run"], sort=False)["top1"].mean().unstack("run")
    by_run = dict(zip(top1.index, top1.to_numpy(), strict=True))
    plain = layers_and_heads_alone(ways.to_frame(index=False))
    removed = runs.models.groupby(WAY, sort=False)
    rows = []
    for way, place in places.items():
        backbone, method, other_score, mode, k, *reduction = way
        own = (backbone, "relevance", score, "lowest", k, *reduction)
        if mode == UNPRUNED or method.endswith("heads") or not plain[place] or own not in places or way == own:
            continue
        each = by_run[own] - by_run[way]
        each = each[~np.isnan(each)]
        if not len(each):
            continue
        same = _removed(removed, own) == _removed(removed, way)
        difference, low, high, subjects = _difference(matrix, places[own], place, same)
        told, ahead = " ".join(f"{value:+.1f}" for value in each), int((each > 0).sum())
        key = (backbone, k, score, method, other_score, mode)
        rows.append((*key, difference, low, high, told, ahead, len(each), subjects))
    return pd.DataFrame(rows, columns=COLUMNS)


def _removed(models: Any, way: tuple) -> set[tuple[str, str]]:
    """Return which layers a way removes, with the run; of several draws, all."""
    rows = models.get_group(way)
    return set(zip(rows["run"], rows["removed_layers"], strict=True))


def _difference(matrix: ScoreMatrix, one: int, other: int, same: bool) -> tuple[float, float, float, int]:
    """Return how many points of top-1 a way of pruning keeps more than another, the 95 % interval, and the subjects.

    Clips that one of them lacks are left out.

    Args:
        matrix: What became of every clip, (U, N), and whom it shows.
        one: Its place among the ways.
        other: That of the other.
        same: Whether both are the same models.
    """
    values = matrix.values[one] - matrix.values[other]
    seen = ~np.isnan(values)
    found = paired_change(values[seen], matrix.group[seen])
    subjects = len(set(matrix.group[seen]))
    if found.over == "clips":
        return 100 * found.change, np.nan, np.nan, subjects
    if same:
        return 0.0, 0.0, 0.0, subjects
    return 100 * found.change, 100 * found.low, 100 * found.high, subjects


def _outcomes(runs: Runs) -> Iterator[tuple[ScoreMatrix, pd.Index]]:
    """Yield for every backbone what became of each test clip of each run, 1 or 0, and the ways of pruning."""
    clips = runs.outcomes.merge(runs.models[["run", "plan_id", *WAY]], on=["run", "plan_id"], validate="m:1")
    for _, some in clips.groupby("backbone", sort=False):
        values = some.pivot_table("correct", WAY, ["run", "sample_id", "group"], aggfunc="mean", sort=False)
        group = values.columns.get_level_values("group").to_numpy(dtype=object)
        nowhere = np.zeros(len(group), np.int64)
        yield ScoreMatrix(values.index.to_frame(), values.to_numpy(), nowhere, group), values.index
