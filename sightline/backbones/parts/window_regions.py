"""The parts of (shifted) windows within which cells attend to each other.

A shifted window falls into regions that were neighbours before the cyclic shift, and its mask keeps these from
attending to each other. Where each region is a group of its own, no mask is needed. That leaves out what the mask of
-100 lets through, a factor of exp(-100): it would take logits that lie 88 apart for the result to change by 1e-5.

Shapes: C cells of the grid, P places of all windows, m places of a region.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sightline.backbones.contract.layout import NO_TOKEN
from sightline.backbones.parts.windows import WindowGeometry, runs_of_places


@dataclass(frozen=True)
class Regions:
    """The regions of all windows, one after the other.

    Attributes:
        cells: Cell at every place, int64 (P,); the number of cells for padding.
        places: Where in its window every place is, int64 (P,).
        numbers: Region of every place, int64 (P,).
        sizes: Places of each region.
        kinds: Which of ``kind_places`` each region has.
        kind_places: The different sets of places that regions have in their window, each int64 (m,), ascending.
        region_of: Region of every cell, int64 (C,).
        place_of: Place of every cell in its window, int64 (C,).
        rank_of: Place of every cell among those of its region, int64 (C,).
    """

    cells: Tensor
    places: Tensor
    numbers: Tensor
    sizes: tuple[int, ...]
    kinds: tuple[int, ...]
    kind_places: tuple[Tensor, ...]
    region_of: Tensor
    place_of: Tensor
    rank_of: Tensor


@lru_cache(maxsize=64)
def regions(geometry: WindowGeometry, device: torch.device) -> Regions:
    """Cut all windows into regions: a window is one unless it is shifted."""
    count = int(np.prod(geometry.grid))
    cells = geometry.cells(torch.device("cpu")).numpy().flatten()
    # One number for each run of each window; places of a region keep their order.
    runs = (runs_of_places(geometry) + np.arange(geometry.count)[:, None] * 27).flatten()
    order = np.argsort(runs, kind="stable")
    _, numbers, sizes = np.unique(runs[order], return_inverse=True, return_counts=True)
    cells, places = np.where(cells == NO_TOKEN, count, cells)[order], order % geometry.volume
    by_region = np.split(places, np.cumsum(sizes)[:-1])
    sets = {inside.tobytes(): inside for inside in by_region}
    kind_of = {inside: kind for kind, inside in enumerate(sets)}

    def by_cell(values: np.ndarray) -> np.ndarray:
        found = np.zeros(count + 1, dtype=np.int64)
        found[cells] = values  # padding writes behind all cells
        return found[:count]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)

    return Regions(
        tensor(cells),
        tensor(places),
        tensor(numbers),
        tuple(sizes.tolist()),
        tuple(kind_of[inside.tobytes()] for inside in by_region),
        tuple(tensor(inside) for inside in sets.values()),
        tensor(by_cell(numbers)),
        tensor(by_cell(places)),
        tensor(by_cell(np.concatenate([np.arange(size) for size in sizes]))),
    )
