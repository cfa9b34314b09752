"""Which heads to look at: the most and the least relevant, the specialised head of every class, and the general ones.

Everything is read from the score table of heads. A head's relevance to a class is its mean score over that class's
samples. Sites are ranked apart, since a TimeSformer's temporal and spatial heads do different work. Ties go to the
lower index. The layers' depth (early, intermediate, deep) is counted over the layers that the model has, so that it
also has a meaning once some were pruned; layers keep their original index.

A raced table is refused: its heads saw different samples, so there is no head that is best on the same ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sightline.relevance.matrix import score_matrix
from sightline.statistics.bootstrap import RESAMPLES, SEED, ResampledMeans, chosen, resampled_means
from sightline.statistics.matrix import Floats, ScoreMatrix
from sightline.statistics.subject_intervals import LeftOut, leave_one_out, symmetric_interval

DEPTHS = ("early", "intermediate", "deep")
By = Literal["data set", "class", "sample"]
Flags = NDArray[np.bool_]


def default_ends(end_layers: int, layers: int) -> int:
    """Return how many layers count as early, and as deep, where nobody says: fewer in a model of few layers.

    Args:
        end_layers: What the backbone says, `Backbone.end_layers`.
        layers: Number of layers that were scored.
    """
    return min(end_layers, layers // 2)


def layer_depths(layers: Collection[int], early: int = 2, deep: int = 2) -> dict[int, str]:
    """Return the depth of every layer by its original index: one of `DEPTHS`.

    Args:
        layers: Original indices of the layers that the model has.
        early: How many of the first layers are early.
        deep: How many of the last layers are deep.

    Raises:
        ValueError: If either is negative, or a layer would be both.
    """
    order = sorted(set(layers))
    if early < 0 or deep < 0 or early + deep > len(order):
        raise ValueError(
            f"Expected early and deep layers that do not overlap, at least 0 of each; got {early} early and {deep} "
            f"deep of {len(order)} layers. Choose fewer."
        )
    last = len(order) - deep
    return {
        layer: "early" if place < early else "deep" if place >= last else "intermediate"
        for place, layer in enumerate(order)
    }


def extreme_heads(
    table: pd.DataFrame,
    by: By = "data set",
    class_names: Sequence[str] = (),
    early: int = 2,
    deep: int = 2,
    score: str = "r",
) -> pd.DataFrame:
    """Find the most and the least relevant head of every site at every depth.

    Args:
        table: A score table of heads.
        by: Whether by the mean over the whole data set, over every class, or by every single sample.
        class_names: Names of the classes by label.
        early: How many of the first layers are early.
        deep: How many of the last layers are deep.
        score: ``r``, ``jsd`` or ``dprob``.

    Returns:
        Of a class, label and class come first; of a sample, sample_id, label and class. Then n (samples), site, depth
        (``all`` or one of `DEPTHS`), extreme (``most`` or ``least``), layer, head and mean (of one sample, its score).
    """
    matrix = head_matrix(table, score)
    values, what = _values_by(matrix, table, by, class_names)
    depth = layer_depths(matrix.units["layer"].tolist(), early, deep)
    at = matrix.units["layer"].map(depth).to_numpy()
    frames = []
    for site, of_site in sites(matrix):
        for name in ("all", *DEPTHS):
            rows = np.flatnonzero(of_site & ((at == name) | (name == "all")))
            if not len(rows):
                continue
            # numpy takes the first of equals, which is the lower index.
            for extreme, best in (("most", values[rows].argmax(axis=0)), ("least", values[rows].argmin(axis=0))):
                heads = matrix.units.iloc[rows[best]][["layer", "head"]].reset_index(drop=True)
                means = values[rows[best], np.arange(values.shape[1])]
                frames.append(what.assign(site=site, depth=name, extreme=extreme, **heads, mean=means))
    found = pd.concat(frames)
    # One class (or sample) after the other, and within it in the order in which they were found.
    return found.sort_index(kind="stable").reset_index(drop=True)


def specialised_heads(
    table: pd.DataFrame,
    class_names: Sequence[str],
    last: int = 2,
    score: str = "r",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Find the most relevant head of every class among the last layers, and how sure it is.

    The interval is of the difference to the head that came second, both as chosen on all samples; it respects subjects
    (see `sightline.statistics.subject_intervals`). ``picked`` looks at all heads anew in every resample, and so is what
    tells how sure the choice is.

    Args:
        table: A score table of heads.
        class_names: Names of the classes by label.
        last: How many of the last layers to choose from.
        score: ``r``, ``jsd`` or ``dprob``.
        resamples: How often to resample a class's samples.
        seed: Fixes the resamples.

    Returns:
        One row per site and class: site, label, class, n (samples), groups (subjects), layer, head, mean, second_layer,
        second_head, second_mean, margin, margin_low, margin_high (95 %; missing with fewer than 8 groups), picked
        (share of resamples in which this head is the most relevant) and resampled (``groups``; ``samples`` is too
        optimistic). Where a site has one head alone, what concerns the second is missing.
    """
    if last < 1:
        raise ValueError(f"Expected specialised heads to be chosen from at least 1 last layer, got {last}.")
    matrix = head_matrix(table, score)
    matrix = matrix.subset(matrix.units["layer"].isin(sorted(set(matrix.units["layer"]))[-last:]).to_numpy())
    rows = []
    for label in np.unique(matrix.label):
        own = matrix.label == label
        of_class = ScoreMatrix(matrix.units, matrix.values[:, own], matrix.label[own], matrix.group[own])
        drawn, left_out = resampled_means(of_class, resamples, seed), leave_one_out(of_class)
        for site, of_site in sites(matrix):
            rows.append({"site": site, "label": label, **_specialised(of_class, drawn, left_out, of_site)})
    found = pd.DataFrame(rows).sort_values(["site", "label"], kind="stable", ignore_index=True)
    found.insert(2, "class", _names(found["label"].to_numpy(), class_names))
    return found.astype({name: "Int64" for name in ("layer", "head", "second_layer", "second_head")})


