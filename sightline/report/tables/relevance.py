"""What the score tables say, as CSV files in a run's ``tables/``.

One row per score and unit in ``relevance_<split>_<kind>.csv`` (statistics and interval), per score, unit and class or
group in ``..._by_class.csv`` and ``..._by_group.csv``, per score, mode, k and unit in ``stability_<split>_<kind>.csv``,
and per score, mode and k in ``cut_gaps_<split>_<kind>.csv``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sightline.relevance.cut_gap import cut_gaps
from sightline.relevance.matrix import UNIT, score_matrix
from sightline.relevance.ranking import rank_units
from sightline.relevance.unit_tables import MODES, class_table, group_table, interval_table, stability_table
from sightline.report.tables.unit_statistics import unit_statistics
from sightline.run.csv_table import write_table
from sightline.statistics.bootstrap import resampled_means
from sightline.statistics.matrix import ScoreMatrix

# Depths at which the stability of the set is stated; beyond, a set is a large part of most models' layers.
DEPTHS = (1, 2, 3, 4, 6, 8, 12)


def relevance_tables(
    table: pd.DataFrame,
    scores: Sequence[str],
    class_names: Sequence[str],
    removable: Collection[int] | None = None,
    race: Mapping[str, Any] | None = None,
    noise_floor: float | None = None,
) -> dict[str, pd.DataFrame]:
    """Make the tables of one kind of unit.

    Args:
        table: A score table of layers or of heads.
        scores: Which scores to summarise.
        class_names: Names of the classes by label.
        removable: Layers that may be chosen, where stability is asked of those alone; all units if not given.
        race: What the manifest says of the race that made the table; there are no gaps and no stability then.
        noise_floor: Largest r of a sample with nothing ablated, to compare the gaps at the cuts with.

    Returns:
        ``statistics``, ``by_class``, ``by_group`` and, but for a race, ``gaps`` and ``stability``; each with a column
        ``score``.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for score in scores:
        matrix = score_matrix(table, score)
        drawn = resampled_means(matrix)
        intervals = interval_table(matrix).drop(columns="mean")
        made = {
            "statistics": unit_statistics(table, score).merge(intervals, on=UNIT, how="left", validate="1:1"),
            "by_class": class_table(matrix, class_names),
            "by_group": group_table(matrix),
        }
        allowed = _allowed(matrix, removable)
        depths = [k for k in DEPTHS if k < allowed.sum()]
        if race is not None and score == race["score"]:
            made["statistics"] = _with_race(made["statistics"], rank_units(table, score, race))
        elif race is None:
            made["gaps"] = _gaps(rank_units(table, score), removable, depths, noise_floor)
            made["stability"] = stability_table(matrix, drawn, depths, allowed=allowed) if depths else pd.DataFrame()
        for name, frame in made.items():
            frame.insert(0, "score", score)
            found.setdefault(name, []).append(frame)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}


def write_relevance_tables(tables: Mapping[str, pd.DataFrame], folder: Path, split: str, kind: str) -> list[Path]:
    """Write what `relevance_tables` made into ``folder``; a table that there is none of any more is deleted."""
    names = {
        "statistics": f"relevance_{split}_{kind}.csv",
        "by_class": f"relevance_{split}_{kind}_by_class.csv",
        "by_group": f"relevance_{split}_{kind}_by_group.csv",
        "stability": f"stability_{split}_{kind}.csv",
        "gaps": f"cut_gaps_{split}_{kind}.csv",
    }
    for name, file in names.items():
        if name not in tables:
            (folder / file).unlink(missing_ok=True)
            continue
        write_table(tables[name], folder / file, float_format="%.6g")
    return [folder / file for name, file in names.items() if name in tables]


def _allowed(matrix: ScoreMatrix, removable: Collection[int] | None) -> np.ndarray:
    everything = np.ones(len(matrix.units), dtype=bool)
    return everything if removable is None else matrix.units["layer"].isin(list(removable)).to_numpy()


def _gaps(
    ranking: pd.DataFrame, removable: Collection[int] | None, depths: Sequence[int], noise_floor: float | None
) -> pd.DataFrame:
    rivals = ranking if removable is None else ranking[ranking["layer"].isin(list(removable))]
    columns = ["mode", "k", "last_cut", "first_kept", "gap", "noise_floor", "clear"]
    gaps = cut_gaps(rivals, depths, MODES, noise_floor)
    return pd.DataFrame([[getattr(gap, name) for name in columns] for gap in gaps], columns=columns)


def _with_race(statistics: pd.DataFrame, ranking: pd.DataFrame) -> pd.DataFrame:
    site = ranking["site"].astype("object")
    ranking = ranking.assign(site=site.where(site.notna(), ""), head=ranking["head"].astype("float").astype("Int64"))
    return statistics.merge(ranking[[*UNIT, "settled_at", "place"]], on=UNIT, how="left", validate="1:1")
