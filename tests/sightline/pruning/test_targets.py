"""The search for a depth, by hand."""

from __future__ import annotations

import pytest

from sightline.pruning.plan import PruningPlan
from sightline.pruning.targets import Targets, search, unmet
from sightline.run.ranks import Ranks

PLANS = [PruningPlan("relevance", "r", "lowest", k, tuple(range(k))) for k in (1, 2, 3, 4)]
DROP = {1: 0.5, 2: 3.0, 3: 0.9, 4: 9.0}
GMACS = {1: 8.0, 2: 6.0, 3: 4.0, 4: 2.0}


def tried(targets: Targets, ranks: Ranks | None = None, drop=DROP):
    measures = {"max_drop": lambda plan: drop[plan.k], "max_gmacs": lambda plan: GMACS[plan.k]}
    trials = search(PLANS, targets, measures, ranks)
    return [(trial.plan.k, trial.values, trial.meets) for trial in trials], trials


def test_a_loss_is_searched_from_the_deepest_plan():
    found, _ = tried(Targets(max_drop=1.0))
    assert found == [(4, {"max_drop": 9.0}, False), (3, {"max_drop": 0.9}, True)]


def test_a_budget_is_searched_from_the_shallowest_plan_and_its_bound_is_met():
    found, _ = tried(Targets(max_gmacs=6.0))
    assert found == [(1, {"max_gmacs": 8.0}, False), (2, {"max_gmacs": 6.0}, True)]


def test_all_limits_hold_together_and_the_cheap_one_is_measured_first():
    found, _ = tried(Targets(max_drop=0.6, max_gmacs=5.0))
    assert found == [
        (4, {"max_gmacs": 2.0, "max_drop": 9.0}, False),
        (3, {"max_gmacs": 4.0, "max_drop": 0.9}, False),
        (2, {"max_gmacs": 6.0}, False),
        (1, {"max_gmacs": 8.0}, False),
    ]


def test_a_miss_names_the_nearest_of_each_limit():
    targets = Targets(max_drop=0.25, max_gmacs=5.0)
    _, trials = tried(targets)
    message = unmet(trials, targets)
    assert "max_gmacs 5: the nearest is relevance-r-lowest-k4 with 2 billion" in message
    assert "max_drop 0.25: the nearest is relevance-r-lowest-k3 with 0.9 points of validation top-1 lost" in message


def test_other_processes_follow_rank_zero():
    verdicts = iter([False, True])
    ranks = Ranks(1, 2, lambda flag: next(verdicts))
    found, _ = tried(Targets(max_drop=1.0), ranks, drop=dict.fromkeys(DROP))
    assert [(k, meets) for k, _, meets in found] == [(4, False), (3, True)]


@pytest.mark.parametrize(
    ("limits", "message"),
    [({}, "at least one of"), ({"max_gmacs": 0}, "max_gmacs must be positive"), ({"max_drop": -1}, "positive, got -1")],
)
def test_impossible_targets_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Targets(**limits)