def shared_heads(specialised: pd.DataFrame) -> pd.DataFrame:
    """Group the classes by the head that they share.

    Args:
        specialised: What `specialised_heads` returned.

    Returns:
        One row per head: site, layer, head, classes (how many), names (separated by ``; ``); within a site, the head
        of most classes first.
    """
    grouped = specialised.groupby(["site", "layer", "head"], sort=True)["class"]
    shared = grouped.agg(classes="count", names="; ".join).reset_index()
    return shared.sort_values(["site", "classes"], ascending=[True, False], kind="stable", ignore_index=True)


def head_generality(table: pd.DataFrame, score: str = "r") -> pd.DataFrame:
    """Tell of every head on how much of the data it is relevant.

    A head counts as relevant on a class (or a sample) where its mean (its score) is above the median of all heads of
    its site there. A general head is relevant on every class.

    Args:
        table: A score table of heads.
        score: ``r``, ``jsd`` or ``dprob``.

    Returns:
        One row per head: layer, site, head, mean, classes, classes_above, samples, samples_above, general; those that
        are relevant on most classes first, then on most samples.
    """
    matrix = head_matrix(table, score)
    means, _ = _class_means(matrix)
    above, above_of_samples = np.zeros(len(means), dtype=int), np.zeros(len(means), dtype=int)
    for _, own in sites(matrix):
        above[own] = (means[own] > np.median(means[own], axis=0)).sum(axis=1)
        above_of_samples[own] = (matrix.values[own] > np.median(matrix.values[own], axis=0)).sum(axis=1)
    found = matrix.units.assign(
        mean=matrix.means,
        classes=means.shape[1],
        classes_above=above,
        samples=matrix.values.shape[1],
        samples_above=above_of_samples,
        general=above == means.shape[1],
    )
    order = ["site", "classes_above", "samples_above"]
    return found.sort_values(order, ascending=[True, False, False], kind="stable", ignore_index=True)


