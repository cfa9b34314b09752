"""What to cut: plans, and the methods that choose them."""

from sightline.pruning.plan import BASELINES, MODES, SCORES, PruningPlan, unpruned_plan
from sightline.pruning.selection import head_plans, one_shot_plans

__all__ = ["BASELINES", "MODES", "SCORES", "PruningPlan", "head_plans", "one_shot_plans", "unpruned_plan"]
