"""What tests of racing share: real tables as they are, populations made from them, and the race through them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.racing import Race

FILE = Path(__file__).with_name("demo_scores.npz")


def demo_scores(name: str) -> np.ndarray:
    """r of the demo, e.g. ``heads_seed0`` (units, 840); see demo_scores.md."""
    with np.load(FILE) as file:
        return file[name].astype(np.float64)


def layer_scores(path: Path) -> np.ndarray:
    """r of a layer table on disk, (units, samples)."""
    table = pd.read_parquet(path, columns=["sample_id", "layer", "r"])
    return table.pivot(index="layer", columns="sample_id", values="r").to_numpy(dtype=np.float64)


def drawn(scores: np.ndarray, total: int, seed: int) -> np.ndarray:
    """As many samples as wanted, drawn anew with replacement; no ties are planted."""
    return scores[:, np.random.default_rng(seed).integers(scores.shape[1], size=total)].copy()


def population(scores: np.ndarray, total: int, k: int, mode: str, seed: int) -> np.ndarray:
    """Draw samples anew with replacement, and plant a near-tie between places k and k + 1 of the ranking.

    The unit at place k + 1 keeps its pattern over samples and is scaled until its mean is 0.01 % to 3 % behind.
    """
    generator = np.random.default_rng(seed)
    made = scores[:, generator.integers(scores.shape[1], size=total)].copy()
    order = np.argsort(made.mean(axis=1), kind="stable")
    order = order if mode == "lowest" else order[::-1]
    last, first_left = order[k - 1], order[k]
    apart = 10 ** generator.uniform(-4, np.log10(0.03))
    wanted = made[last].mean() * (1 + apart if mode == "lowest" else 1 - apart)
    made[first_left] = np.minimum(made[first_left] * wanted / made[first_left].mean(), 1)
    return made


def rare_class(scores: np.ndarray, total: int, classes: int, seed: int) -> np.ndarray:
    """A population in which the lowest unit of most samples serves one class, on which it matters much.

    Unit 0 has a tenth of the lowest unit's scores, but on the samples of its class, one in ``classes``, 0.5 on
    average; its mean is then twice the lowest one's or more.
    """
    generator = np.random.default_rng(seed)
    made = drawn(scores, total, seed)
    lowest = made[made.mean(axis=1).argmin()]
    made[0] = lowest / 10
    served = generator.permutation(total)[: total // classes]
    made[0, served] = generator.uniform(0.1, 0.9, len(served))
    return made


def full_set(scores: np.ndarray, k: int, mode: str) -> list[int]:
    """The set that all samples choose; ties go to the lower index."""
    means = scores.mean(axis=1)
    sign = 1 if mode == "lowest" else -1
    return sorted(sorted(range(len(means)), key=lambda unit: (sign * means[unit], unit))[:k])


def raced(scores: np.ndarray, unreadable: np.ndarray | None = None, **settings) -> Race:
    """Race through all samples; for the lowest one unless told otherwise."""
    units, total = scores.shape
    race = Race(units, total, RaceSettings(**{"ks": (1,), "modes": ("lowest",), **settings}))
    race.replay(scores, unreadable)
    assert race.finished
    return race


def is_right(race: Race, scores: np.ndarray) -> bool:
    """Whether all sets are those of all samples, or as good within the tolerance."""
    means = scores.mean(axis=1)
    for (mode, k), members in race.sets.items():
        if members.tolist() == full_set(scores, k, mode):
            continue
        inside, outside = means[members], np.delete(means, members)
        beyond = inside.max() - outside.min() if mode == "lowest" else outside.max() - inside.min()
        if not 0 < beyond <= race.settings.tolerance:
            return False
    return True


def wrong_and_saving(scores: np.ndarray, seeds: Sequence[int], **settings) -> tuple[int, float]:
    """Of races in many orders: how many ended with a wrong set, and how much they saved on average."""
    races = [raced(scores, seed=seed, **settings) for seed in seeds]
    return sum(not is_right(race, scores) for race in races), float(np.mean([race.saving for race in races]))
