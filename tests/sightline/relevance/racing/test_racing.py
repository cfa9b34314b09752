"""The race itself: beside a slow implementation, through interruptions, and where it must not settle anything."""

import itertools

import numpy as np
import pytest

from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.racing import Race, look_ends
from sightline.relevance.ranking import rank_units
from sightline.types import Unit
from tests.sightline.relevance.racing.races import demo_scores, drawn, full_set, is_right, population, raced
from tests.sightline.relevance.tables import score_table
from tests.sightline.statistics.test_paired_bets import literal

BOTH = ("lowest", "highest")


def slow_race(scores: np.ndarray, ks, delta: float, order: np.ndarray, ends: list[int]) -> tuple[dict, np.ndarray]:
    """Lowest sets and samples per unit, with every e-value computed anew from the raw scores at every look."""
    u, total = scores.shape
    separated = {(a, b) for k in ks for a in range(k) for b in range(k, u)}  # places of the true ranking
    enough = len(separated) / delta
    state = {k: np.zeros(u) for k in ks}  # 1 in, -1 out
    n = np.zeros(u, dtype=int)
    for end in ends:
        active = [i for i in range(u) if any(marks[i] == 0 for marks in state.values())]
        n[active] = end
        if not active or end == total:
            break
        x = scores[:, order[:end]]
        e = {(u_, v): literal(x[u_], x[v], total) for u_, v in itertools.permutations(active, 2)}  # v below u_
        for k, marks in state.items():
            changed = True
            while changed and (marks == 0).any():
                rest = [i for i in range(u) if marks[i] == 0]
                wanted = k - int((marks == 1).sum())
                changed = False
                for i in rest:
                    rivals = [j for j in rest if j != i]
                    below = sorted(e[j, i] for j in rivals)
                    above = sorted(e[i, j] for j in rivals)
                    if wanted == 0 or (wanted < len(rest) and sum(above[: len(rest) - wanted]) >= enough):
                        marks[i], changed = -1, True
                    elif wanted == len(rest) or sum(below[:wanted]) >= enough:
                        marks[i], changed = 1, True
                    if changed:
                        break
    for k, marks in state.items():
        rest = [i for i in range(u) if marks[i] == 0]
        picked = full_set(scores[rest], k - int((marks == 1).sum()), "lowest") if rest else []
        marks[[rest[i] for i in picked]] = 1
    return {k: np.flatnonzero(marks == 1).tolist() for k, marks in state.items()}, n


@pytest.mark.parametrize("seed", range(3))
def test_a_race_agrees_with_the_slow_one(seed):
    scores = drawn(demo_scores("layers_seed1"), 300, seed)
    race = raced(scores, ks=(1, 3), confidence=0.9, seed=seed)
    sets, n = slow_race(scores, (1, 3), 0.1, race.order, look_ends(300, 30))
    assert {k: members.tolist() for (_, k), members in race.sets.items()} == sets
    assert race.n.tolist() == n.tolist()
    assert 1.2 < race.saving == pytest.approx(6 * 300 / n.sum())


def test_looks_by_hand():
    assert look_ends(273, 100, 100) == [100, 120, 144, 173, 273]  # the next would leave 65 unseen
    assert look_ends(200, 100, 100) == [100, 200]
    assert look_ends(199, 100, 100) == [199]
    assert look_ends(42, 20) == [20, 24, 29, 35, 42]
    assert look_ends(20, 20) == [20]


def test_every_order_is_as_likely_as_any_other():
    """Of three samples: six orders, a sixth of the seeds each; and no order that another use of the seed draws."""
    settings = [RaceSettings(ks=(1,), seed=seed) for seed in range(1200)]
    orders = [tuple(Race(2, 3, one).order.tolist()) for one in settings]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    # Chi-square with 5 degrees of freedom: above 20.5 with a probability of 0.1 %.
    assert sum((count - 200) ** 2 / 200 for count in counts) < 20.5
    long = Race(2, 500, settings[7]).order
    assert sorted(long.tolist()) == list(range(500))
    assert long.tolist() != np.random.default_rng(7).permutation(500).tolist()
    assert long.tolist() == Race(2, 500, settings[7]).order.tolist()


