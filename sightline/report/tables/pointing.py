"""What the pointing scores of heads say: a table of all heads, and whether relevant deep heads look at what matters.

The scores are those of `sightline.explain.metrics.pointing_job`, one row per clip, head and target. Intervals are over
subjects (see `sightline.statistics.subject_intervals`); with fewer than 8 there are none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sightline.explain.metrics.pointing import ACTION
from sightline.relevance.heads import layer_depths
from sightline.relevance.matrix import UNIT
from sightline.run.csv_table import write_table
from sightline.statistics.matrix import Floats, ScoreMatrix
from sightline.statistics.rank_correlation import spearman
from sightline.statistics.subject_intervals import LeftOut, leave_one_out, share_interval, symmetric_interval

MEASURES = ("pointing", "share")
RELEVANT = "relevant deep heads"
CORRELATION = "Spearman's correlation with relevance"
DRAWS, SEED = 2000, 0
"""How often heads are drawn at random, and what fixes the draws."""
Flags = NDArray[np.bool_]


def pointing_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of every head.

    Args:
        rows: One per clip, head and target.

    Returns:
        One row per target, site, layer and head: n (clips that show the target), pointing with pointing_low and
        pointing_high (95 %), share; n_timed (clips in which the action begins or ends), temporal, temporal_share; and
        of all of these what a uniform map gets (``uniform_``) and what a head of the site drawn at random gets on
        average (``random_``). Temporal columns are the same for every target.
    """
    spatial, timed = rows[rows["target"] != ACTION], rows[rows["target"] == ACTION]
    names = {"n": "n_timed", "pointing": "temporal", "share": "temporal_share"}
    names |= {f"uniform_{old}": f"uniform_{new}" for old, new in names.items() if old != "n"}
    temporal = _means(timed).drop(columns=["target", "pointing_low", "pointing_high"]).rename(columns=names)
    table = _means(spatial).merge(temporal, on=UNIT, how="outer")
    table["target"] = table["target"].astype("object").fillna("")
    for measure in ("pointing", "share", "temporal", "temporal_share"):
        table[f"random_{measure}"] = table.groupby(["target", "site"])[measure].transform("mean")
    table = table.astype({"n": "Int64", "n_timed": "Int64"}).fillna({"n": 0, "n_timed": 0})
    return table.sort_values(["target", "site", "layer", "head"], kind="stable", ignore_index=True)


def pointing_summary(
    rows: pd.DataFrame,
    relevance: pd.DataFrame,
    early: int = 2,
    deep: int = 2,
    score: str = "r",
    seed: int = SEED,
) -> pd.DataFrame:
    """Compare the relevant deep heads with the rest, and correlate all heads' relevance with their scores.

    Of the heads of a site in the deep layers, the half with the higher mean relevance are the relevant ones (of an odd
    number, the larger half); ties go to the lower index. A subject is left out of the scores and of the relevance of
    the same clips together; relevance of other clips (of another split) adds an error of its own to the correlation.

    Args:
        rows: One per clip, head and target.
        relevance: A score table of heads, of the same model.
        early: How many of the first layers are early.
        deep: How many of the last layers are deep.
        score: ``r``, ``jsd`` or ``dprob``: what relevance is measured by.
        seed: Fixes which heads are drawn at random.

    Returns:
        One row per target, site, measure (pointing or share; of the target ``action``, in time) and quantity: value,
        low and high (95 %), heads (how many it is about), clips, groups (subjects). Quantities are the means of the
        relevant deep heads, of all other heads and of the other deep heads, and of a uniform map; the differences of
        the first to the others; Spearman's correlation over all heads; and the mean of as many heads drawn at
        random as are relevant, whose low and high are where 95 % of such draws lie, whatever the number of subjects.

    Raises:
        ValueError: If the relevance is of other heads, or of a race.
    """
    found = []
    for target in sorted(rows["target"].unique()):
        of_target = rows[rows["target"] == target]
        for measure in MEASURES:
            for site, of_site in of_target.groupby("site", observed=True):
                means = _Means(of_site, measure, relevance[relevance["site"] == site], score)
                relevant, others = _relevant_deep(means, early, deep)
                part = pd.DataFrame(_quantities(means, relevant, others, seed))
                found.append(
                    part.assign(target=target, site=site, measure=measure, clips=means.clips, groups=means.groups)
                )
    columns = ["target", "site", "measure", "quantity", "value", "low", "high", "heads", "clips", "groups"]
    return pd.concat(found, ignore_index=True)[columns]


