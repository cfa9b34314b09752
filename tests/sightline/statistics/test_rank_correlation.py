import warnings

import numpy as np
import pytest

from sightline.statistics.rank_correlation import spearman


def test_by_hand():
    a = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 1, 2, 3], [5, 5, 5, 5]])
    b = np.array([[10.0, 20, 30, 99], [4, 3, 2, 1], [1, 2, 2, 3], [1, 2, 3, 4]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a row of equal values is no accident here
        found = spearman(a, b)
    # Row 2: ranks 1.5 1.5 3 4 and 1 2.5 2.5 4; centred products 3.75, squares 4.5 both.
    assert found[:3] == pytest.approx([1, -1, 3.75 / 4.5])
    assert np.isnan(found[3])


def test_without_ties_it_is_one_minus_six_times_the_squared_rank_differences():
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 9)), rng.random((5, 9))
    for x, y, found in zip(a, b, spearman(a, b), strict=True):
        ranks = [[sorted(values).index(value) for value in values] for values in (x, y)]
        d2 = sum((i - j) ** 2 for i, j in zip(*ranks, strict=True))
        assert found == pytest.approx(1 - 6 * d2 / (9 * 80))


def test_one_pair_of_rows_and_one_value_alone():
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)
    assert np.isnan(spearman(np.array([1.0]), np.array([2.0])))
