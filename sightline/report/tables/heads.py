"""Which heads to look at, as CSV files in a run's ``tables/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sightline.relevance.heads import extreme_heads, head_generality, shared_heads, specialised_heads
from sightline.run.csv_table import write_table

FILES = {
    "specialised": "specialised_heads_{split}.csv",
    "shared": "shared_heads_{split}.csv",
    "general": "general_heads_{split}.csv",
    "extreme": "extreme_heads_{split}.csv",
    "extreme_by_class": "extreme_heads_{split}_by_class.csv",
    "extreme_by_sample": "extreme_heads_{split}_by_sample.csv",
}


def head_tables(
    table: pd.DataFrame,
    scores: Sequence[str],
    class_names: Sequence[str],
    early: int,
    deep: int,
    last: int,
) -> dict[str, pd.DataFrame]:
    """Make the tables of chosen heads; see `sightline.relevance.heads` for what each holds.

    Args:
        table: A score table of heads, not of a race.
        scores: Which scores to choose by.
        class_names: Names of the classes by label.
        early: How many of the first layers are early.
        deep: How many of the last layers are deep.
        last: How many of the last layers specialised heads are chosen from.

    Returns:
        By the names of `FILES`; each begins with a column score.
    """
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in FILES}
    for score in scores:
        specialised = specialised_heads(table, class_names, last, score)
        made = {"specialised": specialised, "shared": shared_heads(specialised)}
        made["general"] = head_generality(table, score)
        made["extreme"] = extreme_heads(table, "data set", class_names, early, deep, score)
        made["extreme_by_class"] = extreme_heads(table, "class", class_names, early, deep, score)
        made["extreme_by_sample"] = extreme_heads(table, "sample", class_names, early, deep, score)
        for name, frame in made.items():
            frame.insert(0, "score", score)
            found[name].append(frame)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}


def write_head_tables(tables: Mapping[str, pd.DataFrame], folder: Path, split: str) -> list[Path]:
    """Write what `head_tables` made of a split into ``folder``; a table that there is none of any more is deleted."""
    for name, file in FILES.items():
        path = folder / file.format(split=split)
        if name not in tables:
            path.unlink(missing_ok=True)
            continue
        write_table(tables[name], path, float_format="%.6g")
    return [folder / FILES[name].format(split=split) for name in tables]