def write_pointing_tables(tables: Mapping[str, pd.DataFrame], folder: Path, split: str) -> list[Path]:
    """Write the table ``heads`` as ``pointing_<split>.csv``, any other as ``pointing_<split>_<name>.csv``."""
    paths = []
    for name, frame in tables.items():
        path = folder / (f"pointing_{split}.csv" if name == "heads" else f"pointing_{split}_{name}.csv")
        write_table(frame, path, float_format="%.6g")
        paths.append(path)
    return paths


def summary_lines(summary: pd.DataFrame) -> list[str]:
    """Say in one line per target and site what the pointing scores of `pointing_summary` tell."""
    lines = []
    for (target, site), part in summary[summary["measure"] == "pointing"].groupby(["target", "site"], observed=True):
        numbers = zip(*(part[name].tolist() for name in ("quantity", "value", "low", "high")), strict=True)
        stated = {quantity: _stated(*interval) for quantity, *interval in numbers}
        said = [
            f"{quantity} {stated[quantity]}"
            for quantity in (RELEVANT, "all other heads", "difference to all other heads", "uniform map", CORRELATION)
            if quantity in stated
        ]
        lines.append(f"Pointing at {target}, {site}: {'; '.join(said)}.")
    return lines


def _stated(value: float, low: float, high: float) -> str:
    return f"{value:.2f}" + ("" if math.isnan(low) else f" ({low:.2f} to {high:.2f})")


class _Means:
    """A site's mean scores and relevance, over all clips and without each subject.

    Attributes:
        units: layer, site and head of the U heads.
        pointing: The heads' mean scores, (U,), and without each subject, (G, U); likewise uniform, () and (G,), and
            relevance. Nothing is left out where subjects are too few.
        together: Whether relevance is of the same clips, and so lacks the same subjects.
        degrees: Degrees of freedom of the intervals of scores.
        clips: Number of clips.
        groups: Number of subjects.
    """

    def __init__(self, rows: pd.DataFrame, measure: str, relevance: pd.DataFrame, score: str) -> None:
        scores, uniform = _wide(rows, measure), _wide(rows, f"uniform_{measure}").iloc[:1]
        own = _wide(relevance, score)
        if list(own.index) != list(scores.index):
            strange = sorted(set(own.index) ^ set(scores.index))
            raise ValueError(
                f"The relevance and the maps are of other heads, e.g. layer, site, head {strange[0]} is not in both. "
                "Score the heads of this model: train.py ablate."
            )
        if own.isna().any(axis=None):
            raise ValueError(
                "Relevance is compared on equal clips, but this table comes from a race. Use sampling full."
            )
        count = len(scores)
        self.together = bool(scores.columns.isin(own.columns).all())
        stacked = [scores, uniform, *([own[scores.columns]] if self.together else [])]
        matrix = _matrix(pd.concat(stacked), rows)
        left = leave_one_out(matrix)
        self.units = matrix.units[:count].reset_index(drop=True)
        self.degrees = math.nan if left is None else float(left.degrees.min())
        of_all = _both(matrix, left)
        self.pointing = tuple(values[..., :count] for values in of_all)
        self.uniform = tuple(values[..., count] for values in of_all)
        self._degrees_of_both = self.degrees
        if self.together:
            self.relevance = tuple(values[..., count + 1 :] for values in of_all)
        else:
            apart = _matrix(own, relevance)
            other = leave_one_out(apart)
            self.relevance = _both(apart, other)
            if other is not None:  # the fewer subjects set how wide an interval is
                self._degrees_of_both = min(self.degrees, float(other.degrees.min()))
        self.clips, self.groups = matrix.values.shape[1], len(np.unique(matrix.group.astype(str)))

    def correlation(self) -> tuple[float, float, float]:
        """Return Spearman's correlation of relevance and scores, and its interval."""
        (relevance, relevance_left), (pointing, pointing_left) = self.relevance, self.pointing
        value = spearman(relevance, pointing)
        if not (len(relevance_left) and len(pointing_left)):
            return float(value), math.nan, math.nan
        if self.together:
            parts = [spearman(relevance_left, pointing_left)]
        else:
            parts = [spearman(np.broadcast_to(relevance, pointing_left.shape), pointing_left)]
            parts += [spearman(relevance_left, np.broadcast_to(pointing, relevance_left.shape))]
        # Errors of other subjects are independent, and add up in squares.
        widths = [symmetric_interval(value, part, self._degrees_of_both)[1] - value for part in parts]
        width = math.hypot(*map(float, widths))
        return float(value), max(float(value) - width, -1.0), min(float(value) + width, 1.0)


