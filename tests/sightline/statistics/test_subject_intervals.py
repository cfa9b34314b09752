"""Intervals over subjects: slow implementations beside the fast one, scipy where it has the same, and by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, t, ttest_1samp

from sightline.statistics.few_subjects import caution
from sightline.statistics.matrix import ScoreMatrix
from sightline.statistics.subject_intervals import leave_one_out, share_interval, symmetric_interval
from sightline.statistics.top1_interval import top1_interval


def matrix_of(values, group) -> ScoreMatrix:
    values = np.asarray(values, dtype=float)
    units = pd.DataFrame({"layer": np.arange(len(values))})
    return ScoreMatrix(units, values, np.zeros(values.shape[1], dtype=np.int64), np.array(group, dtype=object))


def test_means_without_each_subject_are_those_of_the_other_samples():
    generator = np.random.default_rng(0)
    values = generator.random((4, 40))
    values[1, 25:] = np.nan  # a unit of a race
    group = np.array([f"s{int(i**1.3) % 9}" for i in range(40)])  # of unequal sizes
    found = leave_one_out(matrix_of(values, group))
    for place, name in enumerate(np.unique(group)):
        np.testing.assert_allclose(found.means[place], np.nanmean(values[:, group != name], axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.own, np.nanmean(values, axis=1), rtol=1e-12)
    for unit in range(4):
        counts = pd.Series(group[~np.isnan(values[unit])]).value_counts()
        assert found.degrees[unit] == pytest.approx(counts.sum() ** 2 / (counts**2).sum() - 1)
        assert found.samples[unit] == counts.sum()


def test_seven_subjects_have_no_interval():
    assert leave_one_out(matrix_of(np.ones((1, 21)), [f"s{i % 7}" for i in range(21)])) is None
    assert leave_one_out(matrix_of(np.ones((1, 21)), [f"s{i % 8}" for i in range(21)])) is not None


def test_of_equal_sizes_it_is_student_s_t_of_the_subjects_means():
    generator = np.random.default_rng(1)
    values = generator.standard_normal((1, 36))
    found = leave_one_out(matrix_of(values, [f"s{i // 4}" for i in range(36)]))
    low, high = symmetric_interval(found.own, found.means, found.degrees, 0.9)
    expected = ttest_1samp(values.reshape(9, 4).mean(axis=1), 0).confidence_interval(0.9)
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="between 0 and 1"):
        symmetric_interval(found.own, found.means, found.degrees, 1.0)


def test_shares_that_agree_are_wilson_s_interval():
    """With very many degrees of freedom and no spread among subjects it is scipy's, of all samples."""
    left_out = np.full((9, 1), 0.8)
    low, high = share_interval(np.array([0.8]), left_out, 1e9, samples=50)
    expected = binomtest(40, 50).proportion_ci(0.95, method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-6)
    # Scores between 0 and 1 that do not differ are certain; shares are not.
    assert share_interval(np.array([0.8]), left_out, 8.0) == (pytest.approx(0.8), pytest.approx(0.8))


def test_shares_by_hand():
    # Nine subjects of two clips: three are always right, six never. The mean of 1/3 has the error 1/6: that of
    # (1/3 * 2/3) / (1/36) = 8 independent clips.
    right, group = [1] * 6 + [0] * 12, [f"s{i // 2}" for i in range(18)]
    q = t.ppf(0.975, 8)
    middle = (1 / 3 + q**2 / 16) / (1 + q**2 / 8)
    half = q / (1 + q**2 / 8) * math.sqrt(2 / 9 / 8 + q**2 / 256)
    found = top1_interval(right, group)
    assert (found.low, found.high) == pytest.approx((100 * (middle - half), 100 * (middle + half)))
    assert (found.subjects, found.over) == (9, "subjects")


def test_intervals_stay_inside_the_range_and_have_a_width():
    group = [f"s{i // 3}" for i in range(30)]
    for right in (np.ones(30), np.zeros(30), np.r_[np.zeros(1), np.ones(29)]):
        found = top1_interval(right, group)
        assert -1e-9 <= found.low <= 100 * right.mean() <= found.high <= 100 + 1e-9
        assert found.high - found.low > 10
    scores = leave_one_out(matrix_of(np.r_[[np.zeros(30)], [np.ones(30)]], group)).intervals()
    np.testing.assert_allclose(scores, [[0, 1], [0, 1]])


def test_few_or_unknown_subjects_leave_an_interval_over_clips():
    right = [1] * 8 + [0] * 2
    wilson = pytest.approx((49.0162, 94.3316), abs=1e-3)
    few = top1_interval(right, ["a"] * 5 + ["b"] * 4 + ["c"])
    assert ((few.low, few.high), few.subjects, few.over) == (wilson, 3, "clips")
    for subjects in (None, [""] * 10, ["a"] * 9 + [""]):
        unknown = top1_interval(right, subjects)
        assert ((unknown.low, unknown.high), unknown.subjects, unknown.over) == (wilson, None, "clips")


def test_the_caution():
    assert caution(3, 180) == "3 subjects: the interval is over clips and too narrow for new subjects"
    assert caution(1, 60) == "1 subject: the interval is over clips and too narrow for new subjects"
    assert caution(7).startswith("7 subjects")
    assert caution(8, 180) == ""  # the interval is over subjects then
    assert caution(0, 180) == ""  # nothing is known of subjects
    assert caution(5, 5) == ""  # every clip is another subject
