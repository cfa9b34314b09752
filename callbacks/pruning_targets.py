"""Searching the depth that meets a target, with what a run's folder and this machine can measure."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence

import pandas as pd

from callbacks.analysis import Context, predict_clips
from callbacks.logging_results import log_to_wandb
from sightline.backbones import Backbone
from sightline.export.counting import count_cost
from sightline.export.evaluation import accuracy
from sightline.export.latency import measure_latency
from sightline.pruning.plan import PruningPlan, unpruned_plan
from sightline.pruning.targets import LIMITS, Targets, Trial, search
from sightline.run.atomic import replacing

log = logging.getLogger(__name__)


def search_depth(
    context: Context, plans: Sequence[PruningPlan], targets: Targets, batch_size: int | None
) -> list[Trial]:
    """Try one-shot plans on the validation split and this device; ``tables/targets.csv`` tells what came out.

    Args:
        context: The run.
        plans: One per depth, the shallowest first.
        targets: The limits.
        batch_size: Clips per batch on the validation split.

    Returns:
        The trials; the last one meets the targets, or none does.
    """
    measures = _Measures(context, batch_size)
    if targets.max_drop is not None:
        measures.full = measures.top1(context.backbone, unpruned_plan(plans[0].score).plan_id)
    by_name = {"max_drop": measures.drop, "max_gmacs": measures.gmacs, "max_latency_ms": measures.latency_ms}
    trials = search(plans, targets, by_name, context.ranks)
    context.ranks.together(lambda: _write(context, trials), only_first=True)
    if context.ranks.rank == 0:
        log_to_wandb(context.loggers, {"pruning/targets": pd.read_csv(context.run.table("targets"))})
    if trials[-1].meets and context.ranks.rank == 0:
        found = ", ".join(f"{value:.4g} {LIMITS[name]}" for name, value in trials[-1].values.items())
        log.info("%s meets the targets: %s.", trials[-1].plan.plan_id, found)
    return trials


class _Measures:
    """What limits bound; values are rank 0's, None elsewhere."""

    def __init__(self, context: Context, batch_size: int | None) -> None:
        self.context = context
        self.batch_size = batch_size
        self.full: float | None = None

    def gmacs(self, plan: PruningPlan) -> float | None:
        return self._first(lambda: count_cost(self._model(plan)).macs / 1e9)

    def latency_ms(self, plan: PruningPlan) -> float | None:
        return self._first(lambda: measure_latency(self._model(plan)).median_ms)

    def drop(self, plan: PruningPlan) -> float | None:
        top1 = self.top1(self._model(plan), plan.plan_id)
        return None if top1 is None or self.full is None else self.full - top1

    def top1(self, model: Backbone, plan_id: str) -> float | None:
        """Test a model on the validation split; top-1 in percent."""
        context = self.context
        if not context.data.clips("val"):
            raise ValueError("max_drop is measured on the validation split, which has no clips. Give the data one.")
        predictions = predict_clips(context, model, "val", f"val/{plan_id}", self.batch_size)

        def share() -> float:
            assert predictions is not None
            found = accuracy(predictions)
            return 100 * found.correct / found.total

        return self._first(share)

    def _model(self, plan: PruningPlan) -> Backbone:
        return self.context.backbone.without(plan.removed_layers)

    def _first(self, measure: Callable[[], float]) -> float | None:
        return self.context.ranks.together(measure, only_first=True)


def _write(context: Context, trials: Sequence[Trial]) -> None:
    with replacing(context.run.table("targets")) as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["plan_id", "k", "gmacs", "latency_ms", "val_top1_drop", "meets"])
        for trial in trials:
            values = [trial.values.get(name) for name in ("max_gmacs", "max_latency_ms", "max_drop")]
            cells = ["" if value is None else repr(value) for value in values]
            writer.writerow([trial.plan.plan_id, trial.plan.k, *cells, str(trial.meets).lower()])
