"""The interval of a mean against scipy's, over clips and over subjects."""

import numpy as np
import pytest
from scipy import stats

from sightline.statistics.mean_interval import mean_interval


def test_over_clips_it_is_students():
    values = [1.0, 4.0, 2.5, 100.0]
    found = mean_interval(values, ["a"] * 4)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.mean, found.over) == (26.875, "clips")
    assert (found.low, found.high) == pytest.approx(expected)


def test_one_subject_a_clip_is_the_same_over_subjects():
    values = np.random.default_rng(0).normal(5, 2, 12)
    found = mean_interval(values, [f"s{i}" for i in range(12)])
    assert found.over == "subjects"
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 11, values.mean(), stats.sem(values)))


def test_subjects_that_differ_widen_it():
    values = np.repeat(np.arange(8.0), 10) + np.tile([0.01, -0.01], 40)
    found = mean_interval(values, np.repeat([f"s{i}" for i in range(8)], 10))
    plain = stats.t.interval(0.95, 79, values.mean(), stats.sem(values))
    assert found.high - found.low > 2 * (plain[1] - plain[0])


def test_one_clip_has_no_interval_and_none_is_an_error():
    assert np.isnan(mean_interval([3.0], ["a"]).low)
    with pytest.raises(ValueError, match="Expected the value of every clip"):
        mean_interval([], [])
