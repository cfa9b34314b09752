"""What evidence settles, by hand, and what it must not settle."""

import numpy as np
import pytest

from sightline.relevance.race_cuts import Cut, Cuts

UNITS = np.arange(4)


def evidence(pairs: dict[tuple[int, int], float], units: int = 4) -> np.ndarray:
    """Of row below column; 0 where not given."""
    table = np.zeros((units, units))
    for pair, value in pairs.items():
        table[pair] = value
    return table


def cut(mode: str, k: int, units: int = 4) -> Cut:
    return Cut(mode, k, np.zeros(units, dtype=np.int8))


def test_a_unit_is_out_when_its_evidence_against_all_rivals_that_may_be_out_sums_to_one():
    # Of the lowest 1 of 4 a unit is out by the sum over all three rivals, none of which needs to prove it alone.
    one = cut("lowest", 1)
    one.settle(UNITS, evidence({(0, 3): 0.4, (1, 3): 0.35, (2, 3): 0.3}))
    assert one.side.tolist() == [0, 0, 0, 1]
    # Of the lowest 2 it is out by its two smallest alone: 0.35 + 0.3.
    two = cut("lowest", 2)
    two.settle(UNITS, evidence({(0, 3): 9.0, (1, 3): 0.35, (2, 3): 0.3}))
    assert two.side.tolist() == [0, 0, 0, 0]
    # It is in by the two smallest of what it has against three rivals.
    two.settle(UNITS, evidence({(0, 1): 0.4, (0, 2): 0.6, (0, 3): 9.0}))
    assert two.side.tolist() == [-1, 0, 0, 0]
    # One place is left among three: 1 needs 1 against its weakest rival.
    two.settle(UNITS, evidence({(1, 2): 0.9, (1, 3): 0.95}))
    assert two.side.tolist() == [-1, 0, 0, 0]
    two.settle(UNITS, evidence({(1, 2): 1.0, (1, 3): 1.0}))
    assert two.members.tolist() == [0, 1]
    assert not two.open.any()


def test_the_highest_are_those_above():
    top = cut("highest", 1)
    assert top.place == 3
    top.settle(UNITS, evidence({(0, 2): 1.0, (1, 2): 2.0, (3, 2): 1.0}))
    assert top.members.tolist() == [2]
    assert top.side.tolist() == [-1, -1, 1, -1]


def test_units_that_settled_are_rivals_no_more():
    one = cut("lowest", 1)
    # 3 is out by unit 0 alone; then 0 needs evidence against 1 and 2 only.
    one.settle(UNITS, evidence({(0, 3): 1.0}))
    assert one.side.tolist() == [0, 0, 0, 1]
    one.settle(np.arange(3), evidence({(0, 1): 1.0, (0, 2): 1.0}, 3))
    assert one.members.tolist() == [0]


def test_contradictory_evidence_fills_no_more_places_than_there_are():
    one = cut("lowest", 1)
    one.settle(UNITS, np.full((4, 4), 2.0))
    assert len(one.members) == 1
    assert not one.open.any()


@pytest.mark.parametrize(("mode", "expected"), [("lowest", [1]), ("highest", [0])])
def test_full_means_decide_with_ties_to_the_lower_index(mode, expected):
    last = cut(mode, 1)
    last.decide(np.array([0.3, 0.1, 0.1, 0.3]))
    assert last.members.tolist() == expected


def test_crossing_pairs_by_hand():
    # Lowest 1 of 5: pairs of places (1, 2..5). Lowest 1 and 3: those and (2, 4), (2, 5), (3, 4), (3, 5).
    assert Cuts(5, [1], ["lowest"]).crossing_pairs == 4
    assert Cuts(5, [1, 3], ["lowest"]).crossing_pairs == 8
    assert Cuts(5, [2], ["highest"]).crossing_pairs == Cuts(5, [3], ["lowest"]).crossing_pairs == 6
    assert Cuts(5, [5], ["lowest"]).crossing_pairs == 0
    # The same pairs count twice where both modes separate them: with ties they are other pairs.
    assert Cuts(5, [1], ["lowest", "highest"]).crossing_pairs == 8


def nearly(units: int, truth: np.ndarray, eps: float) -> np.ndarray:
    """Proof of every claim that is true: that the row is not eps or more above the column."""
    return np.where(truth[:, None] - truth[None, :] < eps, 1.0, 0.0)


def test_within_a_tolerance_units_do_not_drift_away_one_by_one():
    """Each is within 0.01 of the next. Settled one by one, 0 could go for 1, and 1 for 2, which is 0.018 above 0."""
    truth = np.array([0.0, 0.009, 0.018, 0.5])
    for first, closes in ((0, True), (1, True), (2, False)):
        cuts = Cuts(4, [1], ["lowest"])
        means = truth.copy()
        means[first] = -1.0  # what was seen so far makes it look lowest
        cuts.close_within(UNITS, nearly(4, truth, 0.01), means)
        assert cuts.all[0].members.tolist() == ([first] if closes else [])
        assert cuts.all[0].exact != closes


def test_sets_closed_within_a_tolerance_are_nested():
    truth = np.zeros(4)
    proof = nearly(4, truth, 0.01)
    # Unit 2 seems lowest, but is settled above the cut after 2: the cut after 1 cannot have it.
    cuts = Cuts(4, [1, 2], ["lowest"])
    cuts.all[1].side[2] = 1
    cuts.close_within(UNITS, proof, np.array([0.2, 0.3, 0.1, 0.4]))
    assert [one.members.tolist() for one in cuts.all] == [[0], [0, 1]]
    # Without proof for the cut after 2, the cut after 1 has to wait for what that one settles.
    proof[0, 3] = proof[1, 3] = 0.0
    cuts = Cuts(4, [1, 2], ["lowest"])
    proof[0, 1:] = 1.0
    cuts.close_within(UNITS, proof, np.array([0.1, 0.2, 0.3, 0.4]))
    assert [one.members.tolist() for one in cuts.all] == [[], []]
    cuts.all[1].side[0] = -1
    cuts.close_within(UNITS, proof, np.array([0.1, 0.2, 0.3, 0.4]))
    assert [one.members.tolist() for one in cuts.all] == [[0], [0]]
    assert [one.exact for one in cuts.all] == [False, True]


def test_no_unit_is_among_the_lowest_and_the_highest():
    cuts = Cuts(4, [1], ["lowest", "highest"])
    proof = nearly(4, np.zeros(4), 0.01)
    proof[:, 3] = 0.0  # nothing is known to be nearly below unit 3
    proof[3, :] = 0.0
    cuts.close_within(UNITS, proof, np.array([0.1, 0.2, 0.3, 0.4]))
    assert [one.members.tolist() for one in cuts.all] == [[], []]
    proof[:] = 1.0
    cuts.close_within(UNITS, proof, np.array([0.1, 0.2, 0.3, 0.4]))
    assert [one.members.tolist() for one in cuts.all] == [[0], [3]]
