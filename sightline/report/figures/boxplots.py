"""Box plots of relevance per layer and per head, drawn with matplotlib.

The interactive versions are in `sightline.report.figures.boxplots_interactive`; both summarise with `unit_statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sightline.report.figures.box_layout import (
    LINEAR_PART,
    AxisScale,
    LayerSpan,
    box_axis,
    layer_spans,
    place_boxes,
    split_rows,
    symlog_threshold,
)
from sightline.report.figures.boxplots_interactive import head_boxplot_interactive, layer_boxplot_interactive
from sightline.report.figures.saving import save_figure
from sightline.report.figures.style import (
    BAND,
    BLUE,
    CYCLE,
    FILL,
    INK,
    LABEL_SIZE,
    MUTED,
    NOTE_SIZE,
    PAPER,
    TICK_SIZE,
    finish_axes,
    lighter,
    new_figure,
    set_titles,
    styled,
)
from sightline.report.tables.unit_statistics import (
    BOX_MEANING,
    SCORE_NAMES,
    UnitValues,
    check_kind,
    check_stages,
    summarise,
    unit_keys,
    unit_statistics,
    unit_values,
)

__all__ = [
    "head_boxplot",
    "head_boxplot_interactive",
    "layer_boxplot",
    "layer_boxplot_interactive",
    "save_figure",
    "unit_statistics",
]

MOST_DOTS = 2000
"""Outliers drawn per figure at most: more make files large and say no more."""
ROW_BOXES = 80.0
"""Boxes, gaps included, that one row of the head plot holds with head numbers that can still be read."""
STAGE_LIFT = 13.0
"""Room for the stages' names above the axes, in points."""
STAGE_INCHES = 0.45
"""Width of the text "stage 0"."""


@styled()
def layer_boxplot(
    scores: pd.DataFrame,
    score: str = "r",
    title: str = "Relevance of the layers",
    *,
    scale: AxisScale = "linear",
    stages: Mapping[int, int] | None = None,
) -> Figure:
    """Draw one box per layer over the samples of a layer table.

    Args:
        scores: A layer table.
        score: ``r``, ``jsd`` or ``dprob``.
        title: Heading of the figure.
        scale: ``linear`` from 0 to the highest whisker, ``symlog`` to compare very small with large scores, or
            ``auto``: linear unless that would press most boxes flat.
        stages: Stage of each layer, which is then marked.
    """
    check_kind(scores, score, heads=False)
    units = list(unit_values(scores, score))
    placed = summarise(units).assign(x=lambda table: np.arange(len(table), dtype=float))
    check_stages(placed, stages)
    figure = new_figure(float(np.clip(0.36 * len(placed) + 1.6, 6.4, 11)), 4.0)
    axes = figure.add_subplot()
    spans = [LayerSpan(int(layer), x - 0.5, x + 0.5) for layer, x in zip(placed["layer"], placed["x"], strict=True)]
    if stages is not None:
        _mark_stages(axes, spans, stages, box_inches=(figure.get_figwidth() - 0.9) / len(placed))
    _draw_boxes(axes, placed, BLUE, width=0.56)
    _scale_axis(axes, placed, scale)
    _draw_outliers(axes, units, placed, BLUE, _outlier_step(placed))
    axes.set_xlim(-0.6, len(placed) - 0.4)
    axes.set_xticks(placed["x"], [str(layer) for layer in placed["layer"]])
    axes.set_xlabel("Layer")
    axes.set_ylabel(SCORE_NAMES[score])
    finish_axes(axes)
    set_titles(axes, title, _notes(units, placed, "layer", axes), lift=STAGE_LIFT if stages else 0)
    return figure