def test_clear_differences_are_settled_early():
    noise = 0.01 * np.random.default_rng(0).random((4, 1000))
    race = raced(noise + np.array([[0.9], [0.1], [0.6], [0.3]]), ks=(1, 2), modes=BOTH)
    assert race.n.max() <= 60
    assert {key: value.tolist() for key, value in race.sets.items()} == {
        ("lowest", 1): [1], ("lowest", 2): [1, 3], ("highest", 1): [0], ("highest", 2): [0, 2],
    }  # fmt: skip


@pytest.mark.parametrize("method", ["guaranteed", "approximate"])
def test_exact_ties_run_to_the_end_and_go_to_the_lower_index(method):
    generator = np.random.default_rng(0)
    same = 0.3 * generator.random(500)
    scores = np.stack([0.6 + 0.3 * generator.random(500), same, same, same])
    race = raced(scores, modes=BOTH, method=method)
    assert race.sets["lowest", 1].tolist() == [1]
    assert race.sets["highest", 1].tolist() == [0]
    assert race.n[0] < 200
    assert race.n[1:].tolist() == [500] * 3
    assert race.settled_at[1:].tolist() == [-1] * 3
    assert raced(1 - scores, modes=("highest",), method=method).sets["highest", 1].tolist() == [1]


@pytest.mark.parametrize("seed", range(40))
def test_ties_that_differ_on_every_sample_are_never_wrong(seed):
    """Units 1 and 2 hold the same numbers in another order, in multiples of 2^-10, so that their sums are equal."""
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 512, 300) / 1024
    scores = np.stack([0.5 + generator.integers(0, 512, 300) / 1024, generator.permutation(values), values])
    race = raced(scores, ks=(1, 2), modes=BOTH, confidence=0.9, seed=seed)
    assert race.sets["lowest", 1].tolist() == [1]
    assert race.sets["highest", 2].tolist() == [0, 1]
    assert race.n[1:].tolist() == [300, 300]


def test_units_that_were_zero_so_far_are_not_settled_against_each_other():
    scores = np.zeros((4, 900))
    scores[3] = 0.9 + 0.01 * np.random.default_rng(0).random(900)
    order = Race(4, 900, RaceSettings()).order
    scores[0, order[899]] = 0.9  # the only sign of unit 0's relevance comes last
    race = raced(scores, ks=(2,))
    assert race.sets["lowest", 2].tolist() == [1, 2]
    assert race.n[:3].tolist() == [900] * 3
    assert race.n[3] < 100


def test_within_a_tolerance_ties_stop_early_and_sets_are_nested():
    generator = np.random.default_rng(0)
    same = 0.02 * generator.random((5, 4000))
    scores = np.concatenate([same, 0.5 + 0.1 * generator.random((1, 4000))])
    race = raced(scores, ks=(1, 3), modes=BOTH, tolerance=0.05)
    assert is_right(race, scores)
    assert race.n.max() < 1500
    assert set(race.sets["lowest", 1]) < set(race.sets["lowest", 3])
    assert 5 in race.sets["highest", 1]
    assert not set(race.sets["highest", 3]) & set(race.sets["lowest", 3])
    exact = {(one["mode"], one["k"]): one["exact"] for one in race.record([Unit(i) for i in range(6)])["sets"]}
    assert not exact["lowest", 1]
    assert not exact["lowest", 3]
    assert raced(scores, ks=(1, 3), modes=BOTH).n.max() == 4000


