"""Attribution methods by metrics, with intervals, and what each costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sightline.report.figures.style import BLUE, INK, MUTED, RULE, TICK_SIZE, TITLE_SIZE, new_figure, styled
from sightline.report.tables.attribution_layout import ARROWS

METRICS = {
    "deletion_blur": "Deletion (blur)", "insertion_blur": "Insertion (blur)",
    "comprehensiveness_blur": "Comprehensiveness", "faithfulness": "Faithfulness",
    "deletion_freeze_time": "Deletion of frames", "pointing_object": "Pointing, object",
    "pointing_action": "Pointing in time", "on_target_head": "On the head, by frame",
    "luminance_correlation": "Correlation with luminance", "sanity_embedding": "Sanity: untrained model",
}  # fmt: skip
ROW, LEFT = 0.24, 1.7
"""Height of a method's row and width of the methods' names, inches."""


@styled()
def attribution_figure(table: pd.DataFrame) -> Figure:
    """Draw a panel per metric, a row per method; what has a chance is drawn less chance.

    Args:
        table: From `sightline.report.tables.attribution.attribution_table`.

    Raises:
        ValueError: If there is no method, or none of the metrics that are drawn.
    """
    panels = [metric for metric in METRICS if (table["metric"] == metric).any()]
    methods = list(table.sort_values("control", kind="stable")["method"].unique())[::-1]
    if not methods or not panels:
        raise ValueError("There is nothing to draw: no attribution method was measured by a metric of the figure.")
    columns = min(len(panels) + 1, 4)
    lines = -(-(len(panels) + 1) // columns)
    height = lines * (ROW * len(methods) + 0.75) + 0.5
    figure = new_figure(LEFT + 2.5 * columns, height)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    controls = set(table.loc[table["control"], "method"])
    for axes, metric in zip(grid.flat, [*panels, "seconds"], strict=False):
        _draw(axes, table[table["metric"] == metric], metric, methods, controls)
    for axes in grid.flat[len(panels) + 1 :]:
        axes.set_visible(False)
    clips = int(table["clips"].max())
    note = f"{clips} clips; bars are 95 % intervals; grey: controls; dashed: chance."
    figure.suptitle(f"Which attribution is right?  {note}", x=0.01, ha="left", fontsize=TITLE_SIZE)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, metric: str, methods: list[str], controls: set[str]) -> None:
    own = rows.set_index("method").reindex(methods)
    compared = own["vs_chance"].notna().any()
    names = ("vs_chance", "vs_chance_low", "vs_chance_high") if compared else ("value", "low", "high")
    value, low, high = (own[name].to_numpy(float) for name in names)
    colours = [MUTED if method in controls else BLUE for method in methods]
    for place, colour in enumerate(colours):
        if np.isfinite(low[place]) and np.isfinite(high[place]):
            axes.plot([low[place], high[place]], [place, place], color=colour, linewidth=1.4)
    axes.scatter(value, range(len(methods)), c=colours, s=22, zorder=3)
    if compared:
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    signs = rows["better"].iloc[0] if len(rows) else 0
    title = METRICS.get(metric, "Seconds per clip")
    axes.set_title(f"{title} {ARROWS[int(signs)]}".rstrip(), fontsize=TICK_SIZE + 0.5, loc="left")
    if metric == "seconds" and (value > 0).any():
        axes.set_xscale("log")
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(-0.7, len(methods) - 0.3)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.tick_params(labelsize=TICK_SIZE)
