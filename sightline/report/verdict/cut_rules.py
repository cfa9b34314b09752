"""Which cut to propose, what it loses, and who loses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sightline.report.numbers import fixed
from sightline.report.tables.pruning import reference_rows
from sightline.report.tables.pruning_layout import reduction_labels
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Finding, Grade
from sightline.report.verdict.pairs import based_on, compared, listed, points, right, top1
from sightline.statistics.few_subjects import caution
from sightline.statistics.paired_change import PairedChange, sign_test

SMALL_LOSS = 1.0
"""Points of top-1 that a cut may lose to be proposed: the usual target, ``max_drop: 1.0``."""
CLASS_LOSS = 10.0
"""Points that a single class may lose before it is named."""
ERROR = 0.05
"""Chance of naming any class although none loses; shared among the classes (Bonferroni)."""


@dataclass(frozen=True)
class Cut:
    """A tested model in the full one's place.

    Attributes:
        row: Its row of the table of tested models.
        change: Of its top-1 against the full model's, as a share.
        by_target: Whether it was chosen by a target, on validation clips.
    """

    row: Any
    change: PairedChange
    by_target: bool = False

    @property
    def small(self) -> bool:
        """Whether it loses little, as far as the test clips show."""
        return self.change.change >= -SMALL_LOSS / 100


def proposals(evidence: Evidence) -> list[Cut]:
    """Return the models that could be proposed: controls and random draws are not."""
    return [cut for cut in all_cuts(evidence) if cut.row.mode != "highest" and cut.row.method != "random"]


def all_cuts(evidence: Evidence) -> list[Cut]:
    """Return all models that are known clip by clip beside the full one, those of fewest multiply-adds first."""
    models, full = evidence.models, evidence.test
    if models is None or full is None or "sample_id" not in full:
        return []
    found = []
    row: Any
    for row in models[~reference_rows(models)].sort_values("macs", kind="stable").itertuples(index=False):
        predictions = evidence.outcomes.get(str(row.plan_id))
        change = None if predictions is None else compared([predictions], [full])
        if change is not None:
            found.append(Cut(row, change, row.plan_id == evidence.target))
    return found


def choose_cut(cuts: list[Cut]) -> Cut | None:
    """Choose what to propose: what met the targets; else, of those that lose little, the one of fewest multiply-adds.

    Of equally cheap ones the most accurate; None where each loses more than little.
    """
    by_target = [cut for cut in cuts if cut.by_target]
    small = by_target or [cut for cut in cuts if cut.small]
    return min(small, key=lambda cut: (_macs(cut), -cut.change.change), default=None)


def _macs(cut: Cut) -> float:
    return float("inf") if pd.isna(cut.row.macs) else float(cut.row.macs)


def named(row: Any, layers: int = 0) -> str:
    """Say what a model lacks, e.g. "2 of 6 layers (1, 5)" or "7 heads".

    Args:
        row: Its row of the table.
        layers: How many the full model has; 0 where that is not known.
    """
    removed, heads = row.removed_layers.split(), len(row.removed_heads.split())
    of = f" of {layers}" if layers else ""
    noun = "layer" if max(len(removed), layers) == 1 else "layers"
    which = f"({'layer' if len(removed) == 1 else 'layers'} {', '.join(removed)})"
    parts = [f"{len(removed)}{of} {noun} {which}"] if removed else []
    parts += [f"{heads} head{'s' if heads > 1 else ''}"] if heads else []
    return listed([*parts, *reduction_labels(row)])


def saved(row: Any) -> str:
    """Say how much smaller a model is."""
    found = (("parameters", row.params_change_pct), ("multiply-adds", row.macs_change_pct))
    parts = [f"{fixed(-change, 1)} % of the {what}" for what, change in found if pd.notna(change) and change < 0]
    return f"It saves {listed(parts)}." if parts else ""


def cut_loss(evidence: Evidence, cut: Cut) -> str:
    """Say what a cut loses, and how certain that is."""
    assert evidence.test is not None
    before, after = top1(evidence.test), top1(evidence.outcomes[cut.row.plan_id])
    told = (
        f"Top-1 goes from {fixed(before, 1)} to {fixed(after, 1)} %: {points(cut.change)}, on {based_on(cut.change)}."
    )
    return f"{told} {certainty(cut.change)}"


def certainty(change: PairedChange) -> str:
    """Say which loss can be excluded."""
    most = -100 * change.low
    known = "For these subjects, a" if change.over == "clips" and caution(change.subjects, change.clips) else "A"
    if most <= SMALL_LOSS:
        return f"{known} loss of more than {SMALL_LOSS:g} point can be excluded."
    if change.below:
        return "That there is a loss is clear."
    return f"{known} loss of up to {fixed(most, 1)} points cannot be excluded."


def deeper(cut: Cut, cuts: list[Cut]) -> str:
    """Say what the next deeper cut of the same kind would lose; nothing where none was tested."""
    way = ("method", "score", "mode", "tokens", "format", "runtime")
    same = [c for c in cuts if all(getattr(c.row, key) == getattr(cut.row, key) for key in way)]
    found = min((c for c in same if c.row.k > cut.row.k), key=lambda c: c.row.k, default=None)
    return "" if found is None else f"The next deeper one, {named(found.row)}, changes it by {points(found.change)}."


def recovered(evidence: Evidence) -> tuple[str, str]:
    """Say whether a recovered model can take the full one's place, and what recovery gained."""
    full, pruned, model = (evidence.recovery[name] for name in ("full", "pruned", "recovered"))
    change, gain = compared([model], [full]), compared([model], [pruned])
    if change is None or gain is None:
        return "What recovery gained is not known.", "The models were tested on different clips."
    told = (
        f"Its top-1 is {fixed(top1(model), 1)} %; against the full model that is {points(change)}, against the merely "
        f"pruned one {points(gain)}, on {based_on(change)}."
    )
    if change.change >= -SMALL_LOSS / 100:
        return "The recovered model can take the full one's place.", told
    return "The recovered model does not reach the full one.", told


def class_lost(evidence: Evidence, cut: Cut) -> Finding | None:
    """Does a class lose far more than the mean?"""
    assert evidence.test is not None
    full = evidence.test.set_index("sample_id")
    before, after = right(evidence.test), right(evidence.outcomes[cut.row.plan_id])
    both = pd.DataFrame({"before": before, "after": after, "label": full["label"]}).dropna()
    lost, classes = [], both["label"].nunique()
    label: Any
    for label, clips in both.groupby("label"):
        change = clips["after"] - clips["before"]
        less, more = int((change < 0).sum()), int((change > 0).sum())
        points_lost = -100 * float(change.mean())
        if points_lost >= CLASS_LOSS and sign_test(more, less) < ERROR / classes:
            lost.append((points_lost, int(label), len(clips)))
    if not lost:
        return None
    told = [
        f"{evidence.class_name(label)} loses {fixed(share, 0)} points ({n} clips)"
        for share, label, n in sorted(lost, reverse=True)
    ]
    advice = "See tables/pruning_by_class.csv; cut less, or recover the cut model."
    return Finding(
        "class_lost", Grade.CAUTION, f"Classes lose unequally: {listed(told)}.", "a class loses much", advice
    )
