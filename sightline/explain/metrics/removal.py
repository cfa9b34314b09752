"""Deletion and insertion, comprehensiveness and sufficiency: what the class's probability does when parts go or come.

Parts are tubelets, or whole places over all frames (*space*), or whole frames of tubelets (*time*).

- **Deletion** (Petsiuk, Das and Saenko, "RISE", BMVC 2018): parts go, the highest first, in `STEPS` steps; the area
  under the probability over the share that is gone, by the trapezoid rule. Low is good. **Insertion**: parts come, the
  highest first, onto a clip of which all are gone. High is good.
- **Monotone share**: of the steps of an insertion from the lowest to the highest, the share in which the probability
  does not fall; every part that comes is worth more than the last. AIX360's monotonicity asks that of all single parts
  at once, which for hundreds of parts is nearly never so: it is 1 here only where the share is.
- **Comprehensiveness** and **sufficiency** (DeYoung et al., "ERASER", ACL 2020, section 4.2): how much the probability
  falls without the top k, and with nothing but the top k; mean over k = 1, 5, 10, 20 and 50 %. Comprehensiveness high,
  sufficiency low is good.

Parts of equal value go in a random order, seeded by the caller: a constant map is so a random ordering.

Shapes: B clips, M parts, N variants of a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.explain.attribution.tubelets import with_tubelets
from sightline.explain.cell_map import CellMap

Score = Callable[[Tensor], Tensor]
"""Returns the score, float64 (N,), of variants (N, 3, T, H, W) of one clip."""
STEPS = 20
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
KINDS = ("all", "space", "time")
_ROUNDING = 1e-6
"""By how much less a probability of a model in float32 may be and not have fallen."""


@dataclass(frozen=True)
class Parts:
    """What can go of a clip.

    Attributes:
        ids: Part of every pixel, int64 (T, H, W).
        count: How many there are.
    """

    ids: Tensor
    count: int

    @staticmethod
    def of(kind: str, ids: Tensor, grid: tuple[int, int, int]) -> Parts:
        """Return the parts of a kind.

        Args:
            kind: ``all`` tubelets, ``space``: each place over all frames, ``time``: each frame of tubelets.
            ids: Tubelet of every pixel, see `tubelet_ids`.
            grid: How many tubelets there are.
        """
        t, places = grid[0], grid[1] * grid[2]
        if kind == "space":
            return Parts(ids % places, places)
        if kind == "time":
            return Parts(ids // places, t)
        if kind != "all":
            raise ValueError(f"Expected parts of {', '.join(KINDS)}, got {kind!r}.")
        return Parts(ids, t * places)


def part_means(cells: CellMap, parts: Parts) -> Tensor:
    """Return the mean of each clip's map over the pixels of every part, float64 (B, M)."""
    pixels, ids = cells.pixels().double().flatten(1), parts.ids.flatten().to(cells.values.device)
    sums = pixels.new_zeros(len(pixels), parts.count).index_add(1, ids, pixels)
    return sums / ids.bincount(minlength=parts.count).clamp(min=1)


def order_of(values: Tensor, seed: int) -> Tensor:
    """Return parts from the highest value to the lowest, equal ones in a random order, int64 (M,)."""
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed)).to(values.device)
    return shuffled[values[shuffled].argsort(descending=True, stable=True)]


def counts_of(parts: int, steps: int = STEPS) -> list[int]:
    """Return how many parts have gone after every step, from none to all; each number once."""
    return sorted({round(step * parts / steps) for step in range(steps + 1)})


def curve(
    score: Score, clip: Tensor, order: Tensor, parts: Parts, base: str, counts: list[int], insert: bool
) -> Tensor:
    """Return the score after so many parts have gone, or come, in an order, float64 (len(counts),).

    Args:
        score: What is scored.
        clip: (1, 3, T, H, W).
        order: Which part goes, or comes, after which, int64 (M,).
        parts: The parts.
        base: What stands in the place of those that are gone.
        counts: After how many the score is taken.
        insert: Whether parts come.
    """
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    first = rank[None] < torch.tensor(counts, device=order.device)[:, None]
    kept = first if insert else ~first
    return score(with_tubelets(clip, kept, parts.ids, base))


def area(scores: Tensor, counts: list[int]) -> float:
    """Return the area under scores over the share of parts, by the trapezoid rule."""
    share = torch.tensor(counts, dtype=torch.float64, device=scores.device) / counts[-1]
    return float(torch.trapezoid(scores.double(), share))


def removal_metrics(score: Score, clip: Tensor, values: Tensor, parts: Parts, base: str, seed: int) -> dict[str, float]:
    """Return deletion, insertion, monotone share, comprehensiveness and sufficiency of one clip's values (M,).

    Args:
        score: What is scored.
        clip: (1, 3, T, H, W).
        values: Of every part.
        parts: The parts.
        base: What stands in the place of those that are gone.
        seed: Of the order of equal ones.
    """
    order = order_of(values, seed)
    counts = counts_of(parts.count)
    gone = curve(score, clip, order, parts, base, counts, insert=False)
    come = curve(score, clip, order, parts, base, counts, insert=True)
    rising = curve(score, clip, order.flip(0), parts, base, counts, insert=True)
    tops = [max(round(share * parts.count), 1) for share in SHARES]
    without = curve(score, clip, order, parts, base, tops, insert=False)
    alone = curve(score, clip, order, parts, base, tops, insert=True)
    return {
        "deletion": area(gone, counts),
        "insertion": area(come, counts),
        "monotone_share": float((rising.diff() >= -_ROUNDING).double().mean()),
        "comprehensiveness": float((gone[0] - without).mean()),
        "sufficiency": float((gone[0] - alone).mean()),
    }