def head_matrix(table: pd.DataFrame, score: str = "r") -> ScoreMatrix:
    """Turn a score table of heads into an array.

    Raises:
        ValueError: If the table is of layers or of a race, or the score is unknown.
    """
    matrix = score_matrix(table, score)
    if matrix.units["head"].isna().any():
        raise ValueError("Choosing heads needs a score table of heads, got one of layers. Read heads.parquet.")
    if not matrix.complete:
        raise ValueError(
            "Choosing heads needs every head on every sample, but this table comes from a race. Score the heads again "
            "with sampling full: train.py ablate --sampling full --overwrite true."
        )
    return matrix


def sites(matrix: ScoreMatrix) -> Iterator[tuple[str, Flags]]:
    """Yield the name of every site, in alphabetical order, and which units are its heads, (U,)."""
    of = matrix.units["site"].to_numpy()
    for site in np.unique(of.astype(str)):
        yield str(site), of == site


def _values_by(matrix: ScoreMatrix, table: pd.DataFrame, by: By, names: Sequence[str]) -> tuple[Floats, pd.DataFrame]:
    """Return the units' values (U, S), and of what each of the S columns is."""
    if by == "data set":
        return matrix.means[:, None], pd.DataFrame({"n": [matrix.values.shape[1]]})
    if by == "class":
        means, labels = _class_means(matrix)
        n = [int((matrix.label == label).sum()) for label in labels]
        return means, pd.DataFrame({"label": labels, "class": _names(labels, names), "n": n})
    if by == "sample":
        ids = table["sample_id"].drop_duplicates().to_numpy()  # in the matrix's order
        what = {"sample_id": ids, "label": matrix.label, "class": _names(matrix.label, names), "n": 1}
        return matrix.values, pd.DataFrame(what)
    raise ValueError(f"Heads are chosen by 'data set', 'class' or 'sample', got {by!r}.")


def _class_means(matrix: ScoreMatrix) -> tuple[Floats, NDArray[np.int64]]:
    """Return the units' means on every class that occurs, (U, C), and the classes' labels."""
    labels, codes = np.unique(matrix.label, return_inverse=True)
    sums, counts = matrix.sums_by(codes.astype(np.int64), len(labels))
    return sums / counts, labels


def _names(labels: NDArray[np.int64], class_names: Sequence[str]) -> list[str]:
    return [class_names[label] if label < len(class_names) else str(label) for label in labels]


def _specialised(
    of_class: ScoreMatrix, drawn: ResampledMeans, left_out: LeftOut | None, of_site: Flags
) -> dict[str, object]:
    """Choose the head of one class and site, and state how sure it is."""
    places = np.flatnonzero(of_site)
    order = places[np.argsort(-of_class.means[places], kind="stable")]
    best, second = order[0], order[1] if len(order) > 1 else None
    low = high = np.nan
    if second is not None and left_out is not None:
        own, without = (values[..., best] - values[..., second] for values in (left_out.own, left_out.means))
        low, high = map(float, symmetric_interval(own, without, left_out.degrees[best]))
    again = chosen(drawn.means[:, places], 1, "highest")[:, places == best]
    mean, head = of_class.means, of_class.units
    return {
        "n": of_class.values.shape[1],
        "groups": len(np.unique(of_class.group.astype(str))),
        "layer": head["layer"].iloc[best],
        "head": head["head"].iloc[best],
        "mean": mean[best],
        "second_layer": None if second is None else head["layer"].iloc[second],
        "second_head": None if second is None else head["head"].iloc[second],
        "second_mean": np.nan if second is None else mean[second],
        "margin": np.nan if second is None else mean[best] - mean[second],
        "margin_low": low,
        "margin_high": high,
        "picked": again.mean(),
        "resampled": drawn.resampled,
    }
