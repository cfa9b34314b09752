"""Does relevance choose well, and would it choose the same again?"""

from __future__ import annotations

import pandas as pd

from sightline.relevance.race_settings import promise_of
from sightline.report.numbers import fixed, signed
from sightline.report.tables.pruning import RELEVANCE_SCORES, layers_and_heads_alone
from sightline.report.verdict.cut_rules import Cut
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Finding, Grade
from sightline.report.verdict.pairs import compared, listed, points
from sightline.statistics.paired_change import PairedChange

STABLE = 0.9
"""Share of resampled data sets that should choose the same layers."""
METHODS = "set methods: [relevance, random, last] of callbacks.PrunedCheckpoints in the run's config.yaml, then"
"""How other ways of choosing are tested beside relevance."""

Depths = dict[int, PairedChange]
"""By number of removed layers, what relevance keeps more than another way."""


def lowest_beats_highest(evidence: Evidence) -> Finding | None:
    """Does removing the least relevant layers keep more than removing the most relevant ones?"""
    name = "lowest_beats_highest"
    if not _plans(evidence, "relevance", "lowest"):
        return None
    found = _against(evidence, "relevance", "highest")
    if not found and _alike(evidence, "relevance", "highest"):
        return None  # every layer was removed
    if not found:
        told = "Whether relevance tells layers apart is not known: the control, highest, was not tested."
        advice = "Set modes: [lowest, highest] of callbacks.PrunedCheckpoints in the run's config.yaml, then"
        return Finding(name, Grade.UNKNOWN, told, "", advice, evidence.command("prune"))
    told = f"Removing the least relevant layers keeps more than removing the most relevant: {_ahead(found)}."
    if all(change.above for change in found.values()):
        return Finding(name, Grade.GOOD, told)
    advice = "Cut by another way of choosing, or train a better model first."
    if not any(change.above for change in found.values()):
        told = f"Removing the least relevant layers keeps no more than removing the most relevant: {_ahead(found)}."
        return Finding(name, Grade.BAD, told, "relevance does not tell layers apart", advice)
    told = f"At some depths only, the least relevant layers are better to remove than the most: {_ahead(found)}."
    return Finding(name, Grade.CAUTION, told, "lowest does not beat highest at every depth", advice)


def lowest_beats_random(evidence: Evidence) -> Finding | None:
    """Does relevance choose better than chance?"""
    name = "lowest_beats_random"
    if not _plans(evidence, "relevance", "lowest"):
        return None
    found = _against(evidence, "random")
    if not found:
        told = "Whether relevance is better than random layers is not known: they were not tested."
        return Finding(name, Grade.UNKNOWN, told, "", f"To test them, {METHODS}", evidence.command("prune"))
    draws = max(len(plans) for plans in _plans(evidence, "random").values())
    drawn = f"random layers (mean of {draws} draws)" if draws > 1 else "one random draw"
    if all(change.above for change in found.values()):
        return Finding(name, Grade.GOOD, f"Relevance keeps more than {drawn}: {_ahead(found)}.")
    told = f"Relevance does not always keep more than {drawn}: {_ahead(found)}."
    advice = "Take the cut for what its own test says, not for its relevance."
    return Finding(name, Grade.CAUTION, told, "lowest does not beat random at every depth", advice)


def beats_last(evidence: Evidence) -> Finding | None:
    """Would cutting the last layers, which needs no scores, do as well?"""
    found, alike = _against(evidence, "last"), _alike(evidence, "last")
    if not found and not alike:
        return None
    also = f" {_at(alike).capitalize()} both remove the same ones." if alike else ""
    if any(change.above for change in found.values()) and not any(change.below for change in found.values()):
        told = f"Relevance keeps more than cutting the last layers: {_ahead(found)}.{also}"
        return Finding("beats_last", Grade.GOOD, told)
    keeps = (
        f": relevance keeps {_ahead(found)}.{also}" if found else f": {_at(alike)} they are the least relevant ones."
    )
    told = f"Cutting the last layers, which needs no scores, does as well{keeps}"
    return Finding("beats_last", Grade.GOOD, told)


