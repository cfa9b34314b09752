"""Attention within groups of unequal sizes, in as few fused calls as it takes without computing much in vain.

Groups that run as one call are padded to the largest of them. A group joins a call only where the padding that this
brings costs less than a call of its own would. So large groups, whose work outweighs a call, run alone and unpadded,
and small ones run together. The rule counts work and measures nothing: the same clips run alike everywhere.

Shapes: Q queries and M keys of all groups after padding, R rows of tokens, L positions of the site, G groups of a call
with q queries and k keys each, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.contract.state import TokenState
from sightline.backbones.parts.attention import attention, only_counts


@dataclass(frozen=True)
class Limits:
    """Of what runs as one call.

    Attributes:
        in_vain: What one group more may bring in padding, in multiply-adds: about what a call of its own costs.
        pairs: Pairs of a query and a place. A bias has up to as many numbers for every head.
    """

    in_vain: int
    pairs: int


# A call costs some ten microseconds on one core; biases of some megabytes are still in its cache when they are read.
CPU = Limits(2**21, 2**17)
# An accelerator computes so much in the time that starting a call takes that groups of a kind run as one.
ACCELERATOR = Limits(2**31, 2**22)


@dataclass(frozen=True)
class Call:
    """Groups that run as one.

    Attributes:
        kind: Which kind they are, by whatever tells how their biases are made; a call has one kind.
        groups: How many they are.
        queries: Queries of each, padding among them.
        keys: Keys of each, likewise.
        places: Places of each, those that its keys stand for; all groups of a call have equally many.
    """

    kind: int
    groups: int
    queries: int
    keys: int
    places: int


@dataclass(frozen=True)
class Part:
    """Which of the queries, keys and places of all calls belong to one."""

    queries: slice
    keys: slice
    places: slice


@dataclass(frozen=True)
class Members:
    """Which tokens are the queries, or the keys, of which groups.

    Attributes:
        rows: Row of the token, int64 (I,), group by group.
        counts: How many each group has, in the same order, int64 (groups,).
    """

    rows: Tensor
    counts: Tensor


@dataclass(frozen=True)
class GroupPlan:
    """Which tokens attend to which, and by which calls.

    Attributes:
        calls: The calls, in order.
        groups: Which groups they run, in order, int64.
        queries: Row of every query, call by call and group by group, int64 (Q,). Padding repeats a group's last one.
        keys: Row of every key, likewise, int64 (M,).
        query_source: Where every query stood among the members that the plan was made of, int64 (Q,).
        key_source: Where every key stood, int64 (M,); -1 for padding.
        outputs: Where among the Q the result of each member stands, int64 (I,); -1 where it is computed by none.
    """

    calls: tuple[Call, ...]
    groups: Tensor
    queries: Tensor
    keys: Tensor
    query_source: Tensor
    key_source: Tensor
    outputs: Tensor

    def parts(self) -> Iterator[tuple[Call, Part]]:
        """Go through the calls."""
        query = key = place = 0
        for call in self.calls:
            ends = (
                query + call.groups * call.queries,
                key + call.groups * call.keys,
                place + call.groups * call.places,
            )
            yield call, Part(slice(query, ends[0]), slice(key, ends[1]), slice(place, ends[2]))
            query, key, place = ends


def kept_sparse(state: TokenState) -> KeptCells | None:
    """Return which cells are left where attention may run on their tokens alone; None where groups must be filled.

    In a graph that is compiled, exported or traced, and on the meta device, nothing is known of a clip: shapes may not
    depend on it there.
    """
    kept = state.kept
    if kept is None or not kept.how.sparse or state.tokens.is_meta:
        return None
    fixed = torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing()
    return None if fixed else kept


def plan_groups(queries: Members, keys: Members, kinds: Sequence[int], places: Sequence[int], width: int) -> GroupPlan:
    """Decide which groups run as one call.

    Args:
        queries: Of every group; those that have none are left out.
        keys: Of every group, at least one where there are queries.
        kinds: Kind of every group, see `Call`.
        places: Places of every group.
        width: Width of all heads together.
    """
    device = queries.rows.device
    # In one transfer, as reading a tensor's numbers waits for an accelerator.
    q_counts, k_counts = torch.stack((queries.counts, keys.counts)).tolist()
    order = [group for group, count in enumerate(q_counts) if count]
    order.sort(key=lambda group: (kinds[group], -places[group], -k_counts[group], -q_counts[group]))
    limits = CPU if device.type == "cpu" else ACCELERATOR
    # What is counted is the work alone, whichever machine counts it.
    limits = replace(limits, in_vain=0) if only_counts(queries.rows) else limits
    alone = [Call(kinds[group], 1, q_counts[group], k_counts[group], places[group]) for group in order]
    calls = cut(alone, 2 * width, limits)
    groups = torch.tensor(order, dtype=torch.int64, device=device)
    query_source, query_there = padded(queries.counts, groups, [(call.groups, call.queries) for call in calls])
    key_source, key_there = padded(keys.counts, groups, [(call.groups, call.keys) for call in calls])
    outputs = torch.full_like(queries.rows, -1)
    outputs[query_source[query_there]] = torch.nonzero(query_there).squeeze(1)
    return GroupPlan(
        tuple(calls),
        groups,
        queries.rows[query_source],
        keys.rows[key_source],
        query_source,
        key_source.masked_fill(~key_there, -1),
        outputs,
    )


def cut(groups: Sequence[Call], per_pair: int, limits: Limits) -> list[Call]:
    """Cut groups into calls.

    Args:
        groups: Each as a call of its own, in order of size.
        per_pair: Multiply-adds for a query and a key.
        limits: Of a call; a group that is beyond them by itself has one nevertheless.
    """
    calls: list[Call] = []
    for group in groups:
        if calls and (calls[-1].kind, calls[-1].places) == (group.kind, group.places):
            last = calls[-1]
            queries, keys = max(last.queries, group.queries), max(last.keys, group.keys)
            joined = Call(group.kind, last.groups + 1, queries, keys, group.places)
            in_vain = joined.groups * queries * keys - last.groups * last.queries * last.keys
            in_vain -= group.queries * group.keys
            pairs = joined.groups * queries * max(keys, group.places)
            if in_vain * per_pair <= limits.in_vain and pairs <= limits.pairs:
                calls[-1] = joined
                continue
        calls.append(group)
    return calls


def attend_in_groups(
    queries: Tensor,
    keys_values: Tensor,
    shape: tuple[int, int],
    plan: GroupPlan,
    bias: Callable[[Call, Part], Tensor],
) -> Tensor:
    """Return what every query of a plan attends to, (Q, h, d).

    Args:
        queries: (R, h * d); rows may be far apart in memory.
        keys_values: Keys and values side by side, (R', 2 * h * d), likewise.
        shape: Number of heads h and width of each d, named because nothing can be inferred where no head is left.
        plan: Which attend to which.
        bias: Returns what is added to the logits of a call, broadcast to (G, h, q, k).
    """
    # Indexing copies whole rows; `index_select` is several times slower where rows are far apart.
    q_rows, kv_rows, found = queries[plan.queries], keys_values[plan.keys], []
    for call, part in plan.parts():
        q = q_rows[part.queries].view(call.groups, call.queries, *shape).transpose(1, 2)
        k, v = kv_rows[part.keys].view(call.groups, call.keys, 2, *shape).permute(2, 0, 3, 1, 4)
        out = attention(q, k, v, bias(call, part))
        found.append(out.transpose(1, 2).reshape(call.groups * call.queries, *shape))
    return torch.cat(found)


def in_places(found: Tensor, places: Tensor, some_missing: bool) -> Tensor:
    """Take rows (..., h, d) of what `attend_in_groups` has found; zeros at places -1, if there can be any."""
    return F.pad(found, (0, 0, 0, 0, 0, 1))[places] if some_missing else found[places]


def padded(counts: Tensor, groups: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Return which member stands at every place of padded groups, int64 (P,), and whether it is not padding, bool.

    Args:
        counts: Members of every group, int64; they stand one group after the other.
        groups: Which groups there are, in order of the calls, int64.
        shapes: Groups, and members of each, of every call.
    """
    device = counts.device
    sizes = torch.tensor([size for number, size in shapes for _ in range(number)], dtype=torch.int64, device=device)
    total = sum(number * size for number, size in shapes)
    starts = (counts.cumsum(0) - counts)[groups]
    each = torch.stack((starts, counts[groups] - 1, sizes.cumsum(0) - sizes))
    start, last, begin = each.repeat_interleave(sizes, dim=1, output_size=total)
    place = torch.arange(total, device=device) - begin
    return start + torch.minimum(place, last), place <= last
