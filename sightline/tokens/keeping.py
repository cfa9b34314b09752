"""Keeping the tokens with the highest scores (of equals, those that lie evenly over the clip), or any that are named.

Shapes: B clips, N patches that are here, K patches that are kept, C cells of the grid, S cells of one frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sightline.backbones import Selection, TokenState

# 0.1 of 30 patches are 3, although 0.1 * 30 is a little more.
_ROUNDING = 1e-9


def patches_of(share: float, grid: tuple[int, int, int]) -> int:
    """Return how many patches a share of a grid's cells (T, H, W) is, rounded up to whole ones."""
    return max(math.ceil(share * math.prod(grid) - _ROUNDING), 1)


def check_share(kept: float) -> None:
    """Raise ValueError unless a share of the patches can be kept."""
    if not 0 < kept <= 1:
        raise ValueError(f"The share of patches to keep must be above 0 and at most 1, got {kept:g}.")


def keep_best(state: TokenState, scores: Tensor, count: int) -> Selection | None:
    """Return the ``count`` patches of every clip that have the highest scores, in the order in which they stand.

    Of equal scores those win that `spread_cells` names first: in a clip in which nothing moves all may be equal, and
    the first ones of the grid would be the upper rows of its first frames.

    Args:
        state: Where patches are dropped.
        scores: Of every patch that is here, floating, (B, N); those of patches that do not exist are ignored.
        count: How many stay, at least 1.

    Returns:
        The selection; None where no more are here anyway.
    """
    if count >= state.patches:
        return None
    cells = state.cell_numbers()
    if not state.is_dense:
        scores = scores.masked_fill(cells < 0, -torch.inf)
    order = _spread_order(state, cells)
    ranked = scores.masked_fill(scores.isnan(), -torch.inf).gather(1, order)
    # Not by a stable sort, which programs cannot be converted with; others mix up equal scores.
    least = ranked.topk(count, dim=1).values[:, -1:]
    above, equal = ranked > least, ranked == least
    room = count - above.long().sum(dim=1, keepdim=True)
    stays = above | (equal & (equal.long().cumsum(dim=1) <= room))
    places = torch.where(stays, order, state.patches).sort(dim=1).values[:, :count]
    kept = cells.gather(1, places)
    return Selection(kept, None if state.kept is None or state.kept.exists is None else kept >= 0)


def keep_where(state: TokenState, stays: Tensor) -> Selection:
    """Return the patches for which ``stays``, bool (B, N), is true, in the order in which they stand.

    Args:
        state: Where patches are dropped.
        stays: Of every patch that is here; false of those that do not exist.
    """
    cells = state.cell_numbers()
    counts = stays.sum(dim=1, keepdim=True)
    most = int(counts.max())
    if most == state.patches:
        return Selection(cells, stays)
    # Those that stay first, in the order in which they stand.
    cells = cells.gather(1, stays.int().argsort(dim=1, descending=True, stable=True)[:, :most])
    return Selection(cells, torch.arange(most, device=cells.device) < counts)


def spread_cells(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return the cells of a grid (T, H, W) in an order of which every beginning lies evenly over it, int64 (C,).

    Within a frame it is the order of an ordered dither's thresholds (Bayer, "An optimum method for two-level rendition
    of continuous-tone pictures", 1973): each step fills a cell in the middle of the widest gaps. So a quarter of them
    is every second row and column, half is a chessboard. Frames take turns, so that their counts differ by one at most.
    """
    t, h, w = grid
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    threshold = torch.zeros_like(y)
    # The coarse bits of a place weigh least, so that neighbours are the last to come.
    for bit in range(max(h - 1, w - 1).bit_length()):
        row, column = y // 2**bit % 2, x // 2**bit % 2
        threshold = threshold * 4 + (row + column) % 2 * 2 + row
    in_frame = threshold.flatten().sort().indices  # no two are equal
    return (in_frame.unsqueeze(1) + torch.arange(t, device=device) * (h * w)).flatten()


def _spread_order(state: TokenState, cells: Tensor) -> Tensor:
    """Return the places of the patches that are here in the order of `spread_cells`, int64 (B, N)."""
    spread = spread_cells(state.grid, cells.device)
    if state.is_dense:
        return spread.expand(state.batch, -1)
    rank = spread.sort().indices
    return rank[cells.clamp(min=0)].sort(dim=1).indices
