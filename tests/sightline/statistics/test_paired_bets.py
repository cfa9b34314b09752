"""Bets on pairs: the formulas taken literally, draw by draw, and what makes them evidence."""

import itertools
import math

import numpy as np
import pytest

from sightline.statistics.paired_bets import PairedBets


def literal(x_u, x_v, total: int, eps: float = 0.0, unreadable=()) -> float:
    """The e-value, after these draws, for v's mean being less than u's plus eps; straight from the definition."""
    e, s, q, read = 1.0, 0.0, 0.0, 0
    for t, (a, b) in enumerate(zip(x_u, x_v, strict=True), start=1):
        d = 0.0 if t - 1 in unreadable else a - b
        known = total - (t - 1 - read)  # samples that may be readable yet
        mu = (-eps * known - s) / (total - t + 1)
        if mu <= -1 - 1e-9:
            return math.inf
        m = s / (t + 9)
        v = max((0.1 + q) / (t + 9) - m**2, 1e-8)
        g = m - mu
        stake = min(max(g / (v + g**2), 0.0), 0.99 / (1 + mu)) if 1 + mu >= 1e-9 else 0.0
        e *= 1 + stake * ((-eps if t - 1 in unreadable else d) - mu)
        s, q, read = s + d, q + d**2, read + (t - 1 not in unreadable)
    return e


def betting(x: np.ndarray, total: int, tolerance: float = 0.0, sizes=(7, 1, 200)) -> PairedBets:
    """Draws (U, S), added in blocks of several sizes."""
    bets = PairedBets(len(x), total, 1.0, tolerance)
    start = 0
    for size in itertools.cycle(sizes):
        if start >= x.shape[1]:
            return bets
        bets.add(np.arange(len(x)), x[:, start : start + size])
        start += size


@pytest.mark.parametrize("drawn", [1, 40, 280, 300])
def test_all_pairs_at_once_are_the_formulas_taken_literally(drawn):
    x = np.minimum(np.random.default_rng(0).exponential(0.1, (4, 300)) * np.array([[1], [1.3], [2], [6]]), 1)
    bets = betting(x[:, :drawn], 300, 0.02)
    units = np.arange(4)
    for eps, found in ((0.0, bets.below(units)), (0.02, bets.nearly_below(units))):
        for v, u in itertools.permutations(range(4), 2):
            # Products of a few hundred factors, in another order.
            assert found[v, u] == pytest.approx(literal(x[u, :drawn], x[v, :drawn], 300, eps), rel=1e-9)


def test_by_hand():
    # N = 4, d = 0.01 twice. Nothing is staked first: m = mu = 0. Then mu = -0.01/3, m = 0.01/11, g = 0.0042424,
    # V = 0.1001/11 - m^2 = 0.0090992, and the stake is g / (V + g^2) = 0.46532.
    bets = betting(np.array([[0.0, 0.0], [0.01, 0.01]]), 4)
    assert bets.below(np.arange(2))[0, 1] == pytest.approx(1 + 0.46532 * 0.04 / 3, rel=1e-6)
    assert bets.below(np.arange(2))[1, 0] == 1.0  # no stake on what looks false
    # d = 0.5 twice: mu = -1/6, and the stake would be 2.8 but for its cap of 0.99 / (5/6) = 1.188.
    bets = betting(np.array([[0.0, 0.0], [0.5, 0.5]]), 4)
    assert bets.below(np.arange(2))[0, 1] == pytest.approx(1 + 1.188 * 2 / 3)


def test_what_has_become_impossible_is_proven_and_a_possible_tie_is_not():
    ahead = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    # After 3 of 5 draws the last two cannot turn it; of 6 they could make it a tie.
    assert betting(np.c_[ahead, [[0.5], [0.5]]], 5).below(np.arange(2))[0, 1] == np.inf
    assert np.isfinite(betting(np.c_[ahead, [[1.0], [0.0]]], 6).below(np.arange(2))[0, 1])


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_over_all_orders_the_evidence_for_what_is_false_does_not_grow(eps):
    """All 720 orders of six samples, one of them unreadable: at every draw the mean e-value is at most 1."""
    u = np.array([0.1, 0.9, 0.0, 0.3, 0.8, 0.5])
    v = u + np.array([0.1, -0.6, 0.3, 0.2, -0.1, 0.0])
    # Of the five that are read, v's mean is above u's by exactly eps.
    v[:5] += eps - (v - u)[:5].mean()
    x = np.stack([u, v])
    x = (x - x.min()) / max(1.0, np.ptp(x))
    eps = float((x[1] - x[0])[:5].mean())
    x[:, 5] = np.nan
    values = []
    for order in itertools.permutations(range(6)):
        bets = PairedBets(2, 6, 1.0, eps)
        after = []
        for place in order[:5]:
            bets.add(np.arange(2), x[:, [place]])
            after.append(bets.nearly_below(np.arange(2))[1, 0])
        values.append(after)
    means = np.mean(values, axis=0)
    assert (means <= 1 + 1e-9).all()
    assert means[-1] > 0.5  # it is tested: stakes were made


@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_unreadable_samples_are_draws_without_a_difference(eps):
    generator = np.random.default_rng(3)
    x = np.minimum(generator.exponential(0.1, (2, 150)) * np.array([[1], [2]]), 1)
    unreadable = set(generator.choice(150, 30, replace=False).tolist())
    seen = x.copy()
    seen[:, sorted(unreadable)] = np.nan
    found = betting(seen, 200, eps).nearly_below(np.arange(2))
    assert found[0, 1] == pytest.approx(literal(x[1], x[0], 200, eps, unreadable), rel=1e-9)
    assert found[0, 1] > 10


def test_who_is_not_active_keeps_what_it_had():
    x = np.random.default_rng(4).random((3, 60)) * np.array([[0.2], [0.5], [1.0]])
    bets = PairedBets(3, 100, 5.0)
    bets.add(np.arange(3), x[:, :30])
    before = bets.below(np.arange(3))
    bets.add(np.array([0, 2]), x[[0, 2], 30:])
    after = bets.below(np.arange(3))
    assert (after[1] == before[1]).all()
    assert (after[:, 1] == before[:, 1]).all()
    assert after[0, 2] == pytest.approx(literal(x[2], x[0], 100) / 5)


def test_large_stakes_do_not_leave_the_numbers_a_computer_has():
    # Nearly constant differences allow the largest stakes; then all of them jump.
    d = np.r_[np.full(3000, 1e-4), np.ones(1000)]
    bets = betting(np.stack([np.zeros(4000), d]), 10**7, sizes=(500,))
    values = bets.below(np.arange(2))
    assert np.isfinite(values[0, 1])
    assert values[0, 1] > 1e200
    assert values[1, 0] >= 0
