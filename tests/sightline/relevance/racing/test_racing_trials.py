"""Racing against the full data: the same set in 99 % of races, and what it saves. Shown with `pytest -s`."""

import numpy as np
import pytest

from tests.sightline.relevance.racing.races import demo_scores, trials

COUNT = 300


def show(name: str, total: int, k: int, mode: str, count: int) -> tuple[float, float]:
    right, savings = zip(*trials(name, total, k, mode, count), strict=True)
    print(f"\n{name}, {total} samples, {mode} {k}: right {sum(right)}/{count}, saves {np.mean(savings):.1f}x", end="")
    return float(np.mean(right)), float(np.mean(savings))


@pytest.mark.parametrize(("k", "saving", "count"), [(1, 4.0, 100), (3, 3.0, COUNT), (6, 2.5, 100)])
def test_races_over_900_samples(k, saving, count):
    right, saved = show("heads_seed0", 911, k, "lowest", count)
    assert right >= 0.99
    assert saved >= saving


def test_races_over_9500_samples():
    right, saved = show("heads_seed0", 9500, 3, "lowest", 40)
    assert right == 1.0
    assert saved >= 8


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("mode", ["lowest", "highest"])
@pytest.mark.parametrize("total", [911, 9500])
@pytest.mark.parametrize("name", ["heads_seed0", "heads_seed1", "layers_seed0", "layers_seed1"])
def test_every_table(name, total, mode, k):
    if k >= len(demo_scores(name)):
        pytest.skip("all units are in the set")
    right, saved = show(name, total, k, mode, COUNT)
    assert right >= 0.99
    assert saved > 1


@pytest.mark.slow
def test_a_table_as_wide_as_video_swin_small():
    """304 heads: each of the demo's 56, at several levels of relevance."""
    import sightline.relevance.racing as racing
    from tests.sightline.relevance.racing.races import full_set, population

    real = np.concatenate([demo_scores("heads_seed0"), demo_scores("heads_seed1")])
    savings = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        levels = np.exp(generator.uniform(-1, 2, 304))[:, None]
        wide = real[generator.integers(len(real), size=304)] * levels
        scores = population(np.minimum(wide, 1), 9500, 3, "lowest", seed)
        race = racing.Race(304, 9500, ks=(1, 3, 6), seed=seed)
        race.replay(scores)
        assert all(members.tolist() == full_set(scores, k, mode) for (mode, k), members in race.sets.items())
        savings.append(race.saving)
    print(f"\n304 heads, 9500 samples, lowest 1, 3, 6 together: saves {np.mean(savings):.1f}x", end="")
    assert np.mean(savings) > 8
