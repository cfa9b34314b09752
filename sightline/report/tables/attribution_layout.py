"""The table of attribution methods in the terminal: a row per method, a column per metric.

A cell is the value less chance where there is a chance, so that 0 is what knowing nothing gets; otherwise the value.
"""

from __future__ import annotations

import pandas as pd
from rich.table import Table

SHOWN = {
    "deletion_blur": "del", "insertion_blur": "ins", "faithfulness": "faith", "pointing_object": "object",
    "pointing_action": "action", "on_target_head": "head", "luminance_correlation": "light",
    "sanity_embedding": "sanity", "seconds": "s",
}  # fmt: skip
"""What a short table shows, and its heading."""
CAPTION = (
    "Means over the clips, less chance where there is one. Arrows: which end is good. In brackets: controls. del, ins, "
    "faith: by parts that are blurred; object, action: peak on it, in its time; head: peak on it in every frame; "
    "light: correlation with luminance; s: seconds a clip."
)
ARROWS = {1: "↑", -1: "↓", 0: ""}


def cells_of(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the short table as text; controls come last."""
    metrics = [metric for metric in SHOWN if (table["metric"] == metric).any()]
    signs = table.drop_duplicates("metric").set_index("metric")["better"]
    headings = ["method", *(SHOWN[metric] + ARROWS[int(signs[metric])] for metric in metrics)]
    order = table.drop_duplicates("method").sort_values("control", kind="stable")
    rows = []
    for method, control in zip(order["method"], order["control"], strict=True):
        own = table[table["method"] == method].set_index("metric")
        name = f"({method})" if control else str(method)
        rows.append([name, *(_cell(own.loc[metric]) if metric in own.index else "" for metric in metrics)])
    return headings, rows


def render_attribution(table: pd.DataFrame) -> Table:
    """Return the short table for a terminal; `CAPTION` explains it."""
    headings, rows = cells_of(table)
    rendered = Table()
    rendered.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        rendered.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        rendered.add_row(*row)
    return rendered


def _cell(row: pd.Series) -> str:
    if pd.notna(row["vs_chance"]):
        return f"{row['vs_chance']:+.2f}"
    return f"{row['value']:.2g}"
