"""The five numbers of every box: what a score table says about each layer or head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

UnitKey = tuple[int, str, int | None]
UnitValues = tuple[UnitKey, NDArray[np.float64]]
"""(layer, site, head) and the sorted scores of that unit."""

SCORE_NAMES: dict[str, str] = {
    "r": "Relevance r",
    "jsd": "Jensen-Shannon divergence (bits)",
    "dprob": "Change of the true class' probability",
}
"""The scores of a score table and what an axis calls them."""

WHISKERS = 1.5
"""How far whiskers reach beyond the quartiles at most, in box lengths (Tukey)."""
BOX_MEANING = (
    f"Box: quartiles, line: median, diamond: mean, whiskers: to the outermost samples within {WHISKERS:g} box lengths"
)
"""What every box plot says of its boxes, in a figure's file and on a page."""

STATISTICS = (
    "layer", "site", "head", "n", "mean", "median", "q25", "q75", "min", "max",
    "whisker_low", "whisker_high", "n_outside",
)  # fmt: skip
"""Columns of `unit_statistics`."""


def unit_statistics(scores: pd.DataFrame, score: str = "r") -> pd.DataFrame:
    """Summarise the per-sample scores of every layer or head.

    Quartiles are linearly interpolated; whiskers reach to the outermost sample within 1.5 interquartile ranges of the
    box (Tukey), as matplotlib and plotly draw them.

    Args:
        scores: A score table of layers (``site`` and ``head`` are null) or of heads.
        score: ``r``, ``jsd`` or ``dprob``.

    Returns:
        One row per unit, by layer, site (in the order in which sites first occur) and head; columns `STATISTICS`. Of a
        layer table, site is "" and head missing.
    """
    return summarise(unit_values(scores, score))


def summarise(units: Iterable[UnitValues]) -> pd.DataFrame:
    """Summarise what `unit_values` yields; see `unit_statistics`."""
    rows = [_summary(key, values) for key, values in units]
    table = pd.DataFrame(rows, columns=list(STATISTICS))
    return table.astype({"layer": "int64", "head": "Int64", "n": "int64", "n_outside": "int64"})


def unit_values(scores: pd.DataFrame, score: str) -> Iterator[UnitValues]:
    """Yield (layer, site, head) and the sorted scores of every unit, in the order of `unit_statistics`."""
    check_scores(scores, score)
    keys = pd.DataFrame({"layer": scores["layer"], "site": "", "head": -1, "value": scores[score].astype("float64")})
    if not is_layer_table(scores):
        # Sites run in an order that their names do not tell; a score table lists them in it.
        order = {site: place for place, site in enumerate(scores["site"].unique())}
        keys["site"], keys["place"] = scores["site"].astype("object"), scores["site"].map(order).astype("int64")
        keys["head"] = scores["head"].astype("int64")
    else:
        keys["place"] = 0
    for _, group in keys.groupby(["layer", "place", "head"], sort=True):
        layer, site, head = (group[name].iloc[0] for name in ("layer", "site", "head"))
        yield (int(layer), str(site), int(head) if head >= 0 else None), np.sort(group["value"].to_numpy())


def unit_keys(statistics: pd.DataFrame) -> list[UnitKey]:
    """Return the (layer, site, head) of every row of `unit_statistics`, as `unit_values` yields them."""
    heads = [None if pd.isna(head) else int(head) for head in statistics["head"]]
    return list(zip(statistics["layer"].astype(int), statistics["site"].astype(str), heads, strict=True))


def is_layer_table(scores: pd.DataFrame) -> bool:
    """Whether the table scores layers (site and head null throughout) and not heads."""
    return bool(scores["site"].isna().all() and scores["head"].isna().all())


def check_scores(scores: pd.DataFrame, score: str) -> None:
    """Raise ValueError unless the table can be summarised by ``score``."""
    if score not in SCORE_NAMES:
        raise ValueError(f"A score table is summarised by one of {', '.join(SCORE_NAMES)}; got score={score!r}.")
    missing = [name for name in ("layer", "site", "head", score) if name not in scores.columns]
    if missing:
        raise ValueError(
            f"A score table needs the columns layer, site, head and {score}; missing: {', '.join(missing)}. "
            "Read it from relevance/<split>/layers.parquet or heads.parquet."
        )
    if scores.empty:
        raise ValueError(
            "The score table has no rows, so there is nothing to summarise. Score samples first: `train.py ablate`."
        )
    incomplete = scores["site"].isna() != scores["head"].isna()
    if incomplete.any() or scores["site"].isna().nunique() > 1:
        raise ValueError(
            "A score table holds either layers (site and head null in every row) or heads (both given in every row); "
            "this one mixes them. Pass the layer table and the head table separately."
        )
    values = scores[score].to_numpy(dtype="float64", na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        row = scores.iloc[int(bad[0])]
        raise ValueError(
            f"Scores must be finite; {bad.size} of {len(scores)} values of {score} are not, the first is "
            f"{values[bad[0]]} (sample {row.get('sample_id', bad[0])!r}, layer {row['layer']}). Such scores come from "
            "a model whose outputs overflowed: score again in float32, or drop these rows."
        )


def _summary(key: UnitKey, values: NDArray[np.float64]) -> tuple[Any, ...]:
    q25, median, q75 = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    reach = WHISKERS * (q75 - q25)
    inside = values[(values >= q25 - reach) & (values <= q75 + reach)]
    # With few samples no sample may lie between quartile and fence; then there is no whisker on that side.
    low, high = min(float(inside[0]), q25), max(float(inside[-1]), q75)
    numbers = (values.mean(), median, q25, q75, values[0], values[-1], low, high)
    return (*key, len(values), *(float(number) for number in numbers), len(values) - len(inside))


def check_stages(statistics: pd.DataFrame, stages: Mapping[int, int] | None) -> None:
    """Raise ValueError unless ``stages`` is absent or names the stage of every layer."""
    missing = [] if stages is None else sorted(set(statistics["layer"]) - set(stages))
    if missing:
        raise ValueError(
            f"stages must give the stage of every layer in the score table; missing: {missing}. "
            "Build it from the backbone: {layer.index: layer.stage for layer in backbone.layers}."
        )


def check_kind(scores: pd.DataFrame, score: str, *, heads: bool) -> None:
    """Raise ValueError unless the table can be summarised and scores heads (or layers) as the plot expects."""
    check_scores(scores, score)
    if is_layer_table(scores) == heads:
        expected, came = ("heads", "layers") if heads else ("layers", "heads")
        raise ValueError(
            f"This plot takes a score table of {expected}, but the table scores {came} "
            f"(site and head are {'null' if heads else 'given'}). Use {came[:-1]}_boxplot, or read {expected}.parquet."
        )
