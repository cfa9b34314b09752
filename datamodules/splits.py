"""Dividing a data set so that no subject is in two parts and every part has about the same mix of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FRACTIONS = (0.7, 0.15, 0.15)
NAMES = ("train", "val", "test")

_STARTS = 8
_STEPS = 200
_MANY = 100
_GAIN = 1e-9  # less is rounding
_EMPTY_PART = 1000.0  # the penalties are far apart so that a worse fault is never traded for lesser ones
_CLASS_UNTRAINED = 100.0
_CLASS_ABSENT = 1.0


def subject_disjoint_split(
    labels: Sequence[str] | Sequence[int],
    subjects: Sequence[str],
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    names: Sequence[str] = NAMES,
) -> list[str]:
    """Divide clips into parts of given sizes, each subject's clips into one part, balancing the classes.

    Subjects are few, so sizes can only be approached. What is sought, in this order: no part is empty; the first part
    has every class; every part has every class that enough subjects show; class counts and sizes come near their share.
    The result depends on how many clips of each class each subject has and on the seed, not on the order of the clips.

    Args:
        labels: Class of each clip.
        subjects: Who is seen in it; at least as many different ones as there are parts.
        fractions: Share of each part; the sum is 1.
        seed: Fixes the choice among divisions of about equal quality.
        names: What the parts are called.

    Returns:
        The name of each clip's part.
    """
    if len(labels) != len(subjects):
        raise ValueError(f"Expected one subject per label, got {len(subjects)} subjects for {len(labels)} labels.")
    if len(names) != len(fractions) or abs(sum(fractions) - 1) > 1e-6 or min(fractions) <= 0:
        raise ValueError(f"Expected one positive fraction for each of {names}, with the sum 1, got {tuple(fractions)}.")
    people, person_of = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    if len(people) < len(names):
        raise ValueError(
            f"Expected at least {len(names)} subjects to divide among {', '.join(names)}, got {len(people)} "
            f"({', '.join(people)}). Add subjects, or say in a split column which clip belongs where."
        )
    classes, class_of = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    counts = np.zeros((len(people), len(classes)))
    np.add.at(counts, (person_of, class_of), 1)
    part_of = _best_division(counts, np.asarray(fractions), np.random.default_rng(seed))
    return [names[part_of[person]] for person in person_of]


def division_cost(parts: np.ndarray, counts: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """How bad parts are, one number each: 0 is a part with exactly its share of every class.

    Args:
        parts: (..., S, C) clips of each class in each of S parts.
        counts: (G, C) clips of each class that each subject has.
        fractions: (S,) share of each part.

    Returns:
        (..., S).
    """
    per_class = counts.sum(0)
    share = fractions[:, None] * per_class
    cost = (np.abs(parts - share) / per_class).mean(-1)
    size = parts.sum(-1)
    cost = cost + np.abs(size - share.sum(-1)) / per_class.sum() + _EMPTY_PART * (size == 0)
    weight = np.full(share.shape, _CLASS_ABSENT)
    weight[:, (counts > 0).sum(0) < len(fractions)] = 0  # too few subjects show this class for all parts to have it
    weight[0] = _CLASS_UNTRAINED
    return cost + (weight * (parts == 0)).sum(-1)


def _best_division(counts: np.ndarray, fractions: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The cheapest of several random divisions, each improved as far as moving and exchanging subjects can."""
    starts = 1 if len(counts) > _MANY else _STARTS
    found = [_improved(_greedy(counts, fractions, random), counts, fractions) for _ in range(starts)]
    return min(found, key=lambda part_of: _total(part_of, counts, fractions))


def _parts(part_of: np.ndarray, counts: np.ndarray, num_parts: int) -> np.ndarray:
    parts = np.zeros((num_parts, counts.shape[1]))
    np.add.at(parts, part_of, counts)
    return parts


def _total(part_of: np.ndarray, counts: np.ndarray, fractions: np.ndarray) -> float:
    return float(division_cost(_parts(part_of, counts, len(fractions)), counts, fractions).sum())


def _greedy(counts: np.ndarray, fractions: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Give the subjects, in random order, each to the part that misses its classes most."""
    part_of = np.zeros(len(counts), dtype=int)
    missing = fractions[:, None] * counts.sum(0)
    for person in random.permutation(len(counts)):
        # Relative to the share, or the largest part would be filled first and the smallest stay empty.
        wanted = ((missing / fractions[:, None]) * counts[person]).sum(1)
        part_of[person] = int(wanted.argmax())
        missing[part_of[person]] -= counts[person]
    return part_of


def _improved(part_of: np.ndarray, counts: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Move one subject or, where no move helps, exchange two, as long as that lowers the cost."""
    part_of = part_of.copy()
    for _ in range(_STEPS):
        parts = _parts(part_of, counts, len(fractions))
        cost = division_cost(parts, counts, fractions).sum()
        moved = division_cost(_after_moves(parts, part_of, counts), counts, fractions).sum(-1)
        if moved.min() < cost - _GAIN:
            person, place = np.unravel_index(moved.argmin(), moved.shape)
            part_of[person] = place
            continue
        if len(counts) > _MANY:  # moves alone come close enough, and pairs would be too many
            break
        swapped = division_cost(_after_swaps(parts, part_of, counts), counts, fractions).sum(-1)
        if swapped.min() >= cost - _GAIN:
            break
        one, other = np.unravel_index(swapped.argmin(), swapped.shape)
        part_of[[one, other]] = part_of[[other, one]]
    return part_of


def _after_moves(parts: np.ndarray, part_of: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The parts (G, S, S, C) that moving each of G subjects to each of S parts would leave."""
    places = np.eye(len(parts))
    change = places[None] - places[part_of][:, None]
    return parts + change[..., None] * counts[:, None, None]


def _after_swaps(parts: np.ndarray, part_of: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The parts (G, G, S, C) that exchanging each two subjects would leave."""
    place = np.eye(len(parts))[part_of]
    change = place[:, None] - place[None]
    return parts + change[..., None] * (counts[None] - counts[:, None])[:, :, None]