@styled()
def head_boxplot(
    scores: pd.DataFrame,
    score: str = "r",
    title: str = "Relevance of the attention heads",
    *,
    scale: AxisScale = "auto",
    stages: Mapping[int, int] | None = None,
) -> Figure:
    """Draw one box per attention head, grouped by layer, in as many rows as readable head numbers need.

    Args:
        scores: A head table.
        score: ``r``, ``jsd`` or ``dprob``.
        title: Heading of the figure.
        scale: ``linear`` from 0 to the highest whisker, ``symlog`` to compare very small with large scores, or
            ``auto``: linear unless that would press most boxes flat.
        stages: Stage of each layer, which is then marked.
    """
    check_kind(scores, score, heads=True)
    units = list(unit_values(scores, score))
    placed = place_boxes(summarise(units))
    check_stages(placed, stages)
    rows = split_rows(layer_spans(placed), ROW_BOXES)
    longest = max(row[-1].right - row[0].left for row in rows)
    figure = new_figure(
        float(np.clip(0.165 * longest + 0.9, 6.4, 14)), 3.4 if len(rows) == 1 else 0.9 + 2.1 * len(rows)
    )
    grid = figure.subplots(len(rows), 1, sharey=True, squeeze=False)[:, 0]
    colours = dict(zip(dict.fromkeys(placed["site"]), CYCLE, strict=False))
    for axes, row in zip(grid, rows, strict=True):
        if stages is not None:
            _mark_stages(axes, row, stages, box_inches=(figure.get_figwidth() - 0.9) / longest)
        _scale_axis(axes, placed, scale)
        _draw_head_row(axes, units, placed, row, colours)
        # Rows are equally long, so that a box is as wide in one as in another.
        axes.set_xlim(row[0].left, row[0].left + longest)
        finish_axes(axes)
        axes.tick_params(axis="x", which="major", length=0, pad=13, labelsize=TICK_SIZE)
        axes.tick_params(axis="x", which="minor", length=2, pad=1.5, labelsize=5.5, labelcolor=MUTED)
    figure.supylabel(SCORE_NAMES[score], fontsize=LABEL_SIZE)
    grid[-1].set_xlabel("Layer (large) and head (small), original indices")
    set_titles(grid[0], title, _notes(units, placed, "head", grid[0]), lift=STAGE_LIFT if stages else 0)
    if len(colours) > 1:
        _legend_of_sites(grid[0], colours)
    return figure


def _draw_head_row(
    axes: Axes, units: list[UnitValues], placed: pd.DataFrame, row: list[LayerSpan], colours: Mapping[str, str]
) -> None:
    order = list(dict.fromkeys(placed["layer"]))
    for span in row:
        # Bands alternate with the layers, so that they go on across rows.
        if order.index(span.layer) % 2 == 0:
            axes.axvspan(span.left, span.right, color=BAND, linewidth=0, zorder=0)
    here = placed[placed["layer"].isin([span.layer for span in row])]
    for site, boxes in here.groupby("site", sort=False):
        _draw_boxes(axes, boxes, colours[str(site)], width=0.72)
        _draw_outliers(axes, units, boxes, colours[str(site)], _outlier_step(placed))
    # A layer's number stands under its heads; where a head is in the middle, its own number has to stay.
    axes.xaxis.remove_overlapping_locs = False
    axes.set_xticks([span.centre for span in row], [str(span.layer) for span in row])
    axes.set_xticks(here["x"], [str(head) for head in here["head"]], minor=True)


def _draw_boxes(axes: Axes, boxes: pd.DataFrame, colour: str, width: float) -> None:
    """Draw boxes from their statistics; a few collections instead of `Axes.bxp`'s seven artists per box."""
    x, low, high = boxes["x"].to_numpy(), boxes["q25"].to_numpy(), boxes["q75"].to_numpy()
    for quartile, end in ((low, boxes["whisker_low"].to_numpy()), (high, boxes["whisker_high"].to_numpy())):
        axes.vlines(x, quartile, end, color=colour, linewidth=0.8, zorder=3)
        axes.hlines(end, x - width / 4, x + width / 4, color=colour, linewidth=0.8, zorder=3)
    fill = lighter(colour, FILL)
    corners = [
        [(c - width / 2, b), (c - width / 2, t), (c + width / 2, t), (c + width / 2, b)]
        for c, b, t in zip(x, low, high, strict=True)
    ]
    axes.add_collection(PolyCollection(corners, facecolor=fill, edgecolor=colour, linewidth=0.8, zorder=3, gid="boxes"))
    axes.hlines(boxes["median"], x - width / 2, x + width / 2, color=INK, linewidth=1.3, zorder=4, gid="medians")
    axes.plot(
        x, boxes["mean"], "D", markersize=3.4 if width < 0.6 else 2.6, markerfacecolor=PAPER, markeredgecolor=INK,
        markeredgewidth=0.6, zorder=5, gid="means",
    )  # fmt: skip


