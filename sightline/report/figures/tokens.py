"""Accuracy of a model with fewer tokens against what that saves, beside the pruned models of the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sightline.report.figures.style import (
    CYCLE,
    INK,
    MUTED,
    NOTE_SIZE,
    RULE,
    TITLE_SIZE,
    finish_axes,
    new_figure,
    styled,
)
from sightline.report.tables.pruning import reference_rows
from sightline.report.tables.tokens import ALL_TOKENS, CONTROL, averaged
from sightline.report.tables.tokens_layout import way_label

MARKERS = "osD^vPX"
FEW = 1
"""Up to so many methods besides the control have shaded intervals; more would hide each other."""
GROUPS = {"layers": ("-", "*"), "heads": (":", "h"), "layers and heads": ("-.", "H"), "and fewer tokens": ("none", "p")}
"""Line and marker of pruned models, by what they lack. They are grey: colours are of token reductions."""


@dataclass(frozen=True)
class TokenCurve:
    """The models of one method, from most tokens kept to least.

    Attributes:
        label: What the legend says.
        colour: Its colour.
        marker: Its marker.
        line: Its line.
        points: Rows of `averaged`, with ``speed``: clips/s against the reference's, both of one measurement.
        shaded: Whether intervals are drawn.
    """

    label: str
    colour: str
    marker: str
    line: str
    points: pd.DataFrame
    shaded: bool


def token_curves(frame: pd.DataFrame) -> list[TokenCurve]:
    """Gather a curve per method of the table of token reductions; none where nothing was tested."""
    rows = averaged(frame)
    rows = rows.assign(speed=relative_speed(rows, rows["method"] == ALL_TOKENS))
    rows = rows[rows["method"] != ALL_TOKENS]
    ways = list(rows.groupby(["method", "options"], sort=False))
    found: list[TokenCurve] = []
    others = 0
    for (method, _), points in ways:
        control = method == CONTROL
        colour, line = (MUTED, "--") if control else (CYCLE[others % len(CYCLE)], "-" if others < len(CYCLE) else "--")
        marker = MARKERS[len(found) % len(MARKERS)]
        several = points["draws"].max()
        label = way_label(points.iloc[0]) + (f" ({several} draws)" if several > 1 else "")
        shaded = control or sum(name != CONTROL for (name, _), _ in ways) <= FEW
        found.append(TokenCurve(label, colour, marker, line, points.sort_values("macs"), shaded))
        others += not control
    return found


def pruned_groups(pruning: pd.DataFrame | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the models to compare with, by what they lack: those that lack what a ranking calls least relevant.

    Controls (``highest``, random draws) and models that lack nothing but tokens are left out, and so is what runs in
    another number format or another runtime. Every row has ``speed`` as in `TokenCurve`.
    """
    if pruning is None:
        return
    rows = pruning[(pruning["format"] == "fp32") & (pruning["runtime"] == "pytorch") & pruning["top1"].notna()]
    rows = rows.assign(speed=relative_speed(rows, reference_rows(rows)))
    rows = rows[(rows["mode"] == "lowest") & (rows["method"] != CONTROL)]
    layers, heads = rows["removed_layers"] != "", rows["removed_heads"] != ""
    plain = rows["tokens"] == ""
    for name, chosen in (
        ("layers", layers & ~heads & plain),
        ("heads", heads & ~layers & plain),
        ("layers and heads", heads & layers & plain),
        ("and fewer tokens", ~plain),
    ):
        if chosen.any():
            yield name, rows[chosen].sort_values("macs", kind="stable")


def relative_speed(rows: pd.DataFrame, reference: pd.Series) -> pd.Series:
    """Divide clips/s by those of the reference in the same measurement; not a number where it has none.

    Machines drift, so that times of two measurements cannot be compared, but what each says of its own reference can.
    """
    full = rows.loc[reference, ["timing_run", "clips_per_s"]].drop_duplicates("timing_run").set_index("timing_run")
    return rows["clips_per_s"] / rows["timing_run"].map(full["clips_per_s"])


