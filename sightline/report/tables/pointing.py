"""What the pointing scores of heads say: a table of all heads, and whether relevant deep heads look at what matters.

The scores are those of `sightline.explain.metrics.pointing_job`, one row per clip, head and target. Intervals resample
whole subjects (see `sightline.statistics.bootstrap`); with fewer than 8 there are none.
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
from sightline.statistics.bootstrap import RESAMPLES, SEED, ResampledMeans, mean_intervals, resampled_means
from sightline.statistics.matrix import Floats, ScoreMatrix
from sightline.statistics.rank_correlation import spearman

MEASURES = ("pointing", "share")
RELEVANT = "relevant deep heads"
CORRELATION = "Spearman's correlation with relevance"
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
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Compare the relevant deep heads with the rest, and correlate all heads' relevance with their scores.

    Of the heads of a site in the deep layers, the half with the higher mean relevance are the relevant ones (of an odd
    number, the larger half); ties go to the lower index. The relevance of the same clips is resampled together with
    their scores; that of other clips (of another split) by itself.

    Args:
        rows: One per clip, head and target.
        relevance: A score table of heads, of the same model.
        early: How many of the first layers are early.
        deep: How many of the last layers are deep.
        score: ``r``, ``jsd`` or ``dprob``: what relevance is measured by.
        resamples: How often to resample.
        seed: Fixes the resamples.

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
                drawn = _Drawn(of_site, measure, relevance[relevance["site"] == site], score, resamples, seed)
                relevant, others = _relevant_deep(drawn, early, deep)
                part = pd.DataFrame(_quantities(drawn, relevant, others, seed))
                found.append(
                    part.assign(target=target, site=site, measure=measure, clips=drawn.clips, groups=drawn.groups)
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


class _Drawn:
    """A site's mean scores and relevance, as found (1, U) and on resampled subjects (R, U).

    Attributes:
        units: layer, site and head of the U heads.
        pointing: (1, U) and (R, U); likewise uniform (1, 1) and (R, 1) and relevance.
        clips: Number of clips.
        groups: Number of subjects.
    """

    def __init__(
        self, rows: pd.DataFrame, measure: str, relevance: pd.DataFrame, score: str, resamples: int, seed: int
    ) -> None:
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
        together = scores.columns.isin(own.columns).all()
        stacked = [scores, uniform, *([own[scores.columns]] if together else [])]
        matrix = _matrix(pd.concat(stacked), rows)
        self.sample = resampled_means(matrix, resamples, seed)
        means = (matrix.means[None], self.sample.means)
        self.units = matrix.units[:count].reset_index(drop=True)
        self.pointing = tuple(values[:, :count] for values in means)
        self.uniform = tuple(values[:, count : count + 1] for values in means)
        if together:
            self.relevance = tuple(values[:, count + 1 :] for values in means)
        else:
            other = _matrix(own, relevance)
            apart = resampled_means(other, resamples, seed + 1)
            self.relevance = (other.means[None], apart.means)
            # Both must be of groups to be honest, and the fewer of them set how wide an interval is.
            if apart.resampled != self.sample.resampled or apart.clusters < self.sample.clusters:
                self.sample = ResampledMeans(
                    self.sample.means,
                    "groups" if apart.resampled == self.sample.resampled == "groups" else "samples",
                    min(apart.clusters, self.sample.clusters),
                )
        self.clips, self.groups = matrix.values.shape[1], len(np.unique(matrix.group.astype(str)))

    def interval(self, values: Floats) -> tuple[float, float]:
        """Return the 95 % interval of a quantity from its values on the resamples, (R,)."""
        if np.isnan(values).all():
            return math.nan, math.nan
        ends = mean_intervals(ResampledMeans(values[:, None], self.sample.resampled, self.sample.clusters))
        return (math.nan, math.nan) if ends is None else (float(ends[0][0]), float(ends[1][0]))


def _relevant_deep(drawn: _Drawn, early: int, deep: int) -> tuple[Flags, Flags]:
    """Mark the more relevant half of the deep heads, and the other deep heads, (U,) both."""
    depth = drawn.units["layer"].map(layer_depths(drawn.units["layer"].tolist(), early, deep))
    is_deep = (depth == "deep").to_numpy()
    places = np.flatnonzero(is_deep)
    order = places[np.argsort(-drawn.relevance[0][0][places], kind="stable")]
    relevant = np.zeros(len(is_deep), dtype=bool)
    relevant[order[: math.ceil(len(order) / 2)]] = True
    return relevant, is_deep & ~relevant


def _quantities(drawn: _Drawn, relevant: Flags, other_deep: Flags, seed: int) -> Iterator[dict[str, object]]:
    """Yield what is compared: quantity, value, low, high, heads."""
    k = int(relevant.sum())

    def row(quantity: str, values: list[Floats], heads: int) -> dict[str, object]:
        low, high = drawn.interval(values[1])
        return {"quantity": quantity, "value": float(values[0][0]), "low": low, "high": high, "heads": heads}

    if k:
        own = [values[:, relevant].mean(axis=1) for values in drawn.pointing]
        yield row(RELEVANT, own, k)
        for name, members in (("all other heads", ~relevant), ("other deep heads", other_deep)):
            if members.any():
                rest = [values[:, members].mean(axis=1) for values in drawn.pointing]
                yield row(name, rest, int(members.sum()))
                yield row(f"difference to {name}", [a - b for a, b in zip(own, rest, strict=True)], k)
        uniform = [values[:, 0] for values in drawn.uniform]
        yield row("uniform map", uniform, 0)
        yield row("difference to uniform map", [a - b for a, b in zip(own, uniform, strict=True)], k)
        yield _random_heads(drawn.pointing[0][0], k, seed)
    both = zip(drawn.relevance, drawn.pointing, strict=True)
    yield row(CORRELATION, [spearman(a, b) for a, b in both], len(relevant))


def _random_heads(means: Floats, k: int, seed: int, draws: int = RESAMPLES) -> dict[str, object]:
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
        ends = mean_intervals(resampled_means(_matrix(wide, part)))
        low, high = (np.nan, np.nan) if ends is None else ends
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
