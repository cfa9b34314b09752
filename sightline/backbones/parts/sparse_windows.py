"""Attention within (shifted) windows of a grid of which some cells have no token, at the cells that have one.

Where dropped cells are filled, nobody reads what comes out at them: queries are needed at the cells that have a token
alone. A filled cell's key and value are copies of a token's, so that the keys of a window can be its distinct tokens,
of which one that fills the places p has the additive bias

    log(sum over p of exp(bias[i, p]))

for a query at the place i: a sum of terms of the softmax that differ in their bias alone. Such a token can stand in
another window.

A shifted window falls into regions that were neighbours before the cyclic shift, and its mask keeps these from
attending to each other. Each region is a group of its own here, and needs no mask. That leaves out what the mask of
-100 lets through, a factor of exp(-100): it would take logits that lie 88 apart for the result to change by 1e-5.

Shapes: B clips, K kept tokens, C cells of the grid, P places of all windows, n places of a window, m places of a
region, Q queries and M keys of all regions after padding, G regions of a call with q queries and k keys each, h heads,
d width of a head.
"""

from __future__ import annotations

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
    Part,
    attend_in_groups,
    in_places,
    padded,
    plan_groups,
)
from sightline.backbones.parts.windows import WindowGeometry, runs_of_places


@dataclass(frozen=True)
class Regions:
    """The parts of all windows within which cells attend to each other, one after the other.

    Attributes:
        cells: Cell at every place, int64 (P,); the number of cells for padding.
        places: Where in its window every place is, int64 (P,).
        numbers: Region of every place, int64 (P,).
        sizes: Places of each region.
        region_of: Region of every cell, int64 (C,).
        place_of: Place of every cell in its window, int64 (C,).
    """

    cells: Tensor
    places: Tensor
    numbers: Tensor
    sizes: tuple[int, ...]
    region_of: Tensor
    place_of: Tensor


@dataclass(frozen=True)
class WindowPlan:
    """How the tokens that are left attend within windows.

    Attributes:
        groups: A group is a region of a clip.
        query_places: Place in its window of every query, int64 (Q,).
        key_places: Place in its window of every place of the regions that run, region by region in their order, those
            that a token fills side by side, int64.
        key_starts: Which of a region's places is the first that each key fills, int32 (M,); that of padding lies behind
            all.
        outputs: Where among the Q each token's result stands, int64 (B, K); -1 for tokens that do not exist.
    """

    groups: GroupPlan
    query_places: Tensor
    key_places: Tensor
    key_starts: Tensor
    outputs: Tensor


@lru_cache(maxsize=64)
def regions(geometry: WindowGeometry, device: torch.device) -> Regions:
    """Cut all windows into regions: a window is one unless it is shifted."""
    count, volume = int(np.prod(geometry.grid)), geometry.volume
    cells = geometry.cells(torch.device("cpu")).numpy().flatten()
    # One number for each run of each window; places of a region keep their order.
    runs = (runs_of_places(geometry) + np.arange(geometry.count)[:, None] * 27).flatten()
    order = np.argsort(runs, kind="stable")
    _, numbers, sizes = np.unique(runs[order], return_inverse=True, return_counts=True)
    cells, places = np.where(cells == NO_TOKEN, count, cells)[order], order % volume
    # Padding writes behind all cells.
    region_of, place_of = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    region_of[cells], place_of[cells] = numbers, places
    arrays = (cells, places, numbers, region_of[:count], place_of[:count])
    found = [torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device) for array in arrays]
    return Regions(found[0], found[1], found[2], tuple(sizes.tolist()), found[3], found[4])


