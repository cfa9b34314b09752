"""What tests of racing share: populations of scores made from real ones, and the race through them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sightline.relevance.racing import Race

FILE = Path(__file__).with_name("demo_scores.npz")


def demo_scores(name: str) -> np.ndarray:
    """r of the demo, e.g. ``heads_seed0`` (units, 840); see demo_scores.md."""
    with np.load(FILE) as file:
        return file[name].astype(np.float64)


def population(scores: np.ndarray, total: int, k: int, mode: str, seed: int) -> np.ndarray:
    """Draw samples anew with replacement, and plant a near-tie between places k and k + 1 of the ranking.

    The unit at place k + 1 keeps its pattern over samples and is scaled until its mean is 0.01 % to 3 % behind.
    """
    generator = np.random.default_rng(seed)
    drawn = scores[:, generator.integers(scores.shape[1], size=total)].copy()
    order = np.argsort(drawn.mean(axis=1), kind="stable")
    order = order if mode == "lowest" else order[::-1]
    last, first_left = order[k - 1], order[k]
    apart = 10 ** generator.uniform(-4, np.log10(0.03))
    wanted = drawn[last].mean() * (1 + apart if mode == "lowest" else 1 - apart)
    drawn[first_left] *= wanted / drawn[first_left].mean()
    return drawn


def full_set(scores: np.ndarray, k: int, mode: str) -> list[int]:
    """The set that all samples choose; ties go to the lower index."""
    means = scores.mean(axis=1)
    sign = 1 if mode == "lowest" else -1
    return sorted(sorted(range(len(means)), key=lambda unit: (sign * means[unit], unit))[:k])


def trials(name: str, total: int, k: int, mode: str, count: int) -> Iterator[tuple[bool, float]]:
    """Run seeded races; tell of each whether its set is that of all samples, and how much it saved."""
    real = demo_scores(name)
    for seed in range(count):
        scores = population(real, total, k, mode, seed)
        race = Race(len(scores), total, ks=(k,), modes=(mode,), seed=seed)
        race.replay(scores)
        yield race.sets[mode, k].tolist() == full_set(scores, k, mode), race.saving