@styled()
def accuracy_of_tokens(frame: pd.DataFrame, pruning: pd.DataFrame | None = None) -> Figure:
    """Draw top-1 accuracy over multiply-adds and over speed, and below how far every method is from the control.

    Args:
        frame: A table from `sightline.report.tables.tokens`.
        pruning: The table of pruned models of the same run and weights; None where there is none.

    Raises:
        ValueError: If no reduction was tested.
    """
    curves, groups = token_curves(frame), list(pruned_groups(pruning))
    if not curves:
        raise ValueError("No token reduction was tested, so there is no curve to draw. Test some: train.py tokens.")
    full = averaged(frame).iloc[0]
    timed = full.clips_per_s > 0
    differences = frame["vs_random"].notna().any()
    figure = new_figure(11.5, 7.2 if differences else 4.4)
    grid = figure.add_gridspec(2 if differences else 1, 2, height_ratios=[1.35, 1] if differences else [1])
    scale, unit = (1e9, "billions") if full.macs >= 1e9 else (1e6, "millions")
    cost = figure.add_subplot(grid[0, 0] if timed else grid[0, :])
    _draw(cost, curves, groups, full, "macs", scale)
    cost.set_xlabel(f"Multiply-adds per clip ({unit})")
    cost.set_ylabel("Top-1 accuracy (%)")
    if timed:
        speed = figure.add_subplot(grid[0, 1], sharey=cost)
        _draw(speed, curves, groups, full, "speed", 1.0)
        batch = frame["batch"].dropna().unique()
        speed.set_xlabel(f"Speed at batch {batch[0]}, times that of all tokens ({full.clips_per_s:.3g} clips/s)")
    if differences:
        _draw_differences(figure.add_subplot(grid[1, :]), curves)
    handles = {h.get_label(): h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]}
    figure.legend(handles=list(handles.values()), loc="outside right upper")
    figure.suptitle(
        "Accuracy with fewer tokens, no training", fontsize=TITLE_SIZE, fontweight="bold", x=0.01, ha="left"
    )
    figure.supxlabel(_note(curves, groups, bool(differences)), fontsize=NOTE_SIZE, color=MUTED)
    return figure


def _draw(
    axes: Axes, curves: list[TokenCurve], groups: list[tuple[str, pd.DataFrame]], full: Any, x: str, scale: float
) -> None:
    for name, rows in groups:
        line, marker = GROUPS[name]
        axes.plot(
            rows[x].astype("float64") / scale, rows["top1"], color=INK, alpha=0.55, linestyle=line, linewidth=1.2,
            marker=marker, markersize=6, label=f"pruned: {name}", zorder=2,
        )  # fmt: skip
    for curve in curves:
        # From the model with all tokens, which every curve would reach.
        points = curve.points.sort_values(x)
        places = points[x].astype("float64") / scale
        axes.plot(
            places, points["top1"], color=curve.colour, marker=curve.marker, linestyle=curve.line, markersize=5,
            linewidth=1.6, label=curve.label, zorder=4 if curve.line == "-" else 3,
        )  # fmt: skip
        if curve.shaded:
            axes.fill_between(
                places, points["low"].astype("float64"), points["high"].astype("float64"), color=curve.colour,
                alpha=0.13, linewidth=0,
            )  # fmt: skip
    start = full.macs / scale if x == "macs" else 1.0
    bar = [[full.top1 - full.low], [full.high - full.top1]]
    axes.errorbar(
        [start], [full.top1], yerr=bar, fmt="*", color=INK, markersize=11, linewidth=1, capsize=3, zorder=5,
        label="all tokens, unpruned",
    )  # fmt: skip
    axes.axhline(full.top1, color=INK, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
    finish_axes(axes)


def _draw_differences(axes: Axes, curves: list[TokenCurve]) -> None:
    """Draw every method's difference against the control, side by side at each share, with intervals."""
    drawn = [curve for curve in curves if curve.points["vs_random"].notna().any()]
    shares = sorted({share for curve in drawn for share in curve.points["kept_asked_pct"]}, reverse=True)
    step = min(0.8 / len(drawn), 0.16)
    for number, curve in enumerate(drawn):
        points = curve.points[curve.points["vs_random"].notna()]
        middle = points["vs_random"].to_numpy(dtype=float)
        low, high = (points[f"vs_random_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        places = np.array([shares.index(share) for share in points["kept_asked_pct"]], dtype=float)
        axes.errorbar(
            places + (number - (len(drawn) - 1) / 2) * step, middle, yerr=[middle - low, high - middle],
            fmt=curve.marker, color=curve.colour, markersize=5, linewidth=1.3, capsize=2.5,
        )  # fmt: skip
    axes.axhline(0, color=INK, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
    for place in range(1, len(shares)):
        axes.axvline(place - 0.5, color=RULE, linewidth=0.6, zorder=0)
    axes.set_xticks(range(len(shares)), [f"{share:g} %" for share in shares])
    axes.set_xlim(-0.5, len(shares) - 0.5)
    axes.set_xlabel("Tokens kept (asked for), mean over layers")
    axes.set_ylabel("Points of top-1 against\nrandom dropping")
    finish_axes(axes)


def _note(curves: list[TokenCurve], groups: list[tuple[str, pd.DataFrame]], differences: bool) -> str:
    told = []
    if any(curve.shaded for curve in curves):
        drawn = any(curve.points["draws"].max() > 1 for curve in curves if curve.shaded)
        told.append(
            "Shaded: 95 % interval of one model" + (", of several draws from lowest to highest." if drawn else ".")
        )
    told.append("Bars: 95 % intervals" + (", below paired clip by clip." if differences else "."))
    if groups and any(rows["speed"].notna().any() for _, rows in groups):
        told.append("Speeds of pruned models are against the unpruned model in their own measurement.")
    return " ".join(told)
