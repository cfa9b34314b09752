"""The procedure itself: by hand, beside a slow implementation, and where it must not settle anything."""

import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from sightline.relevance.racing import Race, crossing_pairs, look_ends
from sightline.relevance.ranking import rank_units
from sightline.statistics.paired_claims import PairedSums, skew_correction
from sightline.types import Unit
from tests.sightline.relevance.racing.races import demo_scores, full_set, population
from tests.sightline.relevance.tables import score_table


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


def slow_race(scores: np.ndarray, race: Race, order: np.ndarray) -> tuple[dict, np.ndarray]:
    """Sets and samples per unit of a race, with everything computed anew from the raw scores at every look."""
    u, total = scores.shape
    state = {key: np.zeros(u) for key in race.sets}  # 1 in, -1 out
    n = np.zeros(u, dtype=int)
    for end in race.ends:
        active = [i for i in range(u) if any(marks[i] == 0 for marks in state.values())]
        n[active] = end
        if end == total:
            break
        claims = slowly_below(scores[:, order[:end]], total, race.error)
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
    race = Race(len(scores), 700, ks=(1, 3, 6), modes=("lowest", "highest"), confidence=0.9, min_samples=40, seed=seed)
    race.replay(scores)
    sets, n = slow_race(scores, race, np.random.default_rng(seed).permutation(700))
    assert {key: members.tolist() for key, members in race.sets.items()} == sets
    assert race.n.tolist() == n.tolist()
    assert 1.1 < race.saving == pytest.approx(28 * 700 / n.sum())


def test_looks_and_pairs_by_hand():
    assert look_ends(273, 100) == [100, 120, 144, 173, 273]  # the next would leave 65 unseen
    assert look_ends(200, 100) == [100, 200]
    assert look_ends(199, 100) == [199]
    # Lowest 1 of 5: pairs of places (1, 2..5). Lowest 1 and 3: those and (2, 4), (2, 5), (3, 4), (3, 5).
    assert crossing_pairs(5, [1], ["lowest"]) == 4
    assert crossing_pairs(5, [1, 3], ["lowest"]) == 8
    # The highest 2 of 5 are cut where the lowest 3 are.
    assert crossing_pairs(5, [2], ["highest"]) == crossing_pairs(5, [3], ["lowest"]) == 6
    assert crossing_pairs(5, [5], ["lowest"]) == 0


def test_the_skew_correction_by_hand():
    # Of an infinite population it is Hall's (2 t^2 + 1) / (6 sqrt(n)); with half of it seen the mean has no skew.
    assert skew_correction(3.0, 100, 0.0) == pytest.approx(19 / 60)
    assert skew_correction(3.0, 100, 0.5) == pytest.approx(9 * 0.5**0.5 / 20)
    assert skew_correction(3.0, 100, 0.99) > skew_correction(3.0, 100, 0.5)


def run(scores: np.ndarray, **options) -> Race:
    race = Race(len(scores), scores.shape[1], **{"ks": (1,), **options})
    race.replay(scores)
    assert race.finished
    return race


def test_clear_differences_are_settled_at_the_first_look():
    noise = 0.01 * np.random.default_rng(0).random((4, 1000))
    race = run(noise + np.array([[0.5], [0.1], [0.3], [0.2]]), ks=(1, 2), modes=("lowest", "highest"))
    assert race.n.tolist() == race.settled_at.tolist() == [100] * 4
    assert {key: value.tolist() for key, value in race.sets.items()} == {
        ("lowest", 1): [1], ("lowest", 2): [1, 3], ("highest", 1): [0], ("highest", 2): [0, 2],
    }  # fmt: skip


def test_exact_ties_run_to_the_end_and_go_to_the_lower_index():
    generator = np.random.default_rng(0)
    same = generator.random(500)
    scores = np.stack([1 + generator.random(500), same, same[::-1].copy(), same])
    scores[2] = same
    race = run(scores)
    assert race.sets["lowest", 1].tolist() == [1]
    assert race.n.tolist() == [100, 500, 500, 500]
    assert race.settled_at.tolist() == [100, -1, -1, -1]
    assert run(-scores, modes=("highest",)).sets["highest", 1].tolist() == [1]


def test_units_that_were_zero_so_far_are_not_settled_against_each_other():
    scores = np.zeros((4, 900))
    scores[3] = 0.1 + 0.01 * np.random.default_rng(0).random(900)
    order = np.random.default_rng(0).permutation(900)
    scores[0, order[899]] = 0.9  # the only sign of unit 0's relevance comes last
    race = run(scores, ks=(2,))
    assert race.sets["lowest", 2].tolist() == [1, 2]
    assert race.n.tolist() == [900, 900, 900, 100]


def test_a_difference_that_never_varied_settles_nothing():
    """Unit 0 is ahead by the same on all samples but those that come after the last decision."""
    order = np.random.default_rng(0).permutation(900)
    late = order[look_ends(900, 100)[-2] :]
    assert 100 <= len(late) < 200
    scores = np.tile(np.random.default_rng(1).random(900), (2, 1))
    # One such number is kept exactly by rounding, the others nearly.
    for ahead in (2**-10, 0.00123456789, 1e-7):
        scores[1] = scores[0] + ahead
        changed = scores.copy()
        changed[0, late] += 0.9
        assert run(changed).sets["lowest", 1].tolist() == [1]


