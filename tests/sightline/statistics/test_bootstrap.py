import numpy as np
import pandas as pd
import pytest

from sightline.statistics.bootstrap import chosen, resampled_means
from sightline.statistics.matrix import ScoreMatrix


def matrix_of(values: np.ndarray, group: list[str]) -> ScoreMatrix:
    units = pd.DataFrame({"layer": np.arange(len(values)), "site": "", "head": pd.NA})
    return ScoreMatrix(units, values, np.zeros(values.shape[1], dtype=np.int64), np.array(group, dtype=object))


def slow_group_means(matrix: ScoreMatrix, resamples: int, seed: int) -> np.ndarray:
    """The same draws, each resample written out sample by sample."""
    names = sorted(set(matrix.group))
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = []
    for row in drawn:
        columns = [place for g in row for place in np.flatnonzero(matrix.group == names[g])]
        means.append(np.nanmean(matrix.values[:, columns], axis=1))
    return np.array(means)


def test_groups_are_resampled_as_a_whole():
    generator = np.random.default_rng(1)
    group = [f"s{i % 9}" for i in range(31)]  # groups of three and four samples
    matrix = matrix_of(generator.random((5, 31)), group)
    drawn = resampled_means(matrix, resamples=40, seed=7)
    assert drawn.resampled == "groups"
    np.testing.assert_allclose(drawn.means, slow_group_means(matrix, 40, 7), rtol=1e-12)


def test_units_of_a_race_have_means_over_what_they_saw():
    generator = np.random.default_rng(1)
    values = generator.random((4, 40))
    values[1, 25:] = np.nan
    values[3, 12:] = np.nan
    matrix = matrix_of(values, [f"s{i % 8}" for i in range(40)])
    drawn = resampled_means(matrix, resamples=30, seed=2)
    np.testing.assert_allclose(drawn.means, slow_group_means(matrix, 30, 2), rtol=1e-12)


def test_few_groups_resample_samples():
    values = np.array([[0.0, 0.2, 0.4, 1.0], [0.1, 0.1, 0.1, 0.1]])
    drawn = resampled_means(matrix_of(values, ["a", "b", "c", "c"]), resamples=4000)
    assert drawn.resampled == "samples"
    # The bootstrap's own variance is known: that of the samples (divided by N), over N.
    assert drawn.means.mean(axis=0) == pytest.approx([0.4, 0.1], abs=0.01)
    assert drawn.means[:, 0].var() == pytest.approx(values[0].var() / 4, rel=0.1)
    assert drawn.means[:, 1] == pytest.approx(0.1)


def test_resamples_do_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    matrix = matrix_of(np.random.default_rng(0).random((3, 20)), [f"s{i % 10}" for i in range(20)])
    whole = resampled_means(matrix, resamples=50).means
    monkeypatch.setattr("sightline.statistics.bootstrap._WEIGHTS_AT_ONCE", 70)
    np.testing.assert_array_equal(resampled_means(matrix, resamples=50).means, whole)
    assert not np.array_equal(resampled_means(matrix, resamples=50, seed=1).means, whole)


def test_chosen_sets_by_hand():
    means = np.array([[0.3, 0.1, 0.1, 0.2], [0.0, 0.9, 0.9, 0.5]])
    assert chosen(means, 1, "lowest").tolist() == [[False, True, False, False], [True, False, False, False]]
    assert chosen(means, 3, "lowest").tolist() == [[False, True, True, True], [True, True, False, True]]
    assert chosen(means, 1, "highest").tolist() == [[True, False, False, False], [False, True, False, False]]
    assert chosen(means[0], 2, "highest").tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match="5 units cannot be chosen from 4"):
        chosen(means, 5, "lowest")
    with pytest.raises(ValueError, match="lowest or highest"):
        chosen(means, 1, "low")
