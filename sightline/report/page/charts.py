"""The report's own interactive figures: training curves, and accuracy against what was cut."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sightline.report.figures.pruning_curves import NO_LINE, Curve, curve_label, with_start
from sightline.report.figures.style import BLUE, GREEN, INK, MUTED, RULE, VERMILLION

COLOURS = (BLUE, VERMILLION, GREEN)
MARKERS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
FEW_TICKS = 12
"""Up to so many whole numbers each get a tick; left to itself, a short axis would repeat rounded ones."""
LINES = {"-": "solid", "--": "dash", ":": "dot"}


def epoch_curves(curves: pd.DataFrame, labels: dict[str, str], title: str, percent: bool) -> go.Figure:
    """Draw quantities over the epochs.

    Args:
        curves: One row per epoch, indexed by its number from 1.
        labels: Column -> what the legend calls it.
        title: Title of the vertical axis.
        percent: Whether the values are shares, to be drawn in percent.
    """
    figure = go.Figure()
    for colour, (name, label) in zip(COLOURS, labels.items(), strict=False):
        values = curves[name].dropna() * (100 if percent else 1)
        figure.add_scatter(
            x=values.index.to_list(), y=_plain(values), name=label, mode="lines+markers",
            line={"color": colour, "width": 2}, marker={"size": 5}, hovertemplate="%{y:.4g}",
        )  # fmt: skip
    figure.update_layout(hovermode="x unified", showlegend=True, font={"color": INK, "size": 13})
    figure.update_xaxes(title="Epoch", showgrid=False, zeroline=False, tickformat="d", linecolor=MUTED)
    figure.update_xaxes(dtick=1 if len(curves) <= FEW_TICKS else None)
    figure.update_yaxes(title=title, gridcolor=RULE, zeroline=False, rangemode="tozero" if percent else "normal")
    return figure


def accuracy_curves(
    curves: Sequence[Curve], full: pd.Series | None, axis: str, majority: float | None = None
) -> go.Figure:
    """Draw top-1 accuracy over the number of removed units (``k``) or multiply-adds (``macs``), one curve per way.

    Args:
        curves: Of one backbone, see `backbone_curves`.
        full: Its unpruned model.
        axis: ``k`` or ``macs``.
        majority: Accuracy of always predicting the most frequent class, in percent.
    """
    largest = max(float(curve.points["macs"].max()) for curve in curves)
    scale, unit = (1e9, "billions") if largest >= 1e9 else (1e6, "millions")
    figure = go.Figure()
    for curve in curves:
        points = with_start(curve).sort_values(axis, kind="stable").astype("float64")
        x = _plain(points[axis] / (scale if axis == "macs" else 1))
        if curve.shaded and points["low"].notna().all():
            figure.add_trace(_band(x, points, curve))
        figure.add_trace(_line(x, points, curve, escape(curve_label(curve, curves)), axis == "k"))
    ends = [x for trace in figure.data for x in trace.x]
    for level, name, dash in (
        (None if full is None else full["top1"], "unpruned", "dash"),
        (majority, "majority class", "dot"),
    ):
        if level is not None:
            figure.add_scatter(
                x=[min(ends), max(ends)], y=[float(level)] * 2, name=name, mode="lines",
                line={"color": INK if dash == "dash" else MUTED, "width": 1.2, "dash": dash}, hoverinfo="skip",
            )  # fmt: skip
    figure.update_layout(hovermode="closest", font={"color": INK, "size": 13})
    told = {"k": "Removed layers", "macs": f"Multiply-adds per clip ({unit})"}[axis]
    figure.update_xaxes(title=told, gridcolor=RULE, zeroline=False, linecolor=MUTED)
    if axis == "k":
        figure.update_xaxes(dtick=1 if max(ends) <= FEW_TICKS else None, tickformat="d")
    figure.update_yaxes(title="Top-1 accuracy (%)", gridcolor=RULE, zeroline=False)
    return figure


def _line(x: list[float], points: pd.DataFrame, curve: Curve, label: str, start: bool) -> go.Scatter:
    joined = curve.style.line != NO_LINE
    sizes = [8 if k or start or not joined else 0 for k in points["k"]]
    return go.Scatter(
        x=x, y=_plain(points["top1"]), name=label,
        mode="lines+markers" if joined else "markers",
        text=[f"{label}, {k:.0f} removed" if k or not joined else escape(curve.start_name) for k in points["k"]],
        line={"color": curve.style.colour, "width": 2, "dash": LINES.get(curve.style.line)},
        # The start was made by no way of pruning: over cost it is a point of its own.
        # Of several sizes Plotly would draw paler ones with a rim.
        marker={"symbol": MARKERS[curve.style.marker], "size": sizes, "opacity": 1, "line": {"width": 0}},
        hovertemplate="%{text}<br>top-1 %{y:.1f} %<extra></extra>",
    )  # fmt: skip


def _band(x: list[float], points: pd.DataFrame, curve: Curve) -> go.Scatter:
    low, high = _plain(points["low"]), _plain(points["high"])
    return go.Scatter(
        x=x + x[::-1], y=high + low[::-1], mode="lines", fill="toself", showlegend=False, hoverinfo="skip",
        line={"width": 0}, fillcolor=translucent(curve.style.colour, 0.13),
    )  # fmt: skip


def translucent(colour: str, alpha: float) -> str:
    """Return ``#rrggbb`` as rgba, which looks right on light and on dark ground."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def _plain(values: pd.Series) -> list[Any]:
    """Plain rounded numbers: plotly would pack an array as base64, which takes more room than few numbers."""
    return [float(f"{value:.6g}") for value in values]
