"""Accuracy of the tested models against how much was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sightline.report.figures.pruning_curves import (
    FEW,
    MODE_COLOURS,
    NO_LINE,
    Curve,
    backbone_curves,
    curve_label,
    with_start,
)
from sightline.report.figures.style import (
    INK,
    MUTED,
    NOTE_SIZE,
    TITLE_SIZE,
    finish_axes,
    new_figure,
    set_titles,
    styled,
)


@styled()
def accuracy_against_depth(
    frame: pd.DataFrame,
    title: str = "Accuracy after removing layers",
    *,
    chance: float | None = None,
    majority: float | None = None,
) -> Figure:
    """Draw top-1 accuracy over the number of removed layers, one curve per way of pruning and one panel per backbone.

    Models of several seeds or runs are averaged.

    Args:
        frame: A table from `read_pruning_table`; rows without accuracy or with removed heads are left out. Models with
            fewer tokens or another number format have curves of their own, which start at that model with all layers.
        title: Heading of the figure.
        chance: Accuracy of guessing, in percent, drawn as a line.
        majority: Accuracy of always predicting the most frequent class, in percent, drawn as a line.
    """
    figure, panels = _panels(frame[frame["removed_heads"] == ""], "k")
    for axes, _, curves in panels:
        for curve in curves:
            points = with_start(curve)
            _draw_curve(axes, curve, points["k"], points, label=curve_label(curve, curves))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Removed layers")
    _finish_panels(panels, chance, majority)
    _title(figure, title, [curve for _, _, curves in panels for curve in curves])
    return figure


@styled()
def accuracy_against_cost(
    frame: pd.DataFrame,
    title: str = "Accuracy and cost of the pruned models",
    *,
    chance: float | None = None,
    majority: float | None = None,
) -> Figure:
    """Draw top-1 accuracy over multiply-adds per clip; numbers at the points of few curves count the removed layers.

    Args:
        frame: A table from `read_pruning_table`; rows without accuracy or without multiply-adds are left out. Tokens or
            number formats alone are points.
        title: Heading of the figure.
        chance: Accuracy of guessing, in percent, drawn as a line.
        majority: Accuracy of always predicting the most frequent class, in percent, drawn as a line.
    """
    figure, panels = _panels(frame, "macs")
    for axes, full, curves in panels:
        largest = max(curve.points["macs"].max() for curve in curves)
        scale, unit = (1e9, "billions") if largest >= 1e9 else (1e6, "millions")
        for number, curve in enumerate(curves):
            points = with_start(curve).sort_values("macs", kind="stable")
            _draw_curve(axes, curve, points["macs"] / scale, points, label=curve_label(curve, curves), start=False)
            if len(curves) <= FEW:
                # Curves take turns, so that neighbours' numbers do not cover each other.
                _number_points(axes, points[points["k"] > 0], scale, curve.style.colour, above=number % 2 == 0)
        if full is not None:
            axes.plot(full["macs"] / scale, full["top1"], "*", color=INK, markersize=10, zorder=5, label="unpruned")
        axes.set_xlabel(f"Multiply-adds per clip ({unit})")
    _finish_panels(panels, chance, majority, name_full=False)
    _title(figure, title, [curve for _, _, curves in panels for curve in curves])
    return figure


Panel = tuple[Axes, pd.Series | None, list[Curve]]


def _panels(frame: pd.DataFrame, axis: str) -> tuple[Figure, list[Panel]]:
    """Make one panel per backbone, with its unpruned model and its curves."""
    found = backbone_curves(frame, axis)
    across = 2 if len(found) == 4 else min(len(found), 3)
    down = -(-len(found) // across)
    figure = new_figure(1.8 + (5.4 if across == 1 else 4.2 * across), 0.8 + 3.2 * down)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    panels: list[Panel] = []
    for axes in grid.flat[len(found) :]:
        axes.remove()
    for axes, (backbone, full, curves) in zip(grid.flat, found, strict=False):
        panels.append((axes, full, curves))
        if len(found) > 1:
            axes.set_title(backbone, loc="left", fontsize=TITLE_SIZE - 1.5)
    for axes in grid[:, 0]:
        axes.set_ylabel("Top-1 accuracy (%)")
    return figure, panels


def _draw_curve(axes: Axes, curve: Curve, x: pd.Series, points: pd.DataFrame, label: str, start: bool = True) -> None:
    """Draw a curve, with a marker at its start or, where that has one of its own, without."""
    # The first method's curves lie above the others', which show around them where they coincide.
    first = curve.style.colour in MODE_COLOURS.values()
    marked = [place for place, k in enumerate(points["k"]) if k > 0 or start or curve.style.line == NO_LINE]
    axes.plot(
        x, points["top1"], color=curve.style.colour, marker=curve.style.marker, linestyle=curve.style.line,
        markersize=4.5 if first else 6, linewidth=1.5 if first else 2.5, alpha=1 if first else 0.75, label=label,
        zorder=4 if first else 3, markevery=marked,
    )  # fmt: skip
    if not curve.shaded:
        return
    low, high = (points[name].to_numpy(dtype=float) for name in ("low", "high"))
    axes.fill_between(x.to_numpy(dtype=float), low, high, color=curve.style.colour, alpha=0.14, linewidth=0)


def _number_points(axes: Axes, points: pd.DataFrame, scale: float, colour: str, above: bool) -> None:
    offset, side = ((0, 5), "bottom") if above else ((0, -5), "top")
    look: dict[str, Any] = {"ha": "center", "va": side, "fontsize": NOTE_SIZE, "color": colour}
    for macs, top1, k in zip(points["macs"], points["top1"], points["k"], strict=True):
        axes.annotate(f"{k:.0f}", (macs / scale, top1), offset, textcoords="offset points", **look)


def _finish_panels(
    panels: Sequence[Panel], chance: float | None, majority: float | None, name_full: bool = True
) -> None:
    for axes, full, _ in panels:
        if full is not None:
            label = "unpruned" if name_full else None
            axes.axhline(full["top1"], color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=1, label=label)
        for level, name, dashes in ((majority, "majority class", (1, 1.5)), (chance, "chance", (3, 1.5, 1, 1.5))):
            if level is not None:
                axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, dashes), zorder=1, label=name)
        finish_axes(axes)
    # Only now, because panels share their limits, which no longer follow what is drawn once they are set.
    lines = [np.asarray(line.get_ydata(), dtype=float) for axes, _, _ in panels for line in axes.lines]
    lowest = min(float(np.min(line)) for line in lines)
    shared = panels[0][0]
    # Accuracies near 100 % would share a few pixels of an axis from 0; one that starts higher says so by its numbers.
    shared.set_ylim(bottom=0 if lowest < 40 else None)
    shared.set_ylim(top=min(102.0, shared.get_ylim()[1]))


def _title(figure: Figure, title: str, curves: Sequence[Curve]) -> None:
    handles = {handle.get_label(): handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]}
    figure.legend(handles=list(handles.values()), loc="outside right center")
    single = [curve for curve in curves if curve.shaded and curve.seeds == 1 and curve.points["low"].notna().any()]
    shades = ["95 % interval of one model"] if single else []
    if any(curve.seeds > 1 for curve in curves):
        shades.append("with several seeds or runs from the lowest to the highest, line at their mean")
    note = f"Shaded: {', '.join(shades)}." if shades else ""
    if len(figure.axes) > 1:
        figure.suptitle(title, fontsize=TITLE_SIZE, fontweight="bold", x=0.01, ha="left")
        figure.supxlabel(note, fontsize=NOTE_SIZE, color=MUTED)
    else:
        set_titles(figure.axes[0], title, [note] if note else [])
