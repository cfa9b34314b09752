"""Paired differences: the interval by hand, its coverage, and what is taken as independent."""

import numpy as np
import pytest

from sightline.statistics.paired_change import paired_change, sign_test


def test_over_clips_by_hand():
    # 20 clips, of which 5 were lost and 1 was gained: Bonett and Price (2012) add one of each.
    found = paired_change([-1] * 5 + [1] + [0] * 14, [""] * 20)
    assert (found.change, found.over, found.subjects, found.clips) == (-4 / 20, "clips", 0, 20)
    lost, gained = 6 / 22, 2 / 22
    half = 1.959964 * np.sqrt((lost + gained - (gained - lost) ** 2) / 22)
    assert (found.low, found.high) == pytest.approx((gained - lost - half, gained - lost + half), abs=1e-6)
    assert found.low < 0 < found.high


def test_over_subjects_by_hand():
    # 8 subjects of 50 clips; in half of them 10 clips more are right, in the others 20.
    more = np.concatenate([np.repeat([1.0, 0.0], [n, 50 - n]) for n in [10, 20] * 4])
    found = paired_change(more, np.repeat([f"s{i}" for i in range(8)], 50))
    assert (found.change, found.over, found.subjects) == (0.3, "subjects", 8)
    # Without a subject of 0.2 the mean is 0.3 + 0.1 / 7, without one of 0.4 it is 0.3 - 0.1 / 7.
    error = np.sqrt(7 / 8 * 8 * (0.1 / 7) ** 2)
    over_clips = paired_change(more, [""] * 400)
    low, high = 0.3 - 2.364624 * error, 0.3 + 2.364624 * error  # Student's t of 7 degrees of freedom
    assert found.low == pytest.approx(min(low, over_clips.low), abs=1e-6)
    assert found.high == pytest.approx(max(high, over_clips.high), abs=1e-6)
    assert found.high == pytest.approx(high, abs=1e-6)  # here the subjects decide
    assert found.above


def test_where_few_subjects_have_most_clips_the_interval_is_that_of_few():
    # 9 subjects, of whom one has 200 clips and loses 5 % of them, while the others have 10 and lose nothing.
    names = np.repeat([f"s{i}" for i in range(9)], [200] + [10] * 8)
    d = np.where(np.arange(280) < 10, -1.0, 0.0)
    own, without = d.mean(), np.array([d[names != f"s{i}"].mean() for i in range(9)])
    error = np.sqrt(8 / 9 * ((without - own) ** 2).sum())
    effective = 280**2 / (200**2 + 8 * 10**2)  # 1.92 subjects, so one degree of freedom
    found = paired_change(d, names)
    assert effective - 1 < 1
    assert found.low == pytest.approx(own - 12.706205 * error, abs=1e-6)
    assert not found.below


def test_equal_models_and_subjects_who_agree_are_no_certainty():
    few = paired_change(np.zeros(16), np.repeat(np.arange(8).astype(str), 2))
    assert few.low < -0.1 < 0.1 < few.high  # 16 clips do not show that nothing changed
    many = paired_change(np.zeros(4000), [""] * 4000)
    assert -0.001 < many.low < 0 < many.high < 0.001


def test_few_or_unknown_subjects_fall_back_to_clips():
    d = np.tile([1.0, 0.0, 0.0, 0.0], 20)
    assert paired_change(d, [str(i % 7) for i in range(80)]).over == "clips"
    assert paired_change(d, [str(i % 8) for i in range(80)]).over == "subjects"
    unknown = paired_change(d, [str(i % 8) if i else "" for i in range(80)])
    assert (unknown.over, unknown.subjects) == ("clips", 0)  # as the table of tested models has it


@pytest.mark.parametrize(("clips", "lost", "gained"), [(40, 0.1, 0.02), (200, 0.03, 0.01), (60, 0.02, 0.02)])
def test_at_least_94_of_100_intervals_over_clips_hold_the_truth(clips, lost, gained):
    # The adjusted interval is conservative at small shares; 2000 draws have a standard error of 0.5 points.
    draws = np.random.default_rng(0).choice([-1.0, 1.0, 0.0], (2000, clips), p=[lost, gained, 1 - lost - gained])
    found = [paired_change(d, [""] * clips) for d in draws]
    assert np.mean([one.low <= gained - lost <= one.high for one in found]) >= 0.94


def test_at_least_93_of_100_intervals_over_subjects_hold_the_truth():
    # Subjects differ in how much the models differ on them; 10 of them with 20 clips each.
    rng = np.random.default_rng(1)
    names, held = [str(i // 20) for i in range(200)], []
    for _ in range(1000):
        share = rng.beta(2, 8, 10).repeat(20)
        found = paired_change((rng.random(200) < share).astype(float), names)
        held.append(found.low <= 0.2 <= found.high)
    assert np.mean(held) >= 0.93


def test_what_is_no_difference_is_refused():
    for d, who in (([2.0], ["a"]), ([], []), ([0.5], ["a", "b"]), ([float("nan")], ["a"])):
        with pytest.raises(ValueError, match="Expected the difference of every clip"):
            paired_change(d, who)


def test_sign_test_by_hand():
    assert sign_test(0, 5) == 2 * 0.5**5
    assert sign_test(1, 3) == 2 * (1 + 4) * 0.5**4
    assert (sign_test(2, 2), sign_test(0, 0)) == (1.0, 1.0)