def _draw_outliers(axes: Axes, units: list[UnitValues], boxes: pd.DataFrame, colour: str, step: int) -> None:
    """Draw every ``step``-th score beyond the whiskers, from the highest down, as far as the axis reaches."""
    lowest, highest = axes.get_ylim()
    values_of = dict(units)
    dots = []
    whiskers = boxes[["x", "whisker_low", "whisker_high"]].to_numpy(dtype=float)
    for key, (x, low, high) in zip(unit_keys(boxes), whiskers, strict=True):
        values = values_of[key]
        outside = values[(values < low) | (values > high)][::-1][::step]
        outside = outside[(outside >= lowest) & (outside <= highest)]
        dots.append(np.column_stack([np.full(len(outside), x), outside]))
    axes.plot(
        *np.concatenate(dots).T,
        "o",
        markersize=1.8,
        markeredgewidth=0,
        color=colour,
        alpha=0.35,
        zorder=2,
        gid="outliers",
    )


def _outlier_step(statistics: pd.DataFrame) -> int:
    return max(1, math.ceil(statistics["n_outside"].sum() / MOST_DOTS))


def _scale_axis(axes: Axes, placed: pd.DataFrame, scale: AxisScale) -> None:
    chosen = box_axis(placed, scale)
    if chosen.threshold is not None:
        axes.set_yscale("symlog", linthresh=chosen.threshold, linscale=LINEAR_PART)
    axes.set_ylim(0, chosen.top)


def _mark_stages(axes: Axes, spans: list[LayerSpan], stages: Mapping[int, int], box_inches: float) -> None:
    """Draw a line with the stage's number above the layers of each stage."""
    transform = axes.get_xaxis_transform()
    for stage in dict.fromkeys(stages[span.layer] for span in spans):
        members = [span for span in spans if stages[span.layer] == stage]
        left, right = members[0].left + 0.15, members[-1].right - 0.15
        axes.plot([left, right], [1.015, 1.015], transform=transform, color=MUTED, linewidth=1.2, clip_on=False)
        text = f"stage {stage}" if (right - left) * box_inches > STAGE_INCHES else str(stage)
        axes.annotate(
            text, ((left + right) / 2, 1.015), (0, 2.5), xycoords=transform, textcoords="offset points",
            ha="center", va="bottom", fontsize=NOTE_SIZE, color=MUTED,
        )  # fmt: skip


def _notes(units: list[UnitValues], statistics: pd.DataFrame, unit: str, axes: Axes) -> list[str]:
    """Say what a box is made of, and how many scores the axis leaves out."""
    low, high = int(statistics["n"].min()), int(statistics["n"].max())
    step = _outlier_step(statistics)
    dots = f", dots: {'outliers' if step == 1 else f'one in {step} outliers'}" if statistics["n_outside"].sum() else ""
    notes = [f"{f'{low:,}' if low == high else f'{low:,} to {high:,}'} samples per {unit}. {BOX_MEANING}{dots}."]
    if axes.get_yscale() == "symlog":
        notes.append(f"Logarithmic axis, linear below $10^{{{math.log10(symlog_threshold(statistics)):.0f}}}$.")
    total, top = int(statistics["n"].sum()), axes.get_ylim()[1]
    above = sum(int((values > top).sum()) for _, values in units)
    if above:
        notes.append(
            f"{above:,} of {total:,} scores ({100 * above / total:.2g} %) lie above the axis, "
            f"the highest at {statistics['max'].max():.2g}."
        )
    return notes


def _legend_of_sites(axes: Axes, colours: Mapping[str, str]) -> None:
    handles = [Patch(facecolor=lighter(colour, FILL), edgecolor=colour, label=site) for site, colour in colours.items()]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1.08), ncols=len(handles), borderaxespad=0)
