"""Races through real tables in many orders: at most one in a hundred wrong at 99 %. Savings are shown with `-s`.

The tables are raced as they are; only where it says so are samples drawn anew, or near-ties planted.
"""

import numpy as np
import pytest

from tests.conftest import SHARED
from tests.sightline.relevance.racing.races import (
    demo_scores,
    drawn,
    is_right,
    layer_scores,
    population,
    raced,
    rare_class,
    wrong_and_saving,
)

TABLES = ["heads_seed0", "heads_seed1", "layers_seed0", "layers_seed1", "layers_skewed"]
CUTS = [(mode, k) for mode in ("lowest", "highest") for k in (1, 2, 3)]


def show(name: str, scores: np.ndarray, count: int, **settings) -> tuple[int, float]:
    wrong, saving = wrong_and_saving(scores, range(count), **settings)
    print(f"\n{name} {scores.shape} {settings}: {wrong} of {count} wrong, saves {saving:.1f}x", end="")
    return wrong, saving


def test_the_skewed_table_is_the_one_that_was_handed_over():
    path = SHARED / "racing" / "demo_layers.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is not there: it is shared beside the repository")
    assert np.array_equal(layer_scores(path), demo_scores("layers_skewed"))


@pytest.mark.parametrize(("mode", "k"), CUTS)
def test_a_skewed_table(mode, k):
    wrong, saving = show("layers", demo_scores("layers_skewed"), 60, modes=(mode,), ks=(k,))
    assert wrong <= 1
    assert saving > 2


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.0, 0.01])
@pytest.mark.parametrize(("mode", "k"), CUTS)
def test_a_skewed_table_in_2000_orders(mode, k, tolerance):
    wrong, saving = show("layers", demo_scores("layers_skewed"), 2000, modes=(mode,), ks=(k,), tolerance=tolerance)
    assert wrong <= 20
    assert saving > 2


@pytest.mark.slow
def test_all_sets_of_a_skewed_table_together():
    wrong, _ = show("layers", demo_scores("layers_skewed"), 2000, modes=("lowest", "highest"), ks=(1, 2, 3))
    assert wrong <= 20


@pytest.mark.slow
def test_the_approximate_method_does_not_keep_its_nominal_confidence_there():
    wrong, _ = show("layers", demo_scores("layers_skewed"), 2000, method="approximate")
    assert wrong > 40


@pytest.mark.parametrize("tolerance", [0.0, 0.01])
@pytest.mark.parametrize("name", TABLES)
def test_the_demos_tables(name, tolerance):
    settings = {"modes": ("lowest", "highest"), "ks": (1, 2, 3), "tolerance": tolerance}
    wrong, saving = show(name, demo_scores(name), 10, **settings)
    assert wrong == 0
    assert saving >= 1


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.0, 0.01])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("mode", ["lowest", "highest"])
@pytest.mark.parametrize("name", TABLES)
def test_the_demos_tables_in_100_orders(name, mode, k, tolerance):
    wrong, _ = show(name, demo_scores(name), 100, modes=(mode,), ks=(k,), tolerance=tolerance)
    assert wrong <= 1


def nearly_equal(seed: int) -> np.ndarray:
    """Two skewed units, sparse as r is where a unit matters on few samples, whose means differ by a millionth."""
    generator = np.random.default_rng(seed)
    scores = np.where(generator.random((2, 400)) < 0.08, generator.uniform(0.2, 1.0, (2, 400)), 0.01)
    scores[1] *= (scores[0].mean() + 1e-6) / scores[1].mean()
    return np.minimum(scores, 1)


@pytest.mark.parametrize("confidence", [0.7, 0.99])
def test_nearly_equal_means(confidence):
    wrong, _ = show("two units", nearly_equal(0), 150, confidence=confidence)
    assert wrong <= (1 - confidence) * 150


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_nearly_equal_means_in_3000_orders(confidence, seed):
    wrong, _ = show("two units", nearly_equal(seed), 3000, confidence=confidence)
    assert wrong <= (1 - confidence) * 3000


@pytest.mark.parametrize("tolerance", [0.0, 0.01])
@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_unit_that_serves_one_rare_class(tolerance, count):
    scores = rare_class(demo_scores("heads_seed0"), 9537, 101, 0)
    wrong, saving = show("a class in 101", scores, count, tolerance=tolerance)
    assert wrong <= count / 100
    assert saving > 2


@pytest.mark.slow
def test_an_approximate_race_overlooks_a_rare_class():
    wrong, _ = show("a class in 101", rare_class(demo_scores("heads_seed0"), 9537, 101, 0), 100, method="approximate")
    assert wrong > 5


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.0, 0.01])
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("mode", ["lowest", "highest"])
@pytest.mark.parametrize("total", [911, 9500])
def test_planted_near_ties(total, mode, k, tolerance):
    count = 100 if total < 1000 else 20
    real = demo_scores("heads_seed0")
    for seed in range(count):
        scores = population(real, total, k, mode, seed)
        assert is_right(raced(scores, ks=(k,), modes=(mode,), seed=seed, tolerance=tolerance), scores)


@pytest.mark.slow
def test_a_table_as_wide_as_video_swin_small():
    """304 heads: each of the demo's 56, at several levels of relevance."""
    real = np.concatenate([demo_scores("heads_seed0"), demo_scores("heads_seed1")])
    for tolerance, least in ((0.0, 3.0), (0.01, 8.0)):
        savings = []
        for seed in range(5):
            generator = np.random.default_rng(seed)
            levels = np.exp(generator.uniform(-1, 2, 304))[:, None]
            wide = drawn(np.minimum(real[generator.integers(len(real), size=304)] * levels, 1), 9500, seed)
            race = raced(wide, ks=(1, 3, 6), seed=seed, tolerance=tolerance)
            assert is_right(race, wide)
            savings.append(race.saving)
        print(f"\n304 heads, lowest 1, 3, 6 together within {tolerance}: saves {np.mean(savings):.1f}x", end="")
        assert np.mean(savings) > least
