"""What a plan may say, and what it is called."""

import pytest

from sightline.pruning import PruningPlan, unpruned_plan
from sightline.types import Unit


def test_plan_ids():
    assert unpruned_plan().plan_id == "relevance-r-none-k0"
    assert PruningPlan("random", "r", "lowest", 2, (3, 5), seed=7).plan_id == "random-r-lowest-k2-seed7"
    heads = (Unit(0, "attention", 1), Unit(3, "attention", 0))
    assert PruningPlan("relevance", "dprob", "highest", 2, removed_heads=heads).plan_id == "relevance-dprob-highest-k2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("../x", "r", "lowest", 1, (1,)), "lower-case words"),
        (("relevance", "r", "lowest", 2, (5, 3)), "ascending"),
        (("relevance", "r", "lowest", 2, (3, 3)), "ascending"),
        (("relevance", "r", "lowest", 3, (3, 5)), "which is 2, got 3"),
        (("relevance", "r", "none", 1, (3,)), "Mode none"),
        (("relevance", "r", "lowest", 0), "Mode none"),
    ],
)
def test_inconsistent_plans_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PruningPlan(*arguments)