def test_skew_towards_what_would_hide_an_error_widens_the_interval():
    """Equal means and deviations, 0.3 beyond t: claimed where the rare values are on the harmless side."""
    skewed = np.random.default_rng(2).exponential(1.0, 400)
    skewed = (skewed - skewed.mean()) / skewed.std(ddof=1)
    t = student_t.isf(1e-4, 399)
    claims = []
    for d in (skewed, -skewed):
        sums = PairedSums(2)
        sums.add(np.array([0, 1]), np.stack([d - (t + 0.3) / 20, np.zeros(400)]))
        claims.append(sums.surely_below(np.array([0, 1]), 10**9, 1e-4).tolist())
    assert claims == [[[False, False], [False, False]], [[False, True], [False, False]]]


def test_the_error_rate_keeps_to_the_confidence():
    """Two skewed units a little apart, at a low confidence, where errors do happen."""
    wrong = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        scores = np.minimum(generator.exponential(0.05, (2, 400)), 1)
        scores[1] *= 1.03 * scores[0].mean() / scores[1].mean()
        race = Race(2, 400, ks=(1,), confidence=0.7, min_samples=30, seed=seed)
        race.replay(scores)
        wrong.append(race.sets["lowest", 1].tolist() != [0])
    # One-sided claims: at most 30 % may be wrong; Bonferroni over correlated looks leaves much fewer.
    assert 0 < np.mean(wrong) < 0.3


def test_killed_and_replayed_it_is_the_same_race():
    scores = population(demo_scores("heads_seed0"), 911, 3, "lowest", 1)
    whole = run(scores, ks=(1, 3), seed=5)
    stored = np.full_like(scores, np.nan)
    looks = 0
    while True:
        race = Race(28, 911, ks=(1, 3), seed=5)  # a new process, which knows only what is stored
        assert race.replay(stored) == looks
        if race.finished:
            break
        block = np.ix_(race.active, race.look)
        half = np.ix_(race.active, race.look[: len(race.look) // 2])
        stored[half] = scores[half]
        again = Race(28, 911, ks=(1, 3), seed=5)
        assert again.replay(stored) == looks  # a look that is stored in part decides nothing
        stored[block] = scores[block]
        looks += 1
    assert race.n.tolist() == whole.n.tolist()
    assert race.settled_at.tolist() == whole.settled_at.tolist()
    assert [v.tolist() for v in race.sets.values()] == [v.tolist() for v in whole.sets.values()]
    assert race.n.tolist() == (~np.isnan(stored)).sum(axis=1).tolist()


def test_samples_that_cannot_be_read_are_left_out():
    scores = population(demo_scores("heads_seed0"), 911, 3, "lowest", 1)
    unreadable = np.random.default_rng(8).random(911) < 0.1
    known = np.where(unreadable, np.nan, scores)
    race = Race(28, 911, ks=(3,), seed=2)
    race.replay(known, unreadable)
    assert race.finished
    assert race.sets["lowest", 3].tolist() == full_set(scores[:, ~unreadable], 3, "lowest")
    assert race.n.max() == (~unreadable).sum()


def test_all_units_wanted_and_fewer_samples_than_the_first_look():
    scores = np.random.default_rng(0).random((3, 60))
    race = run(scores, ks=(2, 3))
    assert race.sets["lowest", 3].tolist() == [0, 1, 2]
    assert race.sets["lowest", 2].tolist() == full_set(scores, 2, "lowest")
    assert race.saving == 1


def test_misuse_is_refused():
    race = Race(3, 200, ks=(1,))
    with pytest.raises(ValueError, match="scores of 3 active units on at most 100 samples"):
        race.update(np.zeros((2, 100)))
    with pytest.raises(ValueError, match="finite"):
        race.update(np.full((3, 100), np.nan))
    for options, message in (
        ({"ks": (4,)}, "between 1 and the number of units, 3"),
        ({"ks": ()}, "between 1 and"),
        ({"modes": ("low",)}, "lowest, highest or both"),
        ({"confidence": 99}, "below 1"),
        ({"min_samples": 5}, "at least 30"),
    ):
        with pytest.raises(ValueError, match=message):
            Race(3, 200, **{"ks": (1,), **options})
    race = run(np.random.default_rng(0).random((3, 60)))
    with pytest.raises(ValueError, match="0 active units"):
        race.update(np.zeros((0, 0)))


def test_a_race_is_ranked_by_its_sets_and_not_by_means_over_different_samples():
    scores = population(demo_scores("layers_seed0"), 911, 1, "lowest", 4)
    race = run(scores, ks=(1, 2), modes=("lowest", "highest"))
    units = [Unit(i) for i in range(6)]
    seen = np.full_like(scores, np.nan)
    order = np.random.default_rng(0).permutation(911)
    for unit, n in enumerate(race.n):
        seen[unit, order[:n]] = scores[unit, order[:n]]
    # Were the early samples easy, a unit that stopped early would seem irrelevant.
    seen[race.n < 911] *= 0.001
    ranking = rank_units(score_table(seen), race=race.record(units, "r"))
    layers = ranking["layer"].tolist()
    assert sorted(layers[:1]) == full_set(scores, 1, "lowest")
    assert sorted(layers[:2]) == full_set(scores, 2, "lowest")
    assert sorted(layers[-1:]) == full_set(scores, 1, "highest")
    assert sorted(layers[-2:]) == full_set(scores, 2, "highest")
    by_layer = ranking.set_index("layer").sort_index()
    assert by_layer["n"].tolist() == race.n.tolist()
    assert by_layer["settled_at"].fillna(-1).tolist() == race.settled_at.tolist()
    assert ranking["place"].tolist() == list(range(6))
