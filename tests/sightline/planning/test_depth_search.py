"""The depth that meets a target, with what is really measured."""

from __future__ import annotations

import pandas as pd
import pytest

from sightline.export.counting import count_cost
from sightline.planning.depth_search import search_depth, write_trials
from sightline.pruning.plan import PruningPlan
from sightline.pruning.targets import Targets, unmet

PLANS = [PruningPlan("relevance", "r", "lowest", len(gone), gone) for gone in ((1,), (1, 2), (0, 1, 2), (0, 1, 2, 3))]


def test_a_limited_drop_is_met_at_the_deepest_depth_within_it(tmp_path, tiny_swin, tiny_clips):
    full = tiny_swin(tiny_clips).argmax(1)  # taken for the truth, so that the full model is right everywhere

    def top1(model, plan):
        return 100 * (model(tiny_clips).argmax(1) == full).double().mean().item()

    drops = [100 - top1(tiny_swin.without(plan.removed_layers), plan) for plan in PLANS]
    limit = sorted(drops)[1] + 1e-9
    deepest = max(k for k, drop in enumerate(drops, 1) if drop <= limit)
    trials = search_depth(tiny_swin, PLANS, Targets(max_drop=limit), top1)
    assert trials[-1].meets
    assert trials[-1].plan == PLANS[deepest - 1]
    write_trials(trials, tmp_path / "tables" / "targets.csv")
    table = pd.read_csv(tmp_path / "tables" / "targets.csv")
    assert table["k"].tolist() == list(range(4, deepest - 1, -1))
    assert table["val_top1_drop"].tolist() == pytest.approx(drops[deepest - 1 :][::-1])
    assert table["meets"].tolist() == [False] * (4 - deepest) + [True]


def test_a_limited_cost_is_met_at_the_shallowest_depth_and_tests_nothing(tiny_swin):
    budget = Targets(max_gmacs=count_cost(tiny_swin.without([1, 2])).macs / 1e9)
    trials = search_depth(tiny_swin, PLANS, budget, lambda model, plan: pytest.fail("tested"))
    assert [(trial.plan.k, trial.meets) for trial in trials] == [(1, False), (2, True)]


def test_a_target_that_nothing_meets_is_told_with_the_nearest(tiny_swin):
    targets = Targets(max_gmacs=1e-9)
    trials = search_depth(tiny_swin, PLANS, targets, lambda model, plan: pytest.fail("tested"))
    assert not trials[-1].meets
    assert "the nearest is relevance-r-lowest-k4 with" in unmet(trials, targets)


def test_time_is_measured_on_this_device(tiny_swin):
    trials = search_depth(tiny_swin, PLANS, Targets(max_latency_ms=60_000), lambda model, plan: None)
    assert [trial.meets for trial in trials] == [True]
    assert 0 < trials[0].values["max_latency_ms"] < 60_000
