"""Which clips a run has, and how they are divided."""

from __future__ import annotations

import pandas as pd

from sightline.report.stored.run_results import RunResults
from sightline.report.tables.split import clips_per_class
from sightline.run.csv_table import read_table


def split_counts(run: RunResults) -> pd.DataFrame | None:
    """Return clips per split and class, counted from ``splits.csv`` where ``tables/split.csv`` is not there."""
    counts = run.table("split", ("split", "label", "clips", "groups"), "fit")
    clips = read_clips(run)
    if counts is None and clips is not None:
        counts = clips_per_class(clips, list(dict.fromkeys(clips["label"])))
    return counts


def groups_per_split(run: RunResults, splits: list[str]) -> list[int] | None:
    """Return how many groups each split has; None where ``splits.csv`` is not there."""
    clips = read_clips(run)
    return None if clips is None else [int(clips.loc[clips["split"] == split, "group"].nunique()) for split in splits]


def shared_groups(run: RunResults) -> list[str]:
    """Name the groups of which several splits have clips."""
    clips = read_clips(run)
    if clips is None:
        return []
    splits = clips[clips["group"] != ""].groupby("group", sort=True)["split"].nunique()
    return [str(group) for group in splits.index[splits > 1]]


def read_clips(run: RunResults) -> pd.DataFrame | None:
    """Read ``splits.csv``: every clip with its class (label), group and split; None where it is not there."""
    path = run.paths.splits
    return read_table(path, dtype=str, keep_default_na=False) if path.is_file() else None
