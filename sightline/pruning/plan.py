"""Which layers to cut, at which depths: pure decisions on a table of scores.

One-shot pruning takes every depth from one ranking, so its sets are nested: what goes at depth 2 goes at depth 4 too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.types import LayerInfo, Unit

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("r", "jsd", "dprob")
MODES = ("lowest", "highest")
# Underscores, no hyphens: hyphens separate the parts of a plan's id, which is also a folder's name.
METHOD_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class PruningPlan:
    """What is cut out of a model, and how that was chosen.

    Attributes:
        method: How the ranking came about, e.g. ``relevance``.
        score: Which score was ranked: ``r``, ``jsd`` or ``dprob``.
        mode: ``lowest``, ``highest`` (the control) or ``none`` (the unpruned model).
        k: How many layers or heads are removed.
        removed_layers: Original indices, ascending.
        removed_heads: Heads by original index, ascending.
        seed: Seed of the choice, where it is random.
    """

    method: str
    score: str
    mode: str
    k: int
    removed_layers: tuple[int, ...] = ()
    removed_heads: tuple[Unit, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if not METHOD_NAME.fullmatch(self.method):
            raise ValueError(f"A method's name is lower-case words joined by underscores, got {self.method!r}.")
        if self.score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {self.score!r}.")
        if self.mode not in (*MODES, "none"):
            raise ValueError(f"mode must be one of {', '.join(MODES)}, none, got {self.mode!r}.")
        for name, removed in (("removed_layers", self.removed_layers), ("removed_heads", self.removed_heads)):
            if list(removed) != sorted(set(removed)):  # type: ignore[type-var]
                raise ValueError(f"{name} must be ascending and name nothing twice, got {removed}.")
        count = len(self.removed_layers) + len(self.removed_heads)
        if self.k != count:
            raise ValueError(f"k must be the number of layers and heads removed, which is {count}, got {self.k}.")
        if (self.mode == "none") != (count == 0):
            raise ValueError(f"Mode none goes with removing nothing; got mode {self.mode!r} and {count} removed.")

    @property
    def plan_id(self) -> str:
        """Name of the plan, and of the folder it is exported to."""
        seed = "" if self.seed is None else f"-seed{self.seed}"
        return f"{self.method}-{self.score}-{self.mode}-k{self.k}{seed}"


def unpruned_plan(score: str = "r") -> PruningPlan:
    """Return the plan that removes nothing: the reference row of every table."""
    return PruningPlan("relevance", score, "none", 0)


def one_shot_plans(
    scores: pd.Series,
    layers: tuple[LayerInfo, ...],
    depths: Sequence[int],
    modes: Sequence[str] = MODES,
    score: str = "r",
) -> list[PruningPlan]:
    """Plan the removal of the k lowest or highest scored removable layers, for every mode and depth k.

    Ties go to the lower index in both modes; hence the lowest and the highest k can share a layer where scores tie.

    Args:
        scores: Mean score of each layer, indexed by original layer index.
        layers: The layers of the backbone, as `Backbone.layers` tells them.
        depths: How many layers to remove, one plan each; repetitions count once.
        modes: ``lowest``, ``highest`` or both.
        score: Which score it is: ``r``, ``jsd`` or ``dprob``; part of the plan's id.

    Returns:
        The plans, mode by mode, in the order of ``modes`` and ``depths``.

    Raises:
        ValueError: If a depth or mode is impossible, or the scores are not one finite number per removable layer.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {unknown[0]!r}.")
    removable = _checked_scores(scores, layers)
    for k in depths:
        _check_depth(k, layers)
    plans = []
    for mode in dict.fromkeys(modes):
        sign = 1 if mode == "lowest" else -1
        ranking = sorted(removable, key=lambda index: (sign * removable[index], index))
        for k in dict.fromkeys(depths):
            plans.append(PruningPlan("relevance", score, mode, k, tuple(sorted(ranking[:k]))))
    return plans


def _checked_scores(scores: pd.Series, layers: tuple[LayerInfo, ...]) -> dict[int, float]:
    """Return the score of every removable layer, or raise ValueError saying which layers' scores are amiss."""
    if not scores.index.is_unique:
        twice = sorted(set(scores.index[scores.index.duplicated()]))
        raise ValueError(f"Expected one mean score per layer, got several for {_names(twice)}. Average them first.")
    by_layer = {int(index): float(value) for index, value in scores.items()}  # type: ignore[call-overload]
    strange = sorted(set(by_layer) - {info.index for info in layers})
    if strange:
        raise ValueError(
            f"There are scores for {_names(strange)}, which the model does not have; its layers are "
            f"{', '.join(str(info.index) for info in layers)}. Were they computed on another model?"
        )
    removable = [info.index for info in layers if info.removable]
    missing = [index for index in removable if index not in by_layer]
    if missing:
        raise ValueError(f"There is no score for {_names(missing)}. Score every removable layer before planning.")
    bad = [index for index in removable if not math.isfinite(by_layer[index])]
    if bad:
        raise ValueError(
            f"The score of {_names(bad)} is not a finite number ({', '.join(str(by_layer[i]) for i in bad)}). "
            "Look for samples whose prediction is NaN in the score table."
        )
    return {index: by_layer[index] for index in removable}


def _check_depth(k: int, layers: tuple[LayerInfo, ...]) -> None:
    """Raise ValueError where k layers cannot be removed, saying how many can and why the others cannot."""
    if k < 1:
        raise ValueError(f"A depth is the number of layers to remove, at least 1, got {k}.")
    count = sum(info.removable for info in layers)
    if k > count:
        fixed = "; ".join(f"layer {info.index} cannot: {info.reason}" for info in layers if not info.removable)
        raise ValueError(
            f"Cannot remove {k} layers: {count} of {len(layers)} can be removed{f' ({fixed})' if fixed else ''}."
        )


def _names(indices: Sequence[int]) -> str:
    return f"layer{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
