"""The section on token reductions: what fewer tokens keep of the accuracy, and whether choosing them helps."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sightline.report.figures.style import INK, MUTED, RULE
from sightline.report.figures.tokens import GROUPS, pruned_groups, token_curves
from sightline.report.numbers import fixed, signed
from sightline.report.page.blocks import Block, Column, Folded, Missing, Section, Table, Text, chart
from sightline.report.page.charts import LINES, MARKERS, translucent
from sightline.report.stored.run_results import RunResults
from sightline.report.tables.pruning_layout import amount_and_change
from sightline.report.tables.tokens import ALL_TOKENS, averaged
from sightline.report.tables.tokens_layout import (
    accuracy_text,
    against_all,
    against_random,
    control_sentences,
    row_label,
    table_notes,
    way_label,
)

MOST_CLASSES = 5
"""How many of the classes that lose most are named for every method."""
BY_CLASS = ("method", "options", "seed", "kept_asked_pct", "class", "clips", "top1", "change")
_SYMBOLS = {**MARKERS, "*": "star", "h": "hexagon", "H": "hexagon2", "p": "pentagon"}


def tokens_section(run: RunResults) -> Section:
    """What fewer tokens keep of the accuracy, and what they save."""
    section = Section(
        "tokens",
        "Fewer tokens",
        "The trained model with token reductions, without training again: each method drops (or merges) tokens until "
        "the same share of them is left, on average over layers and clips. A method is worth its trouble where it is "
        "better than dropping as many tokens at random.",
    )
    frame = run.tokens()
    if frame is None:
        section.blocks.append(Missing("No token reduction was tested yet. Compare some with", run.command("tokens")))
        return section
    section.blocks += [Text(sentence) for sentence in control_sentences(frame)]
    section.blocks.append(_table(frame))
    section.blocks += _charts(frame, run.pruning())
    by_class = run.table("tokens_by_class", BY_CLASS, "tokens")
    if by_class is not None:
        section.blocks.append(_losing_classes(by_class))
    return section


def _table(frame: pd.DataFrame) -> Table:
    rows: list[Any] = list(averaged(frame).itertuples(index=False))
    batches = " or ".join(map(str, frame["batch"].dropna().unique())) or "n"
    columns = {
        Column("method"): [row_label(row) for row in rows],
        Column("kept %", True, "of all tokens, mean over layers and clips"): [fixed(row.kept_pct, 1) for row in rows],
        Column("top‑1 % (95 %)", True): [accuracy_text(row).replace("-", "\N{EN DASH}") for row in rows],
        Column("mean class %", True, "Mean over classes of the share that is right"): [
            fixed(row.mean_class_acc, 1) for row in rows
        ],
        Column("against all tokens (95 %)", True, "Points of top-1, paired clip by clip"): list(map(against_all, rows)),
        Column("against random (95 %)", True, "Points of top-1 against random dropping at the same share, paired"): [
            against_random(row) for row in rows
        ],
        Column("multiply-adds", True): [
            amount_and_change(row.macs, row.macs_change_pct).replace("-", "\N{MINUS SIGN}") for row in rows
        ],
        Column("ms per clip", True, "at batch 1; in brackets the interquartile range of the repeats"): [
            _spread(row.latency_ms_b1, row.latency_iqr_ms_b1) for row in rows
        ],
        Column(f"clips/s at batch {batches}", True, "in brackets the interquartile range of the repeats"): [
            _spread(row.clips_per_s, row.clips_per_s_iqr) for row in rows
        ],
    }
    strong = frozenset(place for place, row in enumerate(rows) if row.method == ALL_TOKENS)
    return Table(
        list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)], " ".join(table_notes(frame)),
        strong,
    )  # fmt: skip


def _spread(value: Any, iqr: Any) -> str:
    return fixed(value, 1) + ("" if pd.isna(iqr) else f" ({iqr:.1f})")


def _charts(frame: pd.DataFrame, pruning: pd.DataFrame | None) -> list[Block]:
    if not token_curves(frame):
        return []
    blocks: list[Block] = []
    full = averaged(frame).iloc[0]
    scale, unit = (1e9, "billions") if full["macs"] >= 1e9 else (1e6, "millions")
    told = "In grey the pruned models of this run. Shaded: 95 % interval of one model, or the range over draws."
    axes = [("macs", scale, f"Multiply-adds per clip ({unit})", "Accuracy against multiply-adds")]
    if full["clips_per_s"] > 0:
        axes.append(("speed", 1.0, "Clips/s against all tokens", "Accuracy against speed"))
    for name, by, axis, title in axes:
        figure = _figure(frame, pruning, name, by)
        figure.update_xaxes(title=axis, gridcolor=RULE, zeroline=False, linecolor=MUTED)
        figure.update_yaxes(title="Top-1 accuracy (%)", gridcolor=RULE, zeroline=False)
        more = (
            " Speeds are against the unpruned model with all tokens in the same measurement." if name == "speed" else ""
        )
        blocks.append(chart(figure, title, told + more, height=420))
    return blocks


def _figure(frame: pd.DataFrame, pruning: pd.DataFrame | None, axis: str, scale: float) -> go.Figure:
    figure = go.Figure()
    for name, rows in pruned_groups(pruning):
        line, marker = GROUPS[name]
        rows = rows[rows[axis].notna()].sort_values(axis, kind="stable")
        figure.add_scatter(
            x=_plain(rows[axis] / scale), y=_plain(rows["top1"]), name=f"pruned: {name}",
            mode="markers" if line == "none" else "lines+markers", text=[escape(plan) for plan in rows["plan_id"]],
            line={"color": MUTED, "width": 1.3, "dash": {"-.": "dashdot"}.get(line, LINES.get(line))},
            marker={"symbol": _SYMBOLS[marker], "size": 8}, hovertemplate="%{text}<br>top-1 %{y:.1f} %<extra></extra>",
        )  # fmt: skip
    for curve in token_curves(frame):
        points = curve.points[curve.points[axis].notna()].sort_values(axis)
        x = _plain(points[axis] / scale)
        if curve.shaded:
            low, high = _plain(points["low"]), _plain(points["high"])
            figure.add_scatter(
                x=x + x[::-1], y=high + low[::-1], mode="lines", fill="toself", showlegend=False, hoverinfo="skip",
                line={"width": 0}, fillcolor=translucent(curve.colour, 0.13),
            )  # fmt: skip
        figure.add_scatter(
            x=x, y=_plain(points["top1"]), name=escape(curve.label), mode="lines+markers",
            text=[f"{escape(curve.label)}, {kept:.1f} % kept" for kept in points["kept_pct"]],
            line={"color": curve.colour, "width": 2, "dash": LINES.get(curve.line)},
            marker={"symbol": _SYMBOLS[curve.marker], "size": 8, "line": {"width": 0}},
            hovertemplate="%{text}<br>top-1 %{y:.1f} %<extra></extra>",
        )  # fmt: skip
    full = averaged(frame).iloc[0]
    figure.add_scatter(
        x=[full["macs"] / scale if axis == "macs" else 1.0], y=[full["top1"]], name="all tokens, unpruned",
        mode="markers", marker={"symbol": "star", "size": 13, "color": INK},
        hovertemplate="top-1 %{y:.1f} %<extra></extra>",
        error_y={"type": "data", "symmetric": False, "array": [full["high"] - full["top1"]],
                 "arrayminus": [full["top1"] - full["low"]], "color": INK, "thickness": 1},
    )  # fmt: skip
    figure.update_layout(hovermode="closest", font={"color": INK, "size": 13})
    return figure


def _losing_classes(by_class: pd.DataFrame) -> Folded:
    """Name the classes that each method loses most of; draws are averaged."""
    rows = by_class[by_class["method"] != ALL_TOKENS].fillna({"options": ""})
    grouped = rows.groupby(["method", "options", "kept_asked_pct", "class"], sort=False)
    means = grouped.agg(clips=("clips", "first"), top1=("top1", "mean"), change=("change", "mean")).reset_index()
    lines: list[list[str]] = []
    for (_, _, kept), classes in means.groupby(["method", "options", "kept_asked_pct"], sort=False):
        worst = classes.sort_values("change", kind="stable").head(MOST_CLASSES)
        row: Any
        for row in worst[worst["change"] < 0].itertuples(index=False):
            told = [way_label(row), f"{kept:g}", str(row[3]), str(row.clips), fixed(row.top1, 1), signed(row.change, 1)]
            lines.append(told)
    columns = [Column("method"), Column("kept % (asked)", True), Column("class"), Column("clips", True)]
    columns += [Column("top‑1 %", True), Column("against all tokens", True, "points")]
    caption = (
        f"Of every method and share, the {MOST_CLASSES} classes that lose most; all are in tables/tokens_by_class.csv."
    )
    return Folded("Which classes lose most", [Table(columns, lines, caption) if lines else Text("None loses.")])


def _plain(values: pd.Series) -> list[Any]:
    return [float(f"{value:.6g}") for value in values.astype("float64")]
