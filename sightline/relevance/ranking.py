"""From a score table to a ranking of its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sightline.relevance.matrix import SCORES, UNIT


def rank_units(table: pd.DataFrame, score: str = "r", race: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Rank the units of a score table by their mean score, the least relevant first; ties go to the lower index.

    Args:
        table: Rows of a score table (layers or heads).
        score: ``r``, ``jsd`` or ``dprob``.
        race: What the manifest says of the race that made the table (`Race.record`); without it, a table in which
            units saw different numbers of samples is refused.

    Returns:
        One row per unit: layer, site, head, n (samples), mean, median, q25, q75. Of a race also settled_at (samples
        after which the unit stopped, missing where it did not) and place, which is equal for ties; the race's sets
        come first and last there, and means only rank within what they leave open, as means over different samples
        cannot be compared.

    Raises:
        ValueError: If the score is unknown, the table is empty, or units were scored on different numbers of samples
            and no race says why, or it was run on other units.
    """
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}.")
    if table.empty:
        raise ValueError("The score table has no rows, so there is nothing to rank.")
    grouped = table.groupby(UNIT, dropna=False, sort=True, observed=True)[score]
    ranking = grouped.agg(
        n="count", mean="mean", median="median", q25=lambda s: s.quantile(0.25), q75=lambda s: s.quantile(0.75)
    ).reset_index()
    if race is not None:
        _check_raced_score(race, score)
        return _rank_by_race(ranking, race)
    if ranking["n"].nunique() != 1:
        raise ValueError(
            f"Units were scored on between {ranking['n'].min()} and {ranking['n'].max()} samples; means over "
            "different samples cannot be compared. Run the ablation again on all of them."
        )
    return ranking.sort_values(["mean", *UNIT], kind="stable", ignore_index=True)


def layer_means(table: pd.DataFrame, score: str = "r", race: Mapping[str, Any] | None = None) -> pd.Series:
    """Return the mean score of each layer of a layer table, indexed by original layer index."""
    return rank_units(table, score, race).set_index("layer")["mean"].sort_index()


def layer_order(table: pd.DataFrame, score: str = "r", race: Mapping[str, Any] | None = None) -> pd.Series:
    """Return what layers are to be chosen by, indexed by original layer index: means, or places in a race's ranking."""
    ranking = rank_units(table, score, race).set_index("layer").sort_index()
    return ranking["mean" if race is None else "place"]


def check_race(
    race: Mapping[str, Any], score: str, layers: Sequence[int], ks: Sequence[int], modes: Sequence[str]
) -> None:
    """Raise ValueError unless a race of layers decided these sets, by this score, among these layers."""
    raced = {(members["mode"], members["k"]) for members in race["sets"]}
    missing = [f"{mode} {k}" for mode in modes for k in ks if (mode, k) not in raced]
    if missing:
        decided = ", ".join(f"{mode} {k}" for mode, k in sorted(raced))
        raise ValueError(
            f"The race decided the sets {decided}, not {', '.join(missing)}. Ask for these, or score again with "
            "sampling full, or race for the sets wanted."
        )
    if sorted(layer for layer, _, _ in race["units"]) != sorted(layers):
        raise ValueError(
            f"The race was among layers {[layer for layer, _, _ in race['units']]}, but those that can be removed are "
            f"{sorted(layers)}. Score again: train.py ablate."
        )
    _check_raced_score(race, score)


def _check_raced_score(race: Mapping[str, Any], score: str) -> None:
    if race["score"] != score:
        raise ValueError(
            f"The table was raced by {race['score']}, which says little about {score}: units stopped when their "
            f"{race['score']} was settled. Rank by {race['score']}, or score again with sampling full."
        )


def _rank_by_race(ranking: pd.DataFrame, race: Mapping[str, Any]) -> pd.DataFrame:
    """Rank units by the race's sets, and within what these leave open by the mean of what each unit saw."""
    keys = [_key(*unit) for unit in ranking[UNIT].itertuples(index=False)]
    settled_at = {_key(*unit): n for unit, n in zip(race["units"], race["settled_at"], strict=True)}
    strange = set(settled_at) - set(keys)
    if strange:
        raise ValueError(
            f"The race was of units that the table lacks, e.g. {min(strange)}. They do not belong together; score "
            "again: train.py ablate."
        )
    # A unit is the further back, the fewer of the lowest sets it is in and the more of the highest.
    band = np.zeros(len(keys), dtype=np.int64)
    for members in race["sets"]:
        names = {_key(*unit) for unit in members["units"]}
        band += np.array([(key in names) == (members["mode"] == "highest") for key in keys])
    settled = pd.Series([settled_at.get(key) for key in keys], dtype="Int64", index=ranking.index)
    ranking = ranking.assign(settled_at=settled, band=band)
    ranking["place"] = ranking.groupby(["band", "mean"], sort=True).ngroup()
    return ranking.sort_values(["place", *UNIT], kind="stable", ignore_index=True).drop(columns="band")


def _key(layer: Any, site: Any, head: Any) -> tuple[int, str, int]:
    """Name a unit alike, whether it comes from a table (nulls for a layer) or from a manifest ("" and -1)."""
    return int(layer), "" if pd.isna(site) else str(site), -1 if pd.isna(head) else int(head)
