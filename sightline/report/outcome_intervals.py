"""Intervals of accuracies and of differences between pruned models, by resampling whole test subjects over all runs.

A subject that several runs test counts as one. All models of a backbone share the same resamples, so what subjects have
in common drops out of differences. With fewer than 8 subjects there are no intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from sightline.relevance.bootstrap import MIN_GROUPS, mean_intervals, resampled_means
from sightline.relevance.matrix import ScoreMatrix
from sightline.report.outcomes import UNPRUNED
from sightline.report.pruning_table import RELEVANCE_SCORES
from sightline.report.runs import Runs

WAY = ["backbone", "method", "score", "mode", "k"]
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
        subjects = len(set(matrix.group))
        modes = ways.get_level_values("mode")
        base = int(np.flatnonzero(modes == UNPRUNED)[0]) if UNPRUNED in modes else None
        nothing = np.full(len(ways), np.nan)
        found = {"change": nothing if base is None else matrix.means - matrix.means[base]}
        found |= dict.fromkeys(("change_low", "change_high", "top1_low", "top1_high"), nothing)
        if subjects >= MIN_GROUPS:
            drawn = resampled_means(matrix)
            found["top1_low"], found["top1_high"] = mean_intervals(drawn) or (nothing, nothing)
            if base is not None:
                against = replace(drawn, means=drawn.means - drawn.means[:, base : base + 1])
                found["change_low"], found["change_high"] = mean_intervals(against) or (nothing, nothing)
        frames.append(pd.DataFrame({**found, "subjects": subjects}, index=ways))
    return pd.concat(frames)


def difference_table(runs: Runs) -> pd.DataFrame:
    """Set pruning the least relevant layers against every other way at the same depth.

    Returns:
        backbone, k, score (the first of r, jsd and dprob that was used), other_method, other_score, other_mode;
        difference (points of top-1, positive where the least relevant layers' removal keeps more; the mean over all
        test clips of all runs), low, high (95 %), difference_by_run, runs_ahead (in how many of them it keeps more),
        runs, subjects. Ways that no run has besides lowest relevance give no row, nor do head plans.
    """
    frames = [_differences(matrix, ways, runs) for matrix, ways in _outcomes(runs)]
    return pd.concat(frames, ignore_index=True)


def _differences(matrix: ScoreMatrix, ways: pd.Index, runs: Runs) -> pd.DataFrame:
    places = {way: place for place, way in enumerate(ways)}
    score = next((s for s in RELEVANCE_SCORES if s in set(ways.get_level_values("score"))), None)
    top1 = runs.models.astype({"top1": "float64"}).groupby([*WAY, "run"], sort=False)["top1"].mean().unstack("run")
    by_run = dict(zip(top1.index, top1.to_numpy(), strict=True))
    subjects = len(set(matrix.group))
    drawn = resampled_means(matrix) if subjects >= MIN_GROUPS else None
    rows = []
    for way, place in places.items():
        backbone, method, other_score, mode, k = way
        own = (backbone, "relevance", score, "lowest", k)
        if mode == UNPRUNED or method.endswith("heads") or own not in places or way == own:
            continue
        base = places[own]
        ends = None
        if drawn is not None:
            ends = mean_intervals(replace(drawn, means=drawn.means[:, [base]] - drawn.means[:, [place]]))
        low, high = (np.nan, np.nan) if ends is None else (ends[0][0], ends[1][0])
        each = by_run[own] - by_run[way]
        each = each[~np.isnan(each)]
        told, ahead = " ".join(f"{value:+.1f}" for value in each), int((each > 0).sum())
        difference = matrix.means[base] - matrix.means[place]
        key = (backbone, k, score, method, other_score, mode)
        rows.append((*key, difference, low, high, told, ahead, len(each), subjects))
    return pd.DataFrame(rows, columns=COLUMNS)


def _outcomes(runs: Runs) -> Iterator[tuple[ScoreMatrix, pd.Index]]:
    """Yield for every backbone what became of each test clip of each run, 100 or 0, and the ways of pruning."""
    clips = runs.outcomes.merge(runs.models[["run", "plan_id", *WAY]], on=["run", "plan_id"], validate="m:1")
    for _, some in clips.groupby("backbone", sort=False):
        values = some.pivot_table("correct", WAY, ["run", "sample_id", "group"], aggfunc="mean", sort=False)
        group = values.columns.get_level_values("group").to_numpy(dtype=object)
        nowhere = np.zeros(len(group), np.int64)
        yield ScoreMatrix(values.index.to_frame(), 100 * values.to_numpy(), nowhere, group), values.index
