"""Cutting layers and heads: what to cut, what it saves, and the smaller model as a folder."""

from sightline.pruning.counting import Cost, count_cost, percent_change
from sightline.pruning.depth import layers_to_skip
from sightline.pruning.export import ExportError, export_model, load_exported, read_description
from sightline.pruning.latency import Latency, compare_latency, measure_latency
from sightline.pruning.plan import BASELINES, MODES, SCORES, PruningPlan, head_plans, one_shot_plans, unpruned_plan

__all__ = [
    "BASELINES",
    "MODES",
    "SCORES",
    "Cost",
    "ExportError",
    "Latency",
    "PruningPlan",
    "compare_latency",
    "count_cost",
    "export_model",
    "head_plans",
    "layers_to_skip",
    "load_exported",
    "measure_latency",
    "one_shot_plans",
    "percent_change",
    "read_description",
    "unpruned_plan",
]