def window_plan(kept: KeptCells, geometry: WindowGeometry, width: int) -> WindowPlan:
    """Return the plan of windows for the cells that are kept, made once for each; ``width`` is that of all heads.

    Rows are counted clip by clip over the K tokens, and where the grid is padded over one more, of zeros.
    """

    def build() -> WindowPlan:
        device = kept.cells.device
        parts, (b, k) = regions(geometry, device), kept.cells.shape
        rows, count = k + (geometry.padded != geometry.grid), len(parts.sizes)
        clips = torch.arange(b, device=device).unsqueeze(1)

        inside = kept.cells.clamp(min=0)
        # Tokens that do not exist stand behind all regions.
        region = (parts.region_of[inside] + clips * count).masked_fill(kept.cells == NO_TOKEN, b * count).flatten()
        order = region.argsort(stable=True)
        query_rows = (torch.arange(k, device=device) + clips * rows).flatten()[order]
        queries = Members(query_rows, region.bincount(minlength=b * count + 1)[:-1])

        # Places of each region side by side where the same token fills them.
        filling = F.pad(kept.nearest, (0, 1), value=k)[:, parts.cells]
        filled = ((parts.numbers + clips * count) * (k + 1) + filling).flatten()
        filled, by_token = filled.sort(stable=True)
        first = torch.nonzero(filled.diff(prepend=filled.new_tensor([-1]))).squeeze(1)
        region, token = filled[first] // (k + 1), filled[first] % (k + 1)
        keys = Members(token + region // count * rows, region.bincount(minlength=b * count))
        sizes = torch.tensor(parts.sizes, device=device).repeat(b)
        starts = first - (sizes.cumsum(0) - sizes)[region]

        plan = plan_groups(queries, keys, parts.sizes * b, width)
        places, _ = padded(sizes, plan.groups, [(call.groups, call.places) for call in plan.calls])
        return WindowPlan(
            plan,
            parts.place_of[inside].flatten()[order][plan.query_source],
            parts.places.repeat(b)[by_token][places],
            torch.where(plan.key_source < 0, geometry.volume, starts[plan.key_source]).int(),
            torch.empty_like(plan.outputs).index_copy(0, order, plan.outputs).view(b, k),
        )

    return kept.plan(("windows", geometry, width), build)


def attend_in_windows(
    qkv: Tensor, shape: tuple[int, int], plan: WindowPlan, table: Tensor, index: Tensor, some_missing: bool
) -> Tensor:
    """Return H_h of every head at the tokens that are left, (B, K, h, d).

    Args:
        qkv: Queries, keys and values side by side, (B, K or K + 1, 3 * h * d).
        shape: Number of heads h and width of each d.
        plan: Of `window_plan`.
        table: Biases by relative position, (positions, h).
        index: Row of the table for every pair of places, int64 (n, n), see `relative_position_index`.
        some_missing: Whether some tokens do not exist.
    """
    rows, width = qkv.flatten(0, 1), shape[0] * shape[1]
    # Half precision would round the sums.
    weights = table.to(torch.promote_types(table.dtype, torch.float32)).exp()
    # Rows of the table count relative positions, so that a pair's is a difference of two numbers.
    number = index[:, 0].int()
    query_numbers, key_numbers = number[plan.query_places], number[plan.key_places] - number[0]

    def bias(call: Call, part: Part) -> Tensor:
        queries = query_numbers[part.queries].view(call.groups, call.queries, 1)
        pairs = queries - key_numbers[part.places].view(call.groups, 1, call.places)
        begin = torch.arange(0, pairs.numel(), call.places, dtype=torch.int32, device=pairs.device)
        # What is padding begins, and ends, where all places of the query end.
        starts = plan.key_starts[part.keys].clamp(max=call.places).view(call.groups, 1, call.keys)
        starts = begin.view(call.groups, call.queries, 1) + starts
        sums = F.embedding_bag(pairs.flatten(), weights, starts.flatten(), mode="sum")
        sums = sums.view(*starts.shape, shape[0]).permute(0, 3, 1, 2)
        if not sums.requires_grad:
            return sums.contiguous().log_().to(qkv.dtype)
        # The gradient of the logarithm at 0 would spoil that of the whole table.
        none = sums == 0
        return sums.masked_fill(none, 1).log().masked_fill(none, -torch.inf).to(qkv.dtype)

    found = attend_in_groups(rows[:, :width], rows[:, width:], shape, plan.groups, bias)
    return in_places(found, plan.outputs, some_missing)
