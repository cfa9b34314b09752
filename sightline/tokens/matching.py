"""Bipartite matching of tokens: each of one half is matched with the one of the other half that is most like it.

Source: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023 (section 3, bipartite soft matching).

Shapes: B clips, n tokens, d width, G groups, M slots of a group.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities are computed in blocks of groups with about this many numbers (128 MiB).
_NUMBERS_AT_ONCE = 2**25


def most_that_can_merge(tokens: int, groups: int) -> int:
    """How many of a clip's tokens can be merged at once, however they are spread over groups, none of them empty.

    A group of m tokens can lose m / 2, rounded down; the fewest are lost where all groups have odd numbers.
    """
    return max(tokens - groups + 1, 0) // 2


@dataclass(frozen=True)
class Pairs:
    """Which tokens are matched with which.

    Attributes:
        first: Whether a token is in the first set, bool (B, n).
        goes: Positions of those of the first set that were chosen, int64 (B, r), the best first.
        partner: Position of the token of the second set that each is matched with, int64 (B, r); several may have the
            same.
    """

    first: Tensor
    goes: Tensor
    partner: Tensor


@torch.no_grad()
def matched(metric: Tensor, group: Tensor, groups: int, count: int) -> Pairs:
    """Choose the pairs of tokens that are most alike.

    The tokens of a group are dealt out in turn, in their order, to two sets. Each of the first is matched with the one
    of the second, in the same group, that it has the largest cosine with; the ``count`` best matches of a clip stand.
    Ties go to the earlier token.

    Args:
        metric: What is compared, (B, n, d).
        group: Group of every token, int64 (B, n).
        groups: Number of groups.
        count: How many pairs, from 1 to `most_that_can_merge`.
    """
    unit = F.normalize(metric.float(), dim=2)
    slots = _slots(group, groups)  # (B, G, M)
    from_a, to_b = slots[..., ::2], slots[..., 1::2]
    score, partner = _nearest(_taken(unit, from_a), _taken(unit, to_b), to_b.flatten(0, 1))
    of_a, there = from_a.flatten(1), from_a.flatten(1) >= 0
    score = score.view(of_a.shape).masked_fill(~there, -torch.inf)
    best = score.sort(dim=1, descending=True, stable=True).indices[:, :count]
    # One place more takes the empty slots.
    spare = group.shape[1]
    first = torch.zeros(group.shape[0], spare + 1, dtype=torch.bool, device=group.device)
    first = first.scatter(1, torch.where(there, of_a, spare), True)[:, :spare]
    goes = of_a.gather(1, best)
    return Pairs(first, goes, to_b.gather(2, partner.view(from_a.shape)).flatten(1).gather(1, best))


def _slots(group: Tensor, groups: int) -> Tensor:
    """Position of each group's tokens in their order, int64 (B, G, M), M that of the largest group; -1 for none."""
    b, n = group.shape
    if groups == 1:
        return torch.arange(n, device=group.device).expand(b, 1, n)
    counts = torch.zeros(b, groups, dtype=torch.int64, device=group.device)
    counts = counts.scatter_add(1, group, torch.ones_like(group))
    most = n if torch.compiler.is_compiling() else int(counts.max())
    together = group.sort(dim=1, stable=True)  # tokens group by group
    rank = torch.arange(n, device=group.device) - (counts.cumsum(1) - counts).gather(1, together.values)
    slots = group.new_full((b, groups * most), -1)
    return slots.scatter(1, together.values * most + rank, together.indices).view(b, groups, most)


def _taken(values: Tensor, slots: Tensor) -> Tensor:
    """Take values (B, n, d) at slots (B, G, m), (B * G, m, d); any where a slot is empty."""
    b, g, m = slots.shape
    index = slots.clamp(min=0).view(b, g * m, 1).expand(-1, -1, values.shape[2])
    return values.gather(1, index).view(b * g, m, -1)


def in_full(device: torch.device) -> AbstractContextManager[object]:
    """Let products keep their precision where autocast would take half of it: many would be equal."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _nearest(a: Tensor, b: Tensor, b_slots: Tensor) -> tuple[Tensor, Tensor]:
    """Largest product of each of a (X, p, d) with b (X, q, d), and which of b gives it, both (X, p).

    Empty slots of b (X, q) count as infinitely far.
    """
    rows = max(1, _NUMBERS_AT_ONCE // max(a.shape[1] * b.shape[1], 1))
    whole = torch.compiler.is_compiling()  # a program takes any number of clips, so it cannot count blocks
    blocks = [(a, b, b_slots)] if whole else zip(a.split(rows), b.split(rows), b_slots.split(rows), strict=True)
    values, indices = [], []
    with in_full(a.device):
        for x, y, slots in blocks:
            products = torch.matmul(x, y.transpose(1, 2)).masked_fill((slots < 0).unsqueeze(1), -torch.inf)
            best = products.max(dim=2)
            values.append(best.values)
            indices.append(best.indices)
    return torch.cat(values), torch.cat(indices)