def _both(matrix: ScoreMatrix, left: LeftOut | None) -> tuple[Floats, Floats]:
    """Return all units' means, (U,), and without each subject, (G, U); G is 0 where subjects are too few."""
    return (matrix.means, np.empty((0, len(matrix.values)))) if left is None else (left.own, left.means)


def _relevant_deep(means: _Means, early: int, deep: int) -> tuple[Flags, Flags]:
    """Mark the more relevant half of the deep heads, and the other deep heads, (U,) both."""
    depth = means.units["layer"].map(layer_depths(means.units["layer"].tolist(), early, deep))
    is_deep = (depth == "deep").to_numpy()
    places = np.flatnonzero(is_deep)
    order = places[np.argsort(-means.relevance[0][places], kind="stable")]
    relevant = np.zeros(len(is_deep), dtype=bool)
    relevant[order[: math.ceil(len(order) / 2)]] = True
    return relevant, is_deep & ~relevant


def _quantities(means: _Means, relevant: Flags, other_deep: Flags, seed: int) -> Iterator[dict[str, object]]:
    """Yield what is compared: quantity, value, low, high, heads."""
    k = int(relevant.sum())

    def row(quantity: str, values: list[Floats], heads: int) -> dict[str, object]:
        low, high = math.nan, math.nan
        if len(values[1]):
            interval = symmetric_interval if quantity.startswith("difference") else share_interval
            low, high = map(float, interval(values[0], values[1], means.degrees))
        return {"quantity": quantity, "value": float(values[0]), "low": low, "high": high, "heads": heads}

    if k:
        own = [values[..., relevant].mean(axis=-1) for values in means.pointing]
        yield row(RELEVANT, own, k)
        for name, members in (("all other heads", ~relevant), ("other deep heads", other_deep)):
            if members.any():
                rest = [values[..., members].mean(axis=-1) for values in means.pointing]
                yield row(name, rest, int(members.sum()))
                yield row(f"difference to {name}", [a - b for a, b in zip(own, rest, strict=True)], k)
        yield row("uniform map", list(means.uniform), 0)
        yield row("difference to uniform map", [a - b for a, b in zip(own, means.uniform, strict=True)], k)
        yield _random_heads(means.pointing[0], k, seed)
    value, low, high = means.correlation()
    yield {"quantity": CORRELATION, "value": value, "low": low, "high": high, "heads": len(relevant)}


def _random_heads(means: Floats, k: int, seed: int, draws: int = DRAWS) -> dict[str, object]:
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(means, k, replace=False).mean() for _ in range(draws)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"quantity": "random heads", "value": means.mean(), "low": float(low), "high": float(high), "heads": k}


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Average by target and head, with the interval of the pointing score."""
    columns = [*MEASURES, *(f"uniform_{measure}" for measure in MEASURES)]
    frames = []
    for target, part in rows.groupby("target", observed=True):
        wide = _wide(part, "pointing")
        left_out = leave_one_out(_matrix(wide, part))
        low, high = (np.nan, np.nan) if left_out is None else left_out.intervals()
        grouped = part.groupby(UNIT, observed=True, sort=True)
        frame = grouped[columns].mean().assign(n=grouped.size(), pointing_low=low, pointing_high=high)
        frames.append(frame.reset_index().assign(target=target))
    names = ["target", *UNIT, "n", "pointing", "pointing_low", "pointing_high", "share", *columns[2:]]
    return pd.concat(frames, ignore_index=True)[names] if frames else pd.DataFrame(columns=names)


def _wide(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column with one row per head and one column per clip, both sorted."""
    keys = rows[UNIT].astype({"site": str})
    keys = keys.assign(sample_id=rows["sample_id"].astype(str), value=rows[column])
    return keys.pivot(index=UNIT, columns="sample_id", values="value")


def _matrix(wide: pd.DataFrame, rows: pd.DataFrame) -> ScoreMatrix:
    of = rows.drop_duplicates("sample_id").set_index(rows["sample_id"].drop_duplicates().astype(str)).loc[wide.columns]
    units = wide.index.to_frame(index=False)
    labels, groups = of["label"].to_numpy(dtype=np.int64), of["group"].astype(object).to_numpy()
    return ScoreMatrix(units, wide.to_numpy(dtype=float), labels, groups)
