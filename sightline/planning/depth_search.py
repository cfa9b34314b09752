"""Searching the depth that meets a target, with measurements on validation clips and on this device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from sightline.backbones import Backbone
from sightline.export.counting import count_cost
from sightline.export.latency import measure_latency
from sightline.pruning.plan import PruningPlan, unpruned_plan
from sightline.pruning.targets import LIMITS, Targets, Trial, search
from sightline.run.csv_table import write_rows
from sightline.run.ranks import Ranks

log = logging.getLogger(__name__)

MeasureTop1 = Callable[[Backbone, PruningPlan], float | None]
"""Tests the model of a plan on the validation split; top-1 in percent on rank 0, None elsewhere."""


def search_depth(
    backbone: Backbone, plans: Sequence[PruningPlan], targets: Targets, top1: MeasureTop1, ranks: Ranks | None = None
) -> list[Trial]:
    """Try one-shot plans on the validation split and this device.

    Args:
        backbone: The full model, in evaluation mode, on the device to measure on.
        plans: One per depth, the shallowest first.
        targets: The limits.
        top1: Tests a model; called by every process of the job.
        ranks: The processes of the job.

    Returns:
        The trials; the last one meets the targets, or none does.
    """
    ranks = ranks or Ranks()

    def first(measure: Callable[[Backbone], float]) -> Callable[[PruningPlan], float | None]:
        return lambda plan: ranks.together(lambda: measure(backbone.without(plan.removed_layers)), only_first=True)

    full = None if targets.max_drop is None else top1(backbone, unpruned_plan(plans[0].score))

    def drop(plan: PruningPlan) -> float | None:
        value = top1(backbone.without(plan.removed_layers), plan)
        return None if value is None or full is None else full - value

    measures = {
        "max_drop": drop,
        "max_gmacs": first(lambda model: count_cost(model).macs / 1e9),
        "max_latency_ms": first(lambda model: measure_latency(model).median_ms),
    }
    trials = search(plans, targets, measures, ranks)
    if trials[-1].meets and ranks.rank == 0:
        found = ", ".join(f"{value:.4g} {LIMITS[name]}" for name, value in trials[-1].values.items())
        log.info("%s meets the targets: %s.", trials[-1].plan.plan_id, found)
    return trials


def write_trials(trials: Sequence[Trial], path: Path) -> None:
    """Write what came out as a table (``tables/targets.csv`` of a run), one row per depth that was tried."""
    rows = []
    for trial in trials:
        values = [trial.values.get(name) for name in ("max_gmacs", "max_latency_ms", "max_drop")]
        cells = ["" if value is None else repr(value) for value in values]
        rows.append([trial.plan.plan_id, trial.plan.k, *cells, str(trial.meets).lower()])
    write_rows(path, ["plan_id", "k", "gmacs", "latency_ms", "val_top1_drop", "meets"], rows)