@pytest.mark.parametrize("settings", [{}, {"tolerance": 0.01}, {"method": "approximate"}])
def test_killed_and_replayed_it_is_the_same_race(settings):
    scores = population(demo_scores("heads_seed0"), 911, 3, "lowest", 1)
    chosen = RaceSettings(ks=(1, 3), modes=("lowest",), seed=5, **settings)
    whole = raced(scores, ks=(1, 3), seed=5, **settings)
    stored = np.full_like(scores, np.nan)
    looks = 0
    while True:
        race = Race(28, 911, chosen)  # a new process, which knows only what is stored
        assert race.replay(stored) == looks
        if race.finished:
            break
        block = np.ix_(race.active, race.look)
        half = np.ix_(race.active, race.look[: len(race.look) // 2])
        stored[half] = scores[half]
        again = Race(28, 911, chosen)
        assert again.replay(stored) == looks  # a look that is stored in part decides nothing
        stored[block] = scores[block]
        looks += 1
    assert race.n.tolist() == whole.n.tolist()
    assert race.settled_at.tolist() == whole.settled_at.tolist()
    assert [v.tolist() for v in race.sets.values()] == [v.tolist() for v in whole.sets.values()]
    assert race.n.tolist() == (~np.isnan(stored)).sum(axis=1).tolist()


@pytest.mark.parametrize("settings", [{}, {"tolerance": 0.01}, {"method": "approximate"}])
def test_samples_that_cannot_be_read_are_left_out(settings):
    scores = population(demo_scores("heads_seed0"), 911, 3, "lowest", 1)
    unreadable = np.random.default_rng(8).random(911) < 0.1
    known = np.where(unreadable, np.nan, scores)
    race = raced(known, unreadable, ks=(3,), seed=2, **settings)
    assert is_right(race, scores[:, ~unreadable])
    assert race.n.max() <= (~unreadable).sum()
    assert settings.get("tolerance") or race.n.max() == (~unreadable).sum()


def test_all_units_wanted_and_fewer_samples_than_the_first_look():
    scores = np.random.default_rng(0).random((3, 15))
    race = raced(scores, ks=(2, 3))
    assert race.sets["lowest", 3].tolist() == [0, 1, 2]
    assert race.sets["lowest", 2].tolist() == full_set(scores, 2, "lowest")
    assert race.saving == 1


def test_misuse_is_refused():
    race = Race(3, 200, RaceSettings(ks=(1,)))
    with pytest.raises(ValueError, match="scores of 3 active units on 30 samples"):
        race.update(np.zeros((2, 30)))
    with pytest.raises(ValueError, match="must lie in"):
        race.update(np.full((3, 30), 1.5))
    some = np.zeros((3, 30))
    some[1, 4] = np.nan
    with pytest.raises(ValueError, match="for none"):
        race.update(some)
    with pytest.raises(ValueError, match="the number of units, 3"):
        Race(3, 200, RaceSettings(ks=(4,)))
    with pytest.raises(ValueError, match="needs units and samples"):
        Race(3, 0, RaceSettings(ks=(1,)))
    race = raced(np.random.default_rng(0).random((3, 60)))
    with pytest.raises(ValueError, match="0 active units"):
        race.update(np.zeros((0, 0)))


@pytest.mark.parametrize("settings", [{}, {"tolerance": 0.05}])
def test_a_race_is_ranked_by_its_sets_and_not_by_means_over_different_samples(settings):
    scores = population(demo_scores("layers_seed0"), 911, 1, "lowest", 4)
    race = raced(scores, ks=(1, 2), modes=BOTH, **settings)
    units = [Unit(i) for i in range(6)]
    seen = np.full_like(scores, np.nan)
    for unit, n in enumerate(race.n):
        seen[unit, race.order[:n]] = scores[unit, race.order[:n]]
    # Were the early samples easy, a unit that stopped early would seem irrelevant.
    seen[race.n < 911] *= 0.001
    ranking = rank_units(score_table(seen), race=race.record(units))
    layers = ranking["layer"].tolist()
    for (mode, k), members in race.sets.items():
        assert sorted(layers[:k] if mode == "lowest" else layers[-k:]) == members.tolist()
    by_layer = ranking.set_index("layer").sort_index()
    assert by_layer["n"].tolist() == race.n.tolist()
    assert by_layer["settled_at"].fillna(-1).tolist() == race.settled_at.tolist()
    assert ranking["place"].tolist() == list(range(6))
