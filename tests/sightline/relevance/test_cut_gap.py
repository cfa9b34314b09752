import pandas as pd
import pytest

from sightline.relevance.cut_gap import cut_gaps

RANKING = pd.DataFrame({"layer": [4, 0, 2, 1], "n": 10, "mean": [0.1, 0.1 + 5e-7, 0.2, 0.9]})


def test_gaps_by_hand():
    lowest = cut_gaps(RANKING, [1, 2, 3, 4], ["lowest"], 1e-7)
    assert [(gap.k, gap.last_cut, gap.first_kept) for gap in lowest] == [
        (1, "layer 4", "layer 0"), (2, "layer 0", "layer 2"), (3, "layer 2", "layer 1"),
    ]  # fmt: skip
    assert [gap.gap for gap in lowest] == pytest.approx([5e-7, 0.1 - 5e-7, 0.7])
    (highest,) = cut_gaps(RANKING, [1], ["highest"], 1e-7)
    assert (highest.last_cut, highest.first_kept, highest.gap) == ("layer 1", "layer 2", pytest.approx(0.7))


def test_a_gap_is_clear_above_ten_noise_floors():
    near, far, _ = cut_gaps(RANKING, [1, 2, 3], ["lowest"], 1e-7)
    assert not near.clear
    assert "layer 4 is cut and layer 0 kept for a gap of 5e-07" in near.warning
    assert "noise floor of 1e-07" in near.warning
    assert far.clear
    assert far.warning == ""
    assert cut_gaps(RANKING, [1], ["lowest"], 4e-8)[0].clear
    assert not cut_gaps(RANKING.assign(mean=0.0), [1], ["lowest"], 0.0)[0].clear  # a tie is never clear


def test_an_unknown_noise_floor_is_said():
    (gap,) = cut_gaps(RANKING, [2], ["lowest"], None)
    assert not gap.clear
    assert "no noise floor is known" in gap.warning


def test_a_race_has_gaps_only_between_units_that_saw_the_same_samples():
    raced = RANKING.assign(n=[900, 900, 100, 900], place=[0, 1, 2, 3])
    assert [gap.k for gap in cut_gaps(raced, [1, 2, 3], ["lowest"], 1e-7)] == [1]
    # The race's places decide, not means over different samples.
    raced = raced.assign(mean=[0.3, 0.35, 0.2, 0.9])
    (gap,) = cut_gaps(raced, [1], ["lowest"], 1e-7)
    assert (gap.last_cut, gap.gap) == ("layer 4", pytest.approx(0.05))


def test_heads_are_named_with_their_site():
    heads = RANKING.assign(site="spatial", head=[1, 0, 3, 2])
    (gap,) = cut_gaps(heads, [1], ["lowest"], 1e-7)
    assert (gap.last_cut, gap.first_kept) == ("layer 4 spatial head 1", "layer 0 spatial head 0")


def test_more_than_there_are_cannot_be_cut():
    with pytest.raises(ValueError, match="5 units cannot be cut from 4"):
        cut_gaps(RANKING, [5], ["lowest"], 0.0)
