"""The curves of a table of tested models: one per way of pruning, with what tells it from the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sightline.report.figures.style import CYCLE, MUTED
from sightline.report.tables.pruning import (
    REDUCTION,
    RELEVANCE_SCORES,
    layers_and_heads_alone,
    reference_rows,
)
from sightline.report.tables.pruning_layout import reduction_labels

MODE_COLOURS = {"lowest": CYCLE[0], "highest": CYCLE[1]}
"""Of the first method; random has the colour of rules, and every other method one of those that are left."""
MARKERS = "osD^vPX"
FEW = 4
"""Up to so many curves have shaded intervals and numbered points; more would hide each other, so of more only those of
the first method are shaded."""
WAY = ["mode", "method", "score", *REDUCTION]
"""What a curve's models have in common."""
NO_LINE = "none"
"""Line of models that lack no layer and no head: each is a point of its own."""


@dataclass(frozen=True)
class CurveStyle:
    """How a way of pruning is told from the others: label, colour, marker and line style."""

    label: str
    colour: str
    marker: str
    line: str


@dataclass(frozen=True)
class Curve:
    """The models of one way of pruning, by depth of the cut.

    Attributes:
        style: What tells it from the others.
        points: One row per cut: ``k``, ``macs``, ``top1``, ``low``, ``high``; seeds are averaged.
        start: The model that the cuts start from, likewise: the unpruned one with the same tokens, number format and
            runtime; None where that was not tested. Over cost it has a marker of its own.
        start_name: What that is called.
        seeds: Number of seeds or runs that a point averages at most; with several, low and high are the extremes.
        shaded: Whether low and high are drawn.
    """

    style: CurveStyle
    points: pd.DataFrame
    start: pd.Series | None
    start_name: str
    seeds: int
    shaded: bool


BackboneCurves = tuple[str, pd.Series | None, list[Curve]]
"""A backbone, its unpruned model where that was tested, and a curve per way of pruning."""


def has_depths(frame: pd.DataFrame) -> bool:
    """Whether there are models to draw over the number of removed layers: some that lack layers and no heads."""
    return bool(((frame["k"] > 0) & (frame["removed_heads"] == "")).any())


def backbone_curves(frame: pd.DataFrame, axis: str) -> list[BackboneCurves]:
    """Gather the curves of every backbone over ``axis`` (``k`` or ``macs``).

    Raises:
        ValueError: If none of the rows is a pruned model with a measured accuracy.
    """
    rows = frame[frame["top1"].notna() & frame[axis].notna()]
    # Tokens or formats alone remove no layer: over depth they are starts, over cost points.
    drawn = rows[~reference_rows(rows) & ((rows["k"] > 0) | (axis != "k"))]
    kept = list(dict.fromkeys(drawn["backbone"]))
    if not kept:
        raise ValueError(
            f"None of the rows is a {'model with removed layers' if axis == 'k' else 'smaller model'} and has a "
            f"measured {'top1' if axis == 'k' else 'top1 and macs'}, so there is no curve to draw. "
            "Test pruned models first with `train.py prune`."
        )
    styles = _styles(drawn)
    found: list[BackboneCurves] = []
    for backbone in kept:
        group = rows[rows["backbone"] == backbone]
        unpruned = group[reference_rows(group)]
        full = None if unpruned.empty else _points(unpruned).iloc[0]
        whole = group[group["k"] == 0]
        starts = {
            tuple(map(str, key)): _points(same).iloc[0] for key, same in whole.groupby(list(REDUCTION), sort=False)
        }
        found.append((str(backbone), full, list(_curves(drawn[drawn["backbone"] == backbone], starts, styles))))
    return found


