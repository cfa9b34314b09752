"""What is in which split: clips, classes and groups, on disk and for the eye."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


def clips_per_class(clips: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """Count what every split has of every class.

    Args:
        clips: One row per clip: label (the class's name), group, split.
        class_names: All classes; one of which a split has no clip is listed with zeros.

    Returns:
        One row per split and class, in the order of the clips' splits and of the classes: split, label, clips, groups.
    """
    splits = clips["split"].unique()
    rows = pd.MultiIndex.from_product([splits, class_names], names=["split", "label"])
    counted = clips.groupby(["split", "label"]).agg(clips=("group", "size"), groups=("group", "nunique"))
    return counted.reindex(rows, fill_value=0).reset_index()


def render_split_table(clips: pd.DataFrame, class_names: Sequence[str]) -> Table:
    """Lay out one row per split: groups, classes, clips, and the classes with fewest and most clips."""
    table = Table(
        title=f"Data: {len(class_names)} classes", title_justify="left", title_style="bold", header_style="bold",
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    table.add_column("split", no_wrap=True)
    for name in ("groups", "classes", "clips"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("fewest of a class", "most of a class"):
        table.add_column(name, overflow="fold")
    groups = clips.groupby("split")["group"].nunique()
    for split, classes in clips_per_class(clips, class_names).groupby("split", sort=False):
        counts = classes["clips"].tolist()
        extremes = (f"{count}  {class_names[counts.index(count)]}" for count in (min(counts), max(counts)))
        totals = (groups[str(split)], sum(count > 0 for count in counts), sum(counts))
        table.add_row(*(Text(str(cell)) for cell in (split, *totals, *extremes)))
    return table
