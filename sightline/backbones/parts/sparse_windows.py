"""Attention within (shifted) windows of a grid of which some cells have no token, at the cells that have one.

Where dropped cells are filled, nobody reads what comes out at them: queries are needed at the cells that have a token
alone. A filled cell's key and value are copies of a token's, so that the keys of a window can be its distinct tokens,
of which one that fills the places p has the additive bias

    log(sum over p of exp(bias[i, p]))

for a query at the place i: a sum of terms of the softmax that differ in their bias alone. Such a token can stand in
another window. To compute these biases takes about as long as the products with half of the keys. So where that leaves
more than half of the keys, all places are keys, copies among them, and biases are rows of a table.

Shifted windows are cut into their regions first, see `sightline.backbones.parts.window_regions`.

Shapes: B clips, K kept tokens, n places of a window, m places of a region, Q queries and M keys of all regions after
padding, G regions of a call with q queries and k keys each, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from sightline.backbones.parts.window_regions import regions
from sightline.backbones.parts.windows import WindowGeometry

# Distinct tokens are the keys where they make up at most this share of the products of queries and places.
DISTINCT = 0.5


@dataclass(frozen=True)
class DistinctKeys:
    """What the biases of distinct tokens are made of.

    Attributes:
        query_places: Place in its window of every query, int64 (Q,).
        places: Place in its window of every place of the regions that run, region by region in their order, those that
            a token fills side by side, int64.
        starts: Which of its region's places is the first that each key fills, int32 (M,); that of padding lies behind
            all.
    """

    query_places: Tensor
    places: Tensor
    starts: Tensor


@dataclass(frozen=True)
class WindowPlan:
    """How the tokens that are left attend within windows.

    Attributes:
        groups: A group is a region of a clip, and its kind that of the region.
        bias_rows: Place of every query in its region, int64 (Q,): its row of the region's biases.
        distinct: Where distinct tokens are the keys; None where all places are.
        outputs: Where among the Q each token's result stands, int64 (B, K); -1 for tokens that do not exist.
    """

    groups: GroupPlan
    bias_rows: Tensor
    distinct: DistinctKeys | None
    outputs: Tensor


def window_plan(kept: KeptCells, geometry: WindowGeometry, width: int) -> WindowPlan:
    """Return the plan of windows for the cells that are kept, made once for each; ``width`` is that of all heads.

    Rows are counted clip by clip over the K tokens, and where the grid is padded over one more, of zeros.
    """
    return kept.plan(("windows", geometry, width), lambda: _build_plan(kept, geometry, width))


def _build_plan(kept: KeptCells, geometry: WindowGeometry, width: int) -> WindowPlan:
    device = kept.cells.device
    parts, (b, k) = regions(geometry, device), kept.cells.shape
    rows, count = k + (geometry.padded != geometry.grid), len(parts.sizes)
    clips = torch.arange(b, device=device).unsqueeze(1)
    sizes = torch.tensor(parts.sizes, device=device).repeat(b)

    inside = kept.cells.clamp(min=0)
    # Tokens that do not exist stand behind all regions.
    region = (parts.region_of[inside] + clips * count).masked_fill(kept.cells == NO_TOKEN, b * count).flatten()
    order = region.argsort(stable=True)
    query_rows = (torch.arange(k, device=device) + clips * rows).flatten()[order]
    queries = Members(query_rows, region.bincount(minlength=b * count + 1)[:-1])

    filling = F.pad(kept.nearest, (0, 1), value=k)[:, parts.cells]
    # Places of each region side by side where the same token fills them.
    filled = ((parts.numbers + clips * count) * (k + 1) + filling).flatten()
    filled, by_token = filled.sort(stable=True)
    first = torch.nonzero(filled.diff(prepend=filled.new_tensor([-1]))).squeeze(1)
    region, token = filled[first] // (k + 1), filled[first] % (k + 1)
    keys = Members(token + region // count * rows, region.bincount(minlength=b * count))
    few = bool((queries.counts * keys.counts).sum() <= DISTINCT * (queries.counts * sizes).sum())
    if not few:
        keys = Members((filling + clips * rows).flatten(), sizes)

    plan = plan_groups(queries, keys, [0] * (b * count) if few else parts.kinds * b, parts.sizes * b, width)
    distinct = None
    if few:
        starts = first - (sizes.cumsum(0) - sizes)[region]
        which, _ = padded(sizes, plan.groups, [(call.groups, call.places) for call in plan.calls])
        distinct = DistinctKeys(
            parts.place_of[inside].flatten()[order][plan.query_source],
            parts.places.repeat(b)[by_token][which],
            torch.where(plan.key_source < 0, geometry.volume, starts[plan.key_source]).int(),
        )
    bias_rows = parts.rank_of[inside].flatten()[order][plan.query_source]
    return WindowPlan(
        plan, bias_rows, distinct, torch.empty_like(plan.outputs).index_copy(0, order, plan.outputs).view(b, k)
    )


def attend_in_windows(
    qkv: Tensor,
    shape: tuple[int, int],
    plan: WindowPlan,
    bias: Callable[[Call, Part], Tensor],
    some_missing: bool,
) -> Tensor:
    """Return H_h of every head at the tokens that are left, (B, K, h, d).

    Args:
        qkv: Queries, keys and values side by side, (B, K or K + 1, 3 * h * d).
        shape: Number of heads h and width of each d.
        plan: Of `window_plan`.
        bias: What is added to the logits of a call: `copied_biases` or `distinct_biases`.
        some_missing: Whether some tokens do not exist.
    """
    rows, width = qkv.flatten(0, 1), shape[0] * shape[1]
    found = attend_in_groups(rows[:, :width], rows[:, width:], shape, plan.groups, bias)
    return in_places(found, plan.outputs, some_missing)


def copied_biases(rows: Tensor, biases: Sequence[Tensor]) -> Callable[[Call, Part], Tensor]:
    """Return what gives the biases of a call whose keys are all places, (G, h, q, m).

    Args:
        rows: Of `WindowPlan`.
        biases: Those of each kind of region, (m, h, m), queries first.
    """

    def bias(call: Call, part: Part) -> Tensor:
        own = biases[call.kind].index_select(0, rows[part.queries])
        return own.unflatten(0, (call.groups, call.queries)).transpose(1, 2)

    return bias


def distinct_biases(keys: DistinctKeys, table: Tensor, index: Tensor) -> Callable[[Call, Part], Tensor]:
    """Return what gives the biases of a call whose keys are distinct tokens, (G, h, q, k).

    Args:
        keys: Of `WindowPlan`.
        table: Biases by relative position, (positions, h).
        index: Row of the table for every pair of places, int64 (n, n), see `relative_position_index`.
    """
    # Half precision would round the sums.
    weights = table.to(torch.promote_types(table.dtype, torch.float32)).exp()
    # Rows of the table count relative positions, so that a pair's is a difference of two numbers.
    number = index[:, 0].int()
    query_numbers, place_numbers = number[keys.query_places], number[keys.places] - number[0]

    def bias(call: Call, part: Part) -> Tensor:
        queries = query_numbers[part.queries].view(call.groups, call.queries, 1)
        pairs = queries - place_numbers[part.places].view(call.groups, 1, call.places)
        begin = torch.arange(0, pairs.numel(), call.places, dtype=torch.int32, device=pairs.device)
        # What is padding begins, and ends, where all places of the query end.
        starts = keys.starts[part.keys].clamp(max=call.places).view(call.groups, 1, call.keys)
        starts = begin.view(call.groups, call.queries, 1) + starts
        sums = F.embedding_bag(pairs.flatten(), weights, starts.flatten(), mode="sum")
        sums = sums.view(*starts.shape, -1).permute(0, 3, 1, 2)
        if not sums.requires_grad:
            return sums.contiguous().log_().to(table.dtype)
        # The gradient of the logarithm at 0 would spoil that of the whole table.
        none = sums == 0
        return sums.masked_fill(none, 1).log().masked_fill(none, -torch.inf).to(table.dtype)

    return bias
