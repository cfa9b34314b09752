"""Pruned models over several runs: accuracy and cost, agreement of the removed layers, and the three scores compared.

Runs of one backbone (seeds) are averaged. Of plans that are drawn several times in every run (random), a run's value is
the mean over its draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from sightline.report.comparison.intervals import WAY, subject_intervals
from sightline.report.comparison.runs import Runs
from sightline.report.tables.outcomes import accuracy_by
from sightline.report.tables.pruning import RELEVANCE_SCORES, UNPRUNED, layers_and_heads_alone, reference_rows

MEASURES = [
    "top1", "mean_class_acc", "params", "params_change_pct", "macs", "macs_change_pct", "latency_ms_b1", "clips_per_s",
    "latency_iqr_ms_b1", "clips_per_s_iqr",
]  # fmt: skip
SPEED = ["clips_per_s", "clips_per_s_iqr"]
SAME_IN_EVERY_RUN = ("random", "last")
"""Methods whose sets say nothing of the run: their agreement between runs means nothing."""
CLASSES_TOLD = 3


def accuracy_table(runs: Runs) -> pd.DataFrame:
    """Compare accuracy and cost (the thesis' table 5.1), averaged over runs.

    Returns:
        `WAY`; runs (how many); top1, top1_sd (over runs, one less in the divisor) and top1_by_run; top1_low and
        top1_high, and change, change_low and change_high in points against the unpruned models, 95 % intervals that
        are over the subjects of all runs together, missing with fewer than 8 subjects; subjects; mean_class_acc
        and its sd; params, multiply-adds and measured speed; speedup (clips per second against the unpruned model of
        the same run, where both were timed in one measurement) and speedup_iqr (interquartile range that the repeats
        of the two leave it, mean over runs); timing_waited_pct (largest of the runs); and the
        classes that lose most, with the mean points they lose.
    """
    by_run = _by_run(runs.models)
    ways = by_run.groupby(level=WAY, sort=False)
    table = ways.mean()
    table.insert(0, "runs", ways.size())
    table.insert(2, "top1_sd", ways["top1"].std())
    table.insert(3, "top1_by_run", ways["top1"].agg(lambda values: " ".join(f"{value:.1f}" for value in values)))
    table.insert(list(table).index("mean_class_acc") + 1, "mean_class_acc_sd", ways["mean_class_acc"].std())
    table["timing_waited_pct"] = runs.models.groupby(WAY, sort=False)["timing_waited_pct"].max()
    table = table.join(subject_intervals(runs)).join(_classes_that_lose(runs))
    ends = ["change", "change_low", "change_high", "top1_low", "top1_high", "subjects"]
    order = ["runs", "top1", "top1_sd", "top1_by_run", *ends]
    return table[[*order, *(name for name in table if name not in order)]].reset_index()


def method_table(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Set all methods side by side at every depth.

    Args:
        accuracy: From `accuracy_table`; of several relevance scores the first counts, and heads, token reduction and
            other number formats and runtimes are left out.

    Returns:
        backbone, k, then for every method its top1 and, in a column ending with `` sd``, its spread. Controls are named
        with their mode; the unpruned model is k 0 and stands in the column ``unpruned``.
    """
    accuracy = accuracy[layers_and_heads_alone(accuracy)]
    scores = [score for score in RELEVANCE_SCORES if score in set(accuracy["score"])]
    rows = accuracy[~accuracy["score"].isin(scores[1:]) & ~accuracy["method"].str.endswith("heads")]
    baseline = ~rows["score"].isin(scores)
    name = rows["method"].where(baseline, rows["method"] + " " + rows["mode"]).str.replace("_", " ")
    rows = rows.assign(name=name.where(rows["mode"] != UNPRUNED, "unpruned"))
    key = ["backbone", "k"]
    wide = rows.pivot(index=key, columns="name", values=["top1", "top1_sd"])
    names = list(dict.fromkeys(rows["name"]))
    columns = {
        (name + end): wide[measure, name] for name in names for measure, end in (("top1", ""), ("top1_sd", " sd"))
    }
    order = pd.MultiIndex.from_frame(rows[key].drop_duplicates().sort_values("k", kind="stable"))
    backbones = list(dict.fromkeys(rows["backbone"]))
    found = pd.DataFrame(columns).reindex(order).reset_index()
    return found.sort_values("backbone", key=lambda s: s.map(backbones.index), kind="stable", ignore_index=True)


def _classes_that_lose(runs: Runs) -> pd.Series:
    classes = accuracy_by(runs.outcomes, runs.models, "class")
    change = classes.groupby([*WAY, "class"], sort=False)["change"].mean()

    def told(values: pd.Series) -> str:
        lost = values[values < 0].droplevel(list(range(len(WAY)))).sort_values(kind="stable")[:CLASSES_TOLD]
        return ", ".join(f"{name} {value:.1f}" for name, value in lost.items())

    return change.groupby(level=WAY, sort=False).agg(told).rename("classes_that_lose_most")


def removed_layers_table(models: pd.DataFrame) -> pd.DataFrame:
    """Compare which layers go in each run (the thesis' table 5.2), and how far the runs agree.

    Args:
        models: Of several runs, see `Runs`.

    Returns:
        `WAY`, runs, removed_by_run (sets divided by ``|``), agreement (mean over pairs of runs of the Jaccard index of
        their sets; missing of one run), removed_in (every layer with the number of runs that removed it). Only of
        models with all tokens, in fp32: the same layers go where these change.
    """
    models = models[(models["mode"] != UNPRUNED) & (models["removed_heads"] == "") & layers_and_heads_alone(models)]
    models = models[~models["method"].isin(SAME_IN_EVERY_RUN)]
    rows = []
    for way, same in models.groupby(WAY, sort=False):
        sets = [{int(layer) for layer in removed.split()} for removed in same["removed_layers"]]
        counts = {layer: sum(layer in some for some in sets) for layer in sorted(set().union(*sets))}
        told = " ".join(f"{layer}:{count}" for layer, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
        rows.append((*way, len(sets), " | ".join(same["removed_layers"]), mean_jaccard(sets), told))
    return pd.DataFrame(rows, columns=[*WAY, "runs", "removed_by_run", "agreement", "removed_in"])


def mean_jaccard(sets: Sequence[set[int]]) -> float:
    """Return the mean over all pairs of |A and B| / |A or B|; not a number of a single set."""
    indices = [len(a & b) / len(a | b) for a, b in combinations(sets, 2)]
    return float(np.mean(indices)) if indices else float("nan")


def score_table(models: pd.DataFrame) -> pd.DataFrame:
    """Compare what ranking by r, jsd and dprob keeps (the thesis' table 5.3).

    Args:
        models: Of several runs, see `Runs`.

    Returns:
        backbone, mode, k; for every score that was used its top1 and sd over runs, and for all but the first the mean
        agreement (Jaccard) with the first one's set in the same run. Empty where relevance went by one score only.
    """
    one_shot = (models["method"] == "relevance") & (models["mode"] != UNPRUNED)
    models = models[one_shot & layers_and_heads_alone(models)]
    scores = [score for score in RELEVANCE_SCORES if score in set(models["score"])]
    key = ["backbone", "mode", "k"]
    if len(scores) < 2:
        return pd.DataFrame(columns=key)
    columns: dict[str, pd.Series] = {}
    for score in scores:
        top1 = models[models["score"] == score].groupby(key, sort=False)["top1"]
        columns |= {f"top1_{score}": top1.mean(), f"top1_{score}_sd": top1.std()}
    sets = models.pivot(index=["run", *key], columns="score", values="removed_layers")[scores].dropna()
    for score in scores[1:]:
        pairs = sets[[scores[0], score]].map(lambda removed: set(removed.split()))
        same = pairs.apply(lambda pair: mean_jaccard(list(pair)), axis=1)
        columns[f"agreement_{score}_{scores[0]}"] = same.groupby(level=key).mean()
    return pd.DataFrame(columns).reindex(columns[f"top1_{scores[0]}"].index).reset_index()


def averaged_draws(models: pd.DataFrame) -> pd.DataFrame:
    """Make one row per run of plans that were drawn several times, for figures; other columns are the first draw's."""
    measures = ["macs", "top1"]
    means = models.astype(dict.fromkeys(measures, "float64")).groupby(["run", *WAY], sort=False)
    first = means.first()
    first[measures] = means[measures].mean()
    several = means.size() > 1
    first.loc[several, ["top1_low", "top1_high"]] = np.nan
    return first.reset_index()


def _by_run(models: pd.DataFrame) -> pd.DataFrame:
    """Average the draws of every run, and set speed against that of the run's unpruned model."""
    reference = models[reference_rows(models)].drop_duplicates("run").set_index("run")
    full = reference.loc[models["run"], [*SPEED, "timing_run"]].set_index(models.index)
    models = models.astype(dict.fromkeys(MEASURES, "float64"))
    # Machines drift: times of different measurements are not set against each other.
    together = models["timing_run"] == full["timing_run"]
    models["speedup"] = (models["clips_per_s"] / full["clips_per_s"]).where(together)
    # Relative errors of a ratio's two parts add up in squares.
    own, of_full = (part["clips_per_s_iqr"] / part["clips_per_s"] for part in (models, full))
    relative = np.hypot(own.astype("float64"), of_full.astype("float64"))
    models["speedup_iqr"] = (models["speedup"] * relative).where(~reference_rows(models))
    return models.groupby([*WAY, "run"], sort=False)[[*MEASURES, "speedup", "speedup_iqr"]].mean()
