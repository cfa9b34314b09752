"""Which layers and heads go, at which depths: pure decisions on scores.

One-shot pruning takes every depth from one ranking, so its sets are nested: what goes at depth 2 goes at depth 4 too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sightline.pruning.plan import MODES, PruningPlan
from sightline.types import LayerInfo, Unit

if TYPE_CHECKING:
    import pandas as pd


def one_shot_plans(
    scores: pd.Series,
    layers: tuple[LayerInfo, ...],
    depths: Sequence[int],
    modes: Sequence[str] = MODES,
    score: str = "r",
    method: str = "relevance",
    seed: int | None = None,
) -> list[PruningPlan]:
    """Plan the removal of the k lowest or highest scored removable layers, for every mode and depth k.

    Ties go to the lower index in both modes; hence the lowest and the highest k can share a layer where scores tie.

    Args:
        scores: Mean score of each layer, indexed by original layer index.
        layers: The layers of the backbone, as `Backbone.layers` tells them.
        depths: How many layers to remove, one plan each; repetitions count once.
        modes: ``lowest``, ``highest`` or both.
        score: Which score it is; part of the plan's id.
        method: Where the scores come from; part of the plan's id.
        seed: Of scores that were drawn.

    Returns:
        The plans, mode by mode, in the order of ``modes`` and ``depths``.

    Raises:
        ValueError: If a depth or mode is impossible, or the scores are not one finite number per removable layer.
    """
    _check_modes(modes)
    removable = _checked_scores(scores, layers)
    plans = []
    for mode in dict.fromkeys(modes):
        plans += nested_plans(_ranked(removable, mode), layers, depths, mode, score, method, seed)
    return plans


def nested_plans(
    order: Sequence[int],
    layers: tuple[LayerInfo, ...],
    depths: Sequence[int],
    mode: str,
    score: str,
    method: str,
    seed: int | None = None,
) -> list[PruningPlan]:
    """Plan the removal of the first k layers of an order, for every depth k."""
    check_depths(depths, layers)
    return [PruningPlan(method, score, mode, k, tuple(sorted(order[:k])), seed=seed) for k in dict.fromkeys(depths)]


def head_plans(
    scores: Mapping[Unit, float],
    wanted: Sequence[float],
    modes: Sequence[str] = MODES,
    score: str = "r",
    removed_layers: Mapping[str, tuple[int, ...]] | None = None,
) -> list[PruningPlan]:
    """Plan the removal of the lowest or highest scored heads, alone or beside layers.

    Ties go to the lower layer, site and head.

    Args:
        scores: Mean score of each head.
        wanted: How many heads to remove, one plan each: a number, or below 1 a share of the heads that are left.
        modes: ``lowest``, ``highest`` or both.
        score: ``r``, ``jsd`` or ``dprob``.
        removed_layers: By mode, layers that go too, with all of their heads.

    Returns:
        The plans, mode by mode. Their method is ``heads``, or ``layers<k>_heads`` where k layers go too.

    Raises:
        ValueError: If a number or share is impossible, or a score is not finite.
    """
    _check_modes(modes)
    bad = [unit for unit, value in scores.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"The score of {bad[0]} is not a finite number. Look for NaN in the score table of heads.")
    plans = []
    for mode in dict.fromkeys(modes):
        gone = () if removed_layers is None else removed_layers[mode]
        left = {unit: value for unit, value in scores.items() if unit.layer not in gone}
        order = _ranked(left, mode)
        method = f"layers{len(gone)}_heads" if gone else "heads"
        for count in dict.fromkeys(head_count(number, len(order)) for number in wanted):
            heads = tuple(sorted(order[:count]))
            plans.append(PruningPlan(method, score, mode, len(gone) + count, gone, heads))
    return plans


def head_count(wanted: float, total: int) -> int:
    """Return how many of ``total`` heads a number or share means; a share is rounded, to one head at least.

    Raises:
        ValueError: If it is neither a share between 0 and 1 nor a whole number that leaves a head.
    """
    count = max(1, round(wanted * total)) if 0 < wanted < 1 else wanted
    if count != int(count) or not 1 <= count < total:
        raise ValueError(
            f"Heads to remove are a whole number from 1 to {total - 1}, or a share between 0 and 1 that leaves a head "
            f"of {total}; got {wanted:g}."
        )
    return int(count)


def check_depths(depths: Sequence[int], layers: tuple[LayerInfo, ...]) -> None:
    """Raise ValueError where so many layers cannot be removed, saying how many can and why the others cannot."""
    count = sum(info.removable for info in layers)
    for k in depths:
        if k < 1:
            raise ValueError(f"A depth is the number of layers to remove, at least 1, got {k}.")
        if k > count:
            fixed = "; ".join(f"layer {info.index} cannot: {info.reason}" for info in layers if not info.removable)
            raise ValueError(
                f"Cannot remove {k} layers: {count} of {len(layers)} can be removed{f' ({fixed})' if fixed else ''}."
            )


def relevance_ranking(scores: pd.Series, layers: Sequence[LayerInfo]) -> list[int]:
    """Return the removable layers, the lowest score first; ties go to the lower index."""
    return _ranked({info.index: float(scores[info.index]) for info in layers if info.removable}, "lowest")


def _ranked(scores: Mapping[Any, float], mode: str) -> list[Any]:
    """Return the units in the order in which they go."""
    sign = 1 if mode == "lowest" else -1
    return sorted(scores, key=lambda unit: (sign * scores[unit], unit))


def _check_modes(modes: Sequence[str]) -> None:
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {unknown[0]!r}.")


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


def _names(indices: Sequence[int]) -> str:
    return f"layer{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