def _styles(rows: pd.DataFrame) -> dict[tuple[str, ...], CurveStyle]:
    """Give every way of pruning its style, the same in all panels."""
    cut = rows[rows["k"] > 0]
    scores = {score for score in cut["score"] if score in RELEVANCE_SCORES}
    told = {"mode": True, "method": cut["method"].nunique() > 1, "score": len(scores) > 1}
    plain = cut[layers_and_heads_alone(cut)]
    first = tuple(plain[["method", "score"]].iloc[0]) if len(plain) else None
    free = [colour for colour in CYCLE if colour not in MODE_COLOURS.values()]
    colours: dict[tuple[str, ...], str] = {}
    styles: dict[tuple[str, ...], CurveStyle] = {}
    # Curves before points, so that a curve looks the same over cost and over depth, where there are no points.
    ways = pd.concat([cut, rows[rows["k"] == 0]]).drop_duplicates(WAY)
    row: Any
    for number, row in enumerate(ways.itertuples(index=False)):
        mode, method, score = (str(getattr(row, key)) for key in WAY[:3])
        extra = reduction_labels(row)
        parts = {"mode": mode, "method": method, "score": score}
        named = [part for key, part in parts.items() if told[key]]
        if score and score not in RELEVANCE_SCORES:  # a baseline, of which there is one mode and one score
            named = [method.replace("_", " ")]
        label = ", ".join([*(named if row.k > 0 else []), *extra])
        if "random" in (mode, method) and not extra:
            colour = MUTED
        elif (method, score) == first and not extra and mode in MODE_COLOURS:
            colour = MODE_COLOURS[mode]
        else:
            colour = colours.setdefault((method, score, *extra), free[len(colours) % len(free)])
        dashed = mode == "highest" and colour not in MODE_COLOURS.values()
        line = NO_LINE if row.k == 0 else ":" if method.endswith("heads") else "--" if dashed else "-"
        way = tuple(str(getattr(row, key)) for key in WAY)
        styles[way] = CurveStyle(label, colour, MARKERS[number % len(MARKERS)], line)
    return styles


def _curves(
    rows: pd.DataFrame, starts: Mapping[tuple[str, ...], pd.Series], styles: Mapping[tuple[str, ...], CurveStyle]
) -> Iterator[Curve]:
    """Yield a curve per way of pruning; models that lack no layer and no head are points, also where curves start."""
    groups = rows.groupby(WAY, sort=False)
    for way, group in groups:
        points = _points(group)
        named = tuple(str(part) for part in way)
        style = styles[named]
        shaded = style.line != NO_LINE and (len(groups) <= FEW or style.colour in MODE_COLOURS.values())
        start = None if style.line == NO_LINE else starts.get(named[3:])
        name = " + ".join(reduction_labels(next(group.itertuples(index=False)))) or "unpruned"
        yield Curve(style, points, start, name, int(points["seeds"].max()), shaded)


def _points(group: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds and runs of each depth; low and high are then the extremes, else the one model's interval."""
    records = []
    for k, same in group.groupby("k", sort=True):
        several = len(same) > 1
        low = same["top1"].min() if several else same["top1_low"].iloc[0]
        high = same["top1"].max() if several else same["top1_high"].iloc[0]
        macs = same["macs"].astype("float64").mean()
        records.append((k, macs, same["top1"].mean(), low, high, len(same)))
    return pd.DataFrame(records, columns=["k", "macs", "top1", "low", "high", "seeds"])


def with_start(curve: Curve) -> pd.DataFrame:
    """Return a curve's points with the model before them that the cuts start from."""
    if curve.start is None:
        return curve.points
    start = curve.start.copy()
    if curve.seeds > 1 and start["seeds"] == 1:  # one model has no spread over seeds
        start["low"] = start["high"] = start["top1"]
    return pd.concat([start.to_frame().T, curve.points], ignore_index=True)


def curve_label(curve: Curve, curves: Sequence[Curve]) -> str:
    """Name a curve, with its number of seeds where not all have the same."""
    same = len({other.seeds for other in curves}) == 1
    return curve.style.label + ("" if same or curve.seeds == 1 else f" ({curve.seeds} seeds)")