def same_set(evidence: Evidence, cut: Cut | None) -> Finding | None:
    """Would other training subjects have chosen the same layers?"""
    if evidence.race is not None:
        told = f"{promise_of(evidence.race)} Whether other subjects would choose the same layers, no race can say."
        if evidence.race.get("method") == "guaranteed":
            return Finding("same_set", Grade.UNKNOWN, told)
        advice = "Score all clips:"
        command = evidence.command("ablate", "--sampling", "full", "--overwrite", "true")
        return Finding("same_set", Grade.CAUTION, told, "the ranking is of an approximate race", advice, command)
    k = _depth(cut)
    rows = _lowest(evidence.stability, cut, k)
    if rows is None:
        return None
    share, grouped = float(rows["same_set"].iloc[0]), bool((rows["resampled"] == "groups").all())
    one = "layer" if k == 1 else f"{k} layers"
    told = f"Resampled training {'subjects' if grouped else 'clips'} choose the same {one} in {fixed(100 * share, 1)} %"
    doubtful = 1 - rows.loc[rows["chosen"].astype(str) == "True", "share"].min()
    if share < STABLE:
        advice = "Other layers look equally right: test them too (methods: [greedy]), and train other seeds."
        told = f"{told}: the least sure of them is replaced in {fixed(100 * doubtful, 0)} %."
        return Finding("same_set", Grade.CAUTION, told, "the ranking is not stable", advice)
    if not grouped:
        told = f"{told}, which is too optimistic: there are too few training subjects to resample."
        advice = "Train other seeds and compare the sets:"
        command = "python train.py compare --runs <runs> --out runs/comparison"
        return Finding(
            "same_set", Grade.CAUTION, told, "too few training subjects to judge the ranking", advice, command
        )
    return Finding("same_set", Grade.GOOD, f"{told}: the ranking is stable for this trained model.")


def clear_gap(evidence: Evidence, cut: Cut | None) -> Finding | None:
    """Is the last layer cut really below the first one kept, or is that rounding?"""
    rows = _lowest(evidence.gaps, cut, _depth(cut))
    if rows is None or str(rows["clear"].iloc[0]).lower() != "false":
        return None
    row = rows.iloc[0]
    told = f"{row['last_cut']} (cut) and {row['first_kept']} (kept) differ by no more than rounding."
    advice = "Either could go; do not read meaning into the choice."
    return Finding("clear_gap", Grade.CAUTION, told.capitalize(), "rounding decides the last layer cut", advice)


def _depth(cut: Cut | None) -> int:
    return cut.row.k if cut is not None and cut.row.method == "relevance" and not cut.row.removed_heads else 1


def _lowest(table: pd.DataFrame | None, cut: Cut | None, k: int) -> pd.DataFrame | None:
    """Return the rows on the set of lowest score that a cut, or else a first layer, is of."""
    if table is None or (cut is not None and (cut.row.method != "relevance" or cut.row.removed_heads)):
        return None
    score = table["score"].iloc[0] if cut is None else cut.row.score
    rows = table[(table["score"] == score) & (table["mode"] == "lowest") & (table["k"] == k)]
    return None if rows.empty else rows


def _plans(evidence: Evidence, method: str, mode: str = "") -> dict[int, list[str]]:
    """Return the tested models that lack layers chosen by a method, and nothing else, by depth; of one score."""
    models = evidence.models
    if models is None:
        return {}
    rows = models[layers_and_heads_alone(models) & (models["k"] > 0) & (models["removed_heads"] == "")]
    rows = rows[(rows["method"] == method) & (rows["mode"] == mode if mode else True)]
    used = [score for score in RELEVANCE_SCORES if score in set(rows["score"])]
    rows = rows[rows["score"] == used[0]] if used else rows
    tested = rows[rows["plan_id"].isin(list(evidence.outcomes))]
    return {k: tested.loc[tested["k"] == k, "plan_id"].tolist() for k in sorted(set(tested["k"].tolist()))}


def _against(evidence: Evidence, method: str, mode: str = "") -> Depths:
    """Compare relevance with another way, clip by clip, at every depth that both were tested at.

    Where both removed the same layers there is one model and nothing to compare. (A random draw of them is a draw.)
    """
    own, other = _plans(evidence, "relevance", "lowest"), _plans(evidence, method, mode)
    alike = [] if method == "random" else _alike(evidence, method, mode)
    found = {}
    for k in sorted(set(own) & set(other) - set(alike)):
        sides = [[evidence.outcomes[plan] for plan in plans] for plans in (own[k], other[k])]
        change = compared(sides[0], sides[1])
        if change is not None:
            found[k] = change
    return found


def _alike(evidence: Evidence, method: str, mode: str = "") -> list[int]:
    """Return the depths at which relevance and another way removed the same layers."""
    own, other = _plans(evidence, "relevance", "lowest"), _plans(evidence, method, mode)
    removed = {} if evidence.models is None else evidence.models.set_index("plan_id")["removed_layers"].to_dict()
    return [k for k in sorted(set(own) & set(other)) if len({removed[plan] for plan in [*own[k], *other[k]]}) == 1]


def _at(depths: list[int]) -> str:
    """Write e.g. "at 1 and 3 layers"."""
    return f"at {listed([str(k) for k in depths], 6)} layer{'' if depths == [1] else 's'}"


def _ahead(found: Depths) -> str:
    """Say by how much, at one depth with its interval, at several in short and which of them are not clear."""
    if len(found) == 1:
        ((k, change),) = found.items()
        return f"{points(change)} {_at([k])}"
    values = [signed(100 * change.change, 1) for change in found.values()]
    unclear = [str(k) for k, change in found.items() if not (change.above or change.below)]
    sure = "each clear of 0" if not unclear else f"not clear at {listed(unclear, 6)}"
    return f"{listed(values, 6)} points {_at(list(found))} ({sure})"
