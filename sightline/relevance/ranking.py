"""From a score table to a ranking of its units."""

from __future__ import annotations

import pandas as pd

from sightline.relevance.scores import SCORES

UNIT = ["layer", "site", "head"]


def rank_units(table: pd.DataFrame, score: str = "r") -> pd.DataFrame:
    """Rank the units of a score table by their mean score, the least relevant first; ties go to the lower index.

    Args:
        table: Rows of a score table (layers or heads).
        score: ``r``, ``jsd`` or ``dprob``.

    Returns:
        One row per unit: layer, site, head, n (samples), mean, median, q25, q75.

    Raises:
        ValueError: If the score is unknown, the table is empty, or units were scored on different numbers of samples.
    """
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}.")
    if table.empty:
        raise ValueError("The score table has no rows, so there is nothing to rank.")
    grouped = table.groupby(UNIT, dropna=False, sort=True, observed=True)[score]
    ranking = grouped.agg(
        n="count", mean="mean", median="median", q25=lambda s: s.quantile(0.25), q75=lambda s: s.quantile(0.75)
    ).reset_index()
    if ranking["n"].nunique() != 1:
        raise ValueError(
            f"Units were scored on between {ranking['n'].min()} and {ranking['n'].max()} samples; means over "
            "different samples cannot be compared. Run the ablation again on all of them."
        )
    return ranking.sort_values(["mean", *UNIT], kind="stable", ignore_index=True)


def layer_means(table: pd.DataFrame, score: str = "r") -> pd.Series:
    """Return the mean score of each layer of a layer table, indexed by original layer index."""
    return rank_units(table, score).set_index("layer")["mean"].sort_index()
