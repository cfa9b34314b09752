"""What attribution methods scored: means over clips with intervals, against chance and against one another.

``tables/attribution_<split>.csv`` has a row per method and metric, ``attribution_pairs_<split>.csv`` one per metric and
pair of methods. Values are in the metric's own unit. Intervals are over subjects where there are enough of them, else
over clips (`sightline.statistics.mean_interval`), and differences are taken clip by clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd

from sightline.run.csv_table import read_table, write_table
from sightline.statistics.mean_interval import mean_interval

COLUMNS = (
    "method", "control", "metric", "better", "value", "low", "high", "chance", "vs_chance", "vs_chance_low",
    "vs_chance_high", "clips", "subjects", "over",
)  # fmt: skip
PAIRS = ("metric", "better", "method", "other", "difference", "low", "high", "clips", "over")
COSTS = ("forward", "backward", "seconds")
# By the beginning of a metric's name: 1 where high is good, -1 where low is; others are neither.
BETTER = {
    "deletion": -1, "insertion": 1, "monotone_share": 1, "comprehensiveness": 1, "sufficiency": -1, "faithfulness": 1,
    "sensitivity_n": 1, "infidelity": -1, "pointing": 1, "energy": 1, "rank": 1, "on_target": 1, "drift": -1,
    "pixel_accuracy": 1, "mean_accuracy": 1, "mean_iou": 1, "spot_rank_gain": -1, "spot_mass_gain": -1,
    "sensitivity_max": -1, "sanity": -1, "seconds": -1, "forward": -1, "backward": -1,
}  # fmt: skip


def attribution_table(rows: pd.DataFrame, controls: Sequence[str]) -> pd.DataFrame:
    """Return a row per method and metric.

    Args:
        rows: One per clip, method and metric, see `sightline.explain.metrics.attribution_job`.
        controls: Labels of the methods that are controls.
    """
    found = []
    for (method, metric), own in rows.dropna(subset=["value"]).groupby(["method", "metric"], sort=False, observed=True):
        row = {"method": method, "control": method in controls, "metric": metric, "better": better(str(metric))}
        row |= {"clips": len(own), "subjects": own["group"].nunique(), "chance": own["chance"].mean()}
        row |= _interval(own["value"], own["group"], ("value", "low", "high"))
        if own["chance"].notna().all():
            names = ("vs_chance", "vs_chance_low", "vs_chance_high")
            row |= _interval(own["value"] - own["chance"], own["group"], names)
        found.append(row)
    return pd.DataFrame(found, columns=list(COLUMNS))


def attribution_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the difference of every two methods in every metric that has a good end, over the clips of both."""
    found = []
    for metric, own in rows.dropna(subset=["value"]).groupby("metric", sort=False, observed=True):
        sign = better(str(metric))
        if not sign or metric in COSTS:
            continue
        values = own.pivot_table(index="sample_id", columns="method", values="value", observed=True, sort=False)
        groups = own.drop_duplicates("sample_id").set_index("sample_id")["group"]
        for method, other in combinations(values.columns, 2):
            both = (values[method] - values[other]).dropna()
            if both.empty:
                continue
            row: dict[str, object] = {
                "metric": metric,
                "better": sign,
                "method": method,
                "other": other,
                "clips": len(both),
            }
            row |= _interval(both, groups[both.index], ("difference", "low", "high"))
            found.append(row)
    return pd.DataFrame(found, columns=list(PAIRS))


def _interval(values: pd.Series, groups: pd.Series, names: tuple[str, str, str]) -> dict[str, object]:
    found = mean_interval(values.to_numpy(float), groups.astype(str).to_numpy())
    return {**dict(zip(names, (found.mean, found.low, found.high), strict=True)), "over": found.over}


def write_attribution_tables(rows: pd.DataFrame, controls: Sequence[str], folder: Path, split: str) -> list[Path]:
    """Write both tables; return their paths."""
    tables = {"attribution": attribution_table(rows, controls), "attribution_pairs": attribution_pairs(rows)}
    paths = []
    for name, table in tables.items():
        paths.append(folder / f"{name}_{split}.csv")
        write_table(table, paths[-1], float_format="%.6g")
    return paths


def read_attribution_table(path: Path) -> pd.DataFrame:
    """Read what `write_attribution_tables` wrote first."""
    return read_table(path, usecols=list(COLUMNS))


def better(metric: str) -> int:
    """Return 1 where a high value is good, -1 where a low one is, 0 of what is neither."""
    return next((sign for name, sign in BETTER.items() if metric.startswith(name)), 0)
