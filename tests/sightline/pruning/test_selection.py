"""Chosen plans against hand-computed answers, and what must hold of every ranking."""

import itertools
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.pruning import PruningPlan, head_plans, one_shot_plans
from sightline.pruning.selection import head_count
from sightline.types import LayerInfo, Site, Unit


def layers(count: int, fixed: tuple[int, ...] = ()) -> tuple[LayerInfo, ...]:
    site = (Site("attention", (0, 1)),)
    return tuple(
        LayerInfo(i, 0, site, i not in fixed, "it halves the grid" if i in fixed else "") for i in range(count)
    )


SCORES = pd.Series([0.5, 0.1, 0.4, 0.2, 0.3])


def removed(plans: list[PruningPlan]) -> dict[str, tuple[int, ...]]:
    return {plan.plan_id: plan.removed_layers for plan in plans}


def test_one_shot_by_hand():
    assert removed(one_shot_plans(SCORES, layers(5), [1, 3], ["lowest", "highest"], "r")) == {
        "relevance-r-lowest-k1": (1,),
        "relevance-r-lowest-k3": (1, 3, 4),
        "relevance-r-highest-k1": (0,),
        "relevance-r-highest-k3": (0, 2, 4),
    }


def test_layers_that_cannot_be_removed_are_passed_over():
    plans = one_shot_plans(SCORES, layers(5, fixed=(1, 0)), [2], ["lowest", "highest"], "jsd")
    assert removed(plans) == {"relevance-jsd-lowest-k2": (3, 4), "relevance-jsd-highest-k2": (2, 4)}


def test_ties_go_to_the_lower_index_in_both_modes():
    plans = one_shot_plans(pd.Series([0.2, 0.1, 0.1, 0.2, 0.1, 0.2]), layers(6), [2], ["lowest", "highest"])
    assert [plan.removed_layers for plan in plans] == [(1, 2), (0, 3)]


def test_order_of_scores_is_that_of_their_index_not_of_their_rows():
    shuffled = SCORES.sample(frac=1.0, random_state=3)
    assert one_shot_plans(shuffled, layers(5), [2]) == one_shot_plans(SCORES, layers(5), [2])


def test_layers_that_were_cut_before_keep_their_original_indices():
    left = tuple(info for info in layers(5) if info.index != 1)
    assert one_shot_plans(SCORES.drop(1), left, [1], ["lowest"])[0].removed_layers == (3,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=24, unique=True))
def test_sets_are_nested_of_size_k_and_disjoint(values):
    infos, depths = layers(len(values)), list(range(1, len(values) + 1))
    plans = one_shot_plans(pd.Series(values), infos, depths, ["lowest", "highest"])
    lowest, highest = plans[: len(depths)], plans[len(depths) :]
    for chain in (lowest, highest):
        assert [len(plan.removed_layers) for plan in chain] == depths
        for smaller, larger in itertools.pairwise(chain):
            assert set(smaller.removed_layers) < set(larger.removed_layers)
    # Distinct scores only: both modes break ties towards the lower index, so tied layers can be in both sets.
    for k in depths:
        if 2 * k <= len(values):
            assert not set(lowest[k - 1].removed_layers) & set(highest[k - 1].removed_layers)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=12), st.data())
def test_nothing_that_stays_scores_below_what_goes(values, data):
    k = data.draw(st.integers(1, len(values)))
    gone = one_shot_plans(pd.Series(values), layers(len(values)), [k], ["lowest"])[0].removed_layers
    stays = [values[i] for i in range(len(values)) if i not in gone]
    assert not stays or max(values[i] for i in gone) <= min(stays)


@pytest.mark.parametrize("k", [0, -1])
def test_depth_must_be_positive(k):
    with pytest.raises(ValueError, match=f"at least 1, got {k}"):
        one_shot_plans(SCORES, layers(5), [k])


def test_too_great_a_depth_says_what_cannot_go_and_why():
    message = r"Cannot remove 4 layers: 3 of 5 can be removed \(layer 1 cannot: it halves the grid; layer 3 cannot"
    with pytest.raises(ValueError, match=message):
        one_shot_plans(SCORES, layers(5, fixed=(1, 3)), [4])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (SCORES.drop([2, 4]), "no score for layers 2, 4"),
        (SCORES.where(SCORES != 0.2, math.nan), "score of layer 3 is not a finite number"),
        (SCORES.where(SCORES != 0.2, math.inf), "score of layer 3 is not a finite number"),
        (pd.concat([SCORES, SCORES[[2]]]), "several for layer 2"),
        (pd.Series([0.1] * 6), "scores for layer 5, which the model does not have"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        one_shot_plans(scores, layers(5), [1])


def test_a_layer_that_cannot_be_removed_needs_no_score():
    assert one_shot_plans(SCORES.drop(1), layers(5, fixed=(1,)), [1], ["lowest"])[0].removed_layers == (3,)


def test_unknown_mode_and_score_are_refused():
    with pytest.raises(ValueError, match="mode must be one of lowest, highest, got 'least'"):
        one_shot_plans(SCORES, layers(5), [1], ["least"])
    with pytest.raises(ValueError, match="score must be one of r, jsd, dprob, draw, cosine, taylor, from_end, got 'R'"):
        one_shot_plans(SCORES, layers(5), [1], score="R")


def test_heads_by_hand():
    scores = {Unit(0, "a", 0): 0.3, Unit(0, "a", 1): 0.1, Unit(1, "a", 0): 0.1, Unit(1, "a", 1): 0.9}
    lowest, highest = head_plans(scores, [1])
    assert (lowest.plan_id, lowest.removed_heads) == ("heads-r-lowest-k1", (Unit(0, "a", 1),))  # the tie's lower
    assert (highest.plan_id, highest.removed_heads) == ("heads-r-highest-k1", (Unit(1, "a", 1),))
    (beside,) = head_plans(scores, [0.5], ["lowest"], "jsd", {"lowest": (0,)})
    assert beside.plan_id == "layers1_heads-jsd-lowest-k2"
    assert (beside.removed_layers, beside.removed_heads) == ((0,), (Unit(1, "a", 0),))
    with pytest.raises(ValueError, match="layer 0 a head 0 is not a finite number"):
        head_plans({Unit(0, "a", 0): math.nan, Unit(0, "a", 1): 0.1}, [1])


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), (11, 11), (0.25, 3), (0.01, 1), (0.9, 11)])
def test_numbers_and_shares_of_twelve_heads(wanted, count):
    assert head_count(wanted, 12) == count


@pytest.mark.parametrize("wanted", [0, 12, 1.5, -1, 0.99])
def test_at_least_one_head_goes_and_one_stays(wanted):
    with pytest.raises(ValueError, match=f"got {wanted:g}"):
        head_count(wanted, 12)
