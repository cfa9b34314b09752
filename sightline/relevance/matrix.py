"""A score table as one array of units by samples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sightline.statistics.matrix import ScoreMatrix

SCORES = ("r", "jsd", "dprob")
UNIT = ["layer", "site", "head"]


def score_matrix(table: pd.DataFrame, score: str = "r") -> ScoreMatrix:
    """Turn a score table, or the table of a race, into an array.

    Args:
        table: Rows of a score table (layers or heads).
        score: ``r``, ``jsd`` or ``dprob``.

    Raises:
        ValueError: If the score is unknown, there are no rows, or a unit has two scores on one sample.
    """
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}.")
    if table.empty:
        raise ValueError("The score table has no rows, so there is nothing to rank. Score samples: train.py ablate.")
    unit_codes = table.groupby(UNIT, dropna=False, sort=True, observed=True).ngroup().to_numpy()
    units = table.iloc[np.unique(unit_codes, return_index=True)[1]][UNIT].reset_index(drop=True)
    site = units["site"].astype("object")
    units = units.assign(site=site.where(site.notna(), ""), head=units["head"].astype("float").astype("Int64"))
    sample_codes, names = pd.factorize(table["sample_id"])
    places = unit_codes * len(names) + sample_codes
    if len(np.unique(places)) != len(places):
        raise ValueError("The score table holds a unit's score on a sample twice. Make it again: train.py ablate.")
    values = np.full((len(units), len(names)), np.nan)
    values.reshape(-1)[places] = table[score].to_numpy(dtype=float)
    first = table.iloc[np.unique(sample_codes, return_index=True)[1]]
    return ScoreMatrix(units, values, first["label"].to_numpy(dtype=np.int64), first["group"].to_numpy(dtype=object))
