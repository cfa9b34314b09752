"""Approximate races: the claims beside a slow implementation, and where they must not settle anything."""

import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.racing import Race, look_ends
from sightline.statistics.paired_claims import PairedSums, skew_correction
from tests.sightline.relevance.racing.races import demo_scores, full_set, population, raced


def slowly_below(x: np.ndarray, total: int, error: float) -> np.ndarray:
    """The claims after a look at x (A, n), pair by pair, straight from their definition."""
    n = x.shape[1]
    t = student_t.isf(error, n - 1)
    claims = np.zeros((len(x), len(x)), dtype=bool)
    for a in range(len(x)):
        for b in range(len(x)):
            d = x[a] - x[b]
            if d.std() < 1e-12:
                continue
            skew = ((d - d.mean()) ** 3).mean() / d.std() ** 3
            f = n / total
            edgeworth = t**2 * math.sqrt(1 - f) / 2 - (t**2 - 1) * (1 - 2 * f) / (6 * math.sqrt(1 - f))
            factor = t + max(skew + 3 * math.sqrt(6 / n), 0) * edgeworth / math.sqrt(n)
            claims[a, b] = d.mean() + factor * d.std(ddof=1) * math.sqrt((1 - n / total) / n) < 0
    return claims


def slow_race(scores: np.ndarray, race: Race, error: float) -> tuple[dict, np.ndarray]:
    """Sets and samples per unit of a race, counting claims, with everything computed anew at every look."""
    u, total = scores.shape
    state = {key: np.zeros(u) for key in race.sets}  # 1 in, -1 out
    n = np.zeros(u, dtype=int)
    for end in race.ends:
        active = [i for i in range(u) if any(marks[i] == 0 for marks in state.values())]
        n[active] = end
        if end == total:
            break
        claims = slowly_below(scores[:, race.order[:end]], total, error)
        for (mode, k), marks in state.items():
            sure = claims if mode == "lowest" else claims.T
            while True:
                rest = [i for i in range(u) if marks[i] == 0]
                wanted = k - (marks == 1).sum()
                ins = [i for i in rest if wanted and sum(sure[i, j] for j in rest) >= len(rest) - wanted]
                outs = [i for i in rest if sum(sure[j, i] for j in rest) >= wanted]
                marks[ins], marks[outs] = 1, -1
                if not ins and not outs:
                    break
    for (mode, k), marks in state.items():
        rest = [i for i in range(u) if marks[i] == 0]
        picked = full_set(scores[rest], k - int((marks == 1).sum()), mode)
        marks[[rest[i] for i in picked]] = 1
    return {key: np.flatnonzero(marks == 1).tolist() for key, marks in state.items()}, n


@pytest.mark.parametrize("seed", range(3))
def test_a_race_agrees_with_the_slow_one(seed):
    scores = population(demo_scores("heads_seed1"), 700, 3, "lowest", seed)
    settings = {"ks": (1, 3, 6), "modes": ("lowest", "highest"), "confidence": 0.9, "min_samples": 40, "seed": seed}
    race = raced(scores, method="approximate", **settings)
    # 6 (28 - 6) pairs and those among the first six that the cuts after 1 and 3 separate: 1 * 5 + 2 * 3; twice.
    sets, n = slow_race(scores, race, 0.1 / (2 * (132 + 11) * (len(race.ends) - 1)))
    assert {key: members.tolist() for key, members in race.sets.items()} == sets
    assert race.n.tolist() == n.tolist()
    assert 1.1 < race.saving == pytest.approx(28 * 700 / n.sum())


def test_the_skew_correction_by_hand():
    # Of an infinite population it is Hall's (2 t^2 + 1) / (6 sqrt(n)); with half of it seen the mean has no skew.
    assert skew_correction(3.0, 100, 0.0) == pytest.approx(19 / 60)
    assert skew_correction(3.0, 100, 0.5) == pytest.approx(9 * 0.5**0.5 / 20)
    assert skew_correction(3.0, 100, 0.99) > skew_correction(3.0, 100, 0.5)


def test_clear_differences_are_settled_at_the_first_look():
    noise = 0.01 * np.random.default_rng(0).random((4, 1000))
    scores = noise + np.array([[0.5], [0.1], [0.3], [0.2]])
    race = raced(scores, ks=(1, 2), modes=("lowest", "highest"), method="approximate")
    assert race.n.tolist() == race.settled_at.tolist() == [100] * 4


def test_a_difference_that_never_varied_settles_nothing():
    """Unit 0 is ahead by the same on all samples but those that come after the last decision."""
    late = Race(2, 900, RaceSettings(ks=(1,))).order[look_ends(900, 100, 100)[-2] :]
    assert 100 <= len(late) < 200
    scores = 0.05 * np.tile(np.random.default_rng(1).random(900), (2, 1))
    # One such number is kept exactly by rounding, the others nearly.
    for ahead in (2**-10, 0.00123456789, 1e-7):
        scores[1] = scores[0] + ahead
        changed = scores.copy()
        changed[0, late] += 0.9
        assert raced(changed, method="approximate").sets["lowest", 1].tolist() == [1]


def test_skew_towards_what_would_hide_an_error_widens_the_interval():
    """Equal means and deviations, 0.3 beyond t: claimed where the rare values are on the harmless side."""
    skewed = np.random.default_rng(2).exponential(1.0, 400)
    skewed = (skewed - skewed.mean()) / skewed.std(ddof=1)
    t = student_t.isf(1e-4, 399)
    claims = []
    for d in (skewed, -skewed):
        sums = PairedSums(2, 10**9, 1e-4)
        sums.add(np.array([0, 1]), np.stack([d - (t + 0.3) / 20, np.zeros(400)]))
        claims.append(sums.below(np.array([0, 1])).tolist())
    assert claims == [[[0, 0], [0, 0]], [[0, 1], [0, 0]]]
