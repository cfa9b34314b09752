"""Attention within (shifted) windows of a grid of which some cells have no token, at the cells that have one.

Where dropped cells are filled, nobody reads what comes out at them: queries are needed at the cells that have a token
alone. A shifted window falls into regions that were neighbours before the cyclic shift, and its mask keeps these from
attending to each other. Each region is a group of its own here, and needs no mask. That leaves out what the mask of
-100 lets through, a factor of exp(-100): it would take logits that lie 88 apart for the result to change by 1e-5.

Keys are those of the filled region, copies among them, so that a query's biases are one row of a table. Attention over
the distinct tokens alone, with the logarithm of the sum of exp(bias) over the places that each fills, is the same too
and has fewer products, but that bias takes longer than the products that it saves unless few tokens are left.

Shapes: B clips, K kept tokens, C cells of the grid, P places of all windows, m places of a region, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.contract.layout import NO_TOKEN
from sightline.backbones.parts.grouped_attention import (
    Call,
    GroupPlan,
    Members,
    attend_in_groups,
    in_places,
    plan_groups,
)
from sightline.backbones.parts.windows import WindowGeometry, runs_of_places


@dataclass(frozen=True)
class Regions:
    """The parts of all windows within which cells attend to each other.

    Attributes:
        cells: Cell at every place, region by region, int64 (P,); the number of cells for padding.
        sizes: Places of each region, int64 (regions,).
        kinds: Which of ``places`` each has.
        places: The different sets of places in a window that regions have, each int64 (m,), ascending.
        region_of: Region of every cell, int64 (C,).
        place_of: Place of every cell among those of its region, int64 (C,).
    """

    cells: Tensor
    sizes: Tensor
    kinds: tuple[int, ...]
    places: tuple[Tensor, ...]
    region_of: Tensor
    place_of: Tensor


@dataclass(frozen=True)
class WindowPlan:
    """How the tokens that are left attend within windows.

    Attributes:
        groups: A group is a region of a clip, its kind that of the region.
        bias_rows: Place of every query in its region, int64 (Q,): its row of the bias.
        places: Where among the Q each token's result stands, int64 (B, K); -1 for tokens that do not exist.
    """

    groups: GroupPlan
    bias_rows: Tensor
    places: Tensor


@lru_cache(maxsize=64)
def regions(geometry: WindowGeometry, device: torch.device) -> Regions:
    """Cut all windows into regions: a window is one unless it is shifted."""
    cells = geometry.cells(torch.device("cpu")).numpy()
    count = int(np.prod(geometry.grid))
    cells = np.where(cells == NO_TOKEN, count, cells)
    runs = runs_of_places(geometry)
    order, sizes, kinds = [], [], []
    found: dict[bytes, int] = {}
    places: list[np.ndarray] = []
    for window in range(geometry.count):
        for run in np.unique(runs[window]):
            inside = np.flatnonzero(runs[window] == run)
            if inside.tobytes() not in found:
                found[inside.tobytes()] = len(places)
                places.append(inside)
            order.append(cells[window, inside])
            sizes.append(len(inside))
            kinds.append(found[inside.tobytes()])
    of_place = np.repeat(np.arange(len(sizes)), sizes)
    within = np.concatenate([np.arange(size) for size in sizes])
    region_of, place_of = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    flat = np.concatenate(order)
    region_of[flat], place_of[flat] = of_place, within

    def tensor(values: np.ndarray | list[int]) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.int64)).to(device)

    sets = tuple(tensor(inside) for inside in places)
    return Regions(tensor(flat), tensor(sizes), tuple(kinds), sets, tensor(region_of[:count]), tensor(place_of[:count]))


def window_plan(kept: KeptCells, geometry: WindowGeometry, width: int) -> WindowPlan:
    """Return the plan of windows for the cells that are kept, made once for each; ``width`` is that of all heads.

    Rows are counted clip by clip over the K tokens, and where the grid is padded over one more, of zeros.
    """

    def build() -> WindowPlan:
        parts = regions(geometry, kept.cells.device)
        b, k = kept.cells.shape
        rows = k + (geometry.padded != geometry.grid)
        clips = torch.arange(b, device=kept.cells.device).unsqueeze(1)
        keys = F.pad(kept.nearest, (0, 1), value=k)[:, parts.cells] + clips * rows
        inside = kept.cells.clamp(min=0)
        region = parts.region_of[inside] + clips * len(parts.kinds)
        # Tokens that do not exist stand behind all regions.
        region = region.masked_fill(kept.cells == NO_TOKEN, b * len(parts.kinds)).flatten()
        counts = region.bincount(minlength=b * len(parts.kinds) + 1)[:-1]
        order = region.argsort(stable=True)
        query_rows = (torch.arange(k, device=order.device) + clips * rows).flatten()[order]
        plan = plan_groups(
            Members(query_rows, counts), Members(keys.flatten(), parts.sizes.repeat(b)), parts.kinds * b, width
        )
        places = torch.empty_like(plan.outputs).index_copy(0, order, plan.outputs).view(b, k)
        return WindowPlan(plan, parts.place_of[inside].flatten()[order][plan.query_source], places)

    return kept.plan(("windows", geometry, width), build)


def attend_in_windows(
    qkv: Tensor, shape: tuple[int, int], plan: WindowPlan, biases: Sequence[Tensor], some_missing: bool
) -> Tensor:
    """Return H_h of every head at the tokens that are left, (B, K, h, d).

    Args:
        qkv: Queries, keys and values side by side, (B, K or K + 1, 3 * h * d).
        shape: Number of heads h and width of each d.
        plan: Of `window_plan`.
        biases: What is added to the logits within each kind of region, (m, h, m), queries first.
        some_missing: Whether some tokens do not exist.
    """
    rows, width = qkv.flatten(0, 1), shape[0] * shape[1]

    def bias(call: Call, queries: slice, keys: slice) -> Tensor:
        own = biases[call.kind].index_select(0, plan.bias_rows[queries])
        return own.unflatten(0, (call.groups, call.queries)).transpose(1, 2)

    found = attend_in_groups(rows[:, :width], rows[:, width:], shape, plan.groups, bias)
    return in_places(found, plan.places, some_missing)
