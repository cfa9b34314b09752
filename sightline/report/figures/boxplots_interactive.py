"""Interactive box plots for the HTML report and W&B.

They carry the quartiles and not the samples, so that a plot of 288 heads stays small however many clips were scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sightline.report.figures.box_layout import AxisScale, BoxAxis, box_axis, layer_spans, place_boxes
from sightline.report.figures.style import BAND, BLUE, CYCLE, FILL, INK, MUTED, PAPER, RULE, lighter
from sightline.report.tables.unit_statistics import SCORE_NAMES, check_kind, unit_statistics

DIGITS = 5
"""Significant digits of the numbers that a plot carries."""


def layer_boxplot_interactive(
    scores: pd.DataFrame, score: str = "r", title: str = "Relevance of the layers", *, scale: AxisScale = "linear"
) -> go.Figure:
    """Draw one box per layer; hovering shows its numbers.

    Args:
        scores: A layer table.
        score: ``r``, ``jsd`` or ``dprob``.
        title: Heading of the figure.
        scale: As of the drawn one, see `box_axis`.
    """
    check_kind(scores, score, heads=False)
    statistics = unit_statistics(scores, score)
    placed = statistics.assign(x=np.arange(len(statistics), dtype=float))
    figure = _figure(placed, {"": BLUE}, score, title, box_axis(placed, scale))
    figure.update_xaxes(title="Layer", tickvals=placed["x"].to_list(), ticktext=placed["layer"].astype(str).to_list())
    return figure


def head_boxplot_interactive(
    scores: pd.DataFrame,
    score: str = "r",
    title: str = "Relevance of the attention heads",
    *,
    scale: AxisScale = "auto",
) -> go.Figure:
    """Draw one box per attention head, grouped by layer; hovering shows its numbers, dragging zooms in.

    Args:
        scores: A head table.
        score: ``r``, ``jsd`` or ``dprob``.
        title: Heading of the figure.
        scale: As of the drawn one, see `box_axis`.
    """
    check_kind(scores, score, heads=True)
    placed = place_boxes(unit_statistics(scores, score))
    colours = dict(zip(dict.fromkeys(placed["site"]), CYCLE, strict=False))
    figure = _figure(placed, colours, score, title, box_axis(placed, scale))
    spans = layer_spans(placed)
    for span in spans[::2]:
        figure.add_vrect(x0=span.left, x1=span.right, fillcolor=BAND, line_width=0, layer="below")
    figure.update_xaxes(
        title="Layer", tickvals=[span.centre for span in spans], ticktext=[str(span.layer) for span in spans]
    )
    return figure


def _figure(placed: pd.DataFrame, colours: Mapping[str, str], score: str, title: str, axis: BoxAxis) -> go.Figure:
    figure = go.Figure()
    for site, colour in colours.items():
        figure.add_trace(_boxes(placed[placed["site"] == site], site, colour, axis))
    figure.add_trace(_means(placed, score, axis))
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0.01, "xanchor": "left"},
        font={"color": INK, "size": 13},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        # Anywhere over a box shows its numbers; boxes of hundreds of heads are too narrow to be hit.
        hovermode="x",
        hoverlabel={"align": "left", "bgcolor": PAPER},
        showlegend=len(colours) > 1,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        margin={"l": 70, "r": 20, "t": 70, "b": 50},
    )
    figure.update_xaxes(showgrid=False, zeroline=False, range=[placed["x"].min() - 1, placed["x"].max() + 1])
    figure.update_yaxes(
        title=SCORE_NAMES[score],
        range=[0, _short(float(axis.heights(axis.top)))],
        gridcolor=RULE,
        linecolor=MUTED,
    )
    if axis.threshold is not None:
        figure.update_yaxes(
            title=f"{SCORE_NAMES[score]}<br>(logarithmic above {axis.threshold:g})",
            tickvals=_numbers(axis.heights(axis.ticks())),
            ticktext=[f"{value:g}" for value in axis.ticks()],
        )
    return figure


def _boxes(boxes: pd.DataFrame, site: str, colour: str, axis: BoxAxis) -> go.Box:
    red, green, blue = (round(255 * channel) for channel in lighter(colour, FILL))
    return go.Box(
        name=site or "layers",
        x=boxes["x"].to_list(),
        q1=_numbers(axis.heights(boxes["q25"])),
        median=_numbers(axis.heights(boxes["median"])),
        q3=_numbers(axis.heights(boxes["q75"])),
        lowerfence=_numbers(axis.heights(boxes["whisker_low"])),
        upperfence=_numbers(axis.heights(boxes["whisker_high"])),
        mean=_numbers(axis.heights(boxes["mean"])),
        # The means are drawn by `_means`, which can also say more than a box's own hover text.
        boxmean=False,
        hoverinfo="skip",
        width=0.7,
        line={"color": colour, "width": 1.2},
        fillcolor=f"rgb({red},{green},{blue})",
    )


def _means(placed: pd.DataFrame, score: str, axis: BoxAxis) -> go.Scatter:
    is_head = placed["head"].notna().all()
    names = [
        f"layer {layer}, {site} head {head}" if is_head else f"layer {layer}"
        for layer, site, head in zip(placed["layer"], placed["site"], placed["head"], strict=True)
    ]
    columns = [names, placed["n"].to_list()]
    columns += [_numbers(placed[name]) for name in ("median", "q25", "q75", "min", "max", "mean")]
    return go.Scatter(
        x=placed["x"].to_list(),
        y=_numbers(axis.heights(placed["mean"])),
        customdata=[list(row) for row in zip(*columns, strict=True)],
        mode="markers",
        marker={"symbol": "diamond", "size": 6, "color": PAPER, "line": {"color": INK, "width": 1}},
        name="mean",
        showlegend=False,
        hovertemplate=(
            f"<b>%{{customdata[0]}}</b><br>{score} of %{{customdata[1]}} samples<br>mean %{{customdata[7]:.4g}}<br>"
            "median %{customdata[2]:.4g}<br>quartiles %{customdata[3]:.4g} to %{customdata[4]:.4g}<br>"
            "range %{customdata[5]:.4g} to %{customdata[6]:.4g}<extra></extra>"
        ),
    )


def _numbers(values: Iterable[float]) -> list[float]:
    """Plain rounded floats: plotly would pack an array as base64, which W&B's older viewer does not read."""
    return [_short(value) for value in values]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
