"""Which cells of a grid still have a token, and which token stands in for a cell that has none.

Shapes: B clips, K kept patches, C cells of the grid (T * H * W), S cells of one frame (H * W).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from sightline.backbones.contract.layout import NO_TOKEN

Plan = TypeVar("Plan")

# Distances between the cells of a frame are compared in blocks of about this many pairs.
_PAIRS_AT_ONCE = 2**22


class KeptCells:
    """The cells whose tokens are left, in the order in which these tokens stand.

    States share one such object from one reduction to the next, so that what is derived from it is computed once.

    Attributes:
        cells: Cell of every token, int64 (B, K); `NO_TOKEN` where a clip has fewer than K.
        exists: Which tokens exist, bool (B, K); None where all do.
        grid: The grid (T, H, W) that the cells are counted in, row-major.
    """

    def __init__(self, cells: Tensor, exists: Tensor | None, grid: tuple[int, int, int]) -> None:
        self.exists = exists
        self.cells = cells if exists is None else cells.masked_fill(~exists, NO_TOKEN)
        self.grid = grid
        self._plans: dict[object, object] = {}

    @property
    def count(self) -> int:
        """Cells of the whole grid."""
        t, h, w = self.grid
        return t * h * w

    @cached_property
    def position(self) -> Tensor:
        """Position of every cell's token among the K, int64 (B, C); `NO_TOKEN` where it has none."""
        b, k = self.cells.shape
        places = torch.arange(k, device=self.cells.device).expand(b, k)
        # One cell more takes what the tokens that do not exist would write.
        found = self.cells.new_full((b, self.count + 1), NO_TOKEN)
        slots = torch.where(self.cells < 0, self.count, self.cells)
        return found.scatter(1, slots, places)[:, : self.count]

    @cached_property
    def nearest(self) -> Tensor:
        """Position among the K of the token nearest to every cell, int64 (B, C); its own where it has one.

        Nearest is the smallest distance on the grid within the cell's frame; ties go to the lower cell. A frame
        without any token is filled like the nearest frame that has one; ties go to the earlier.
        """
        t, h, w = self.grid
        places = h * w
        present = (self.position >= 0).view(-1, places)  # (B * T, S)
        order = _by_distance(h, w, self.cells.device)
        source = torch.empty(present.shape, dtype=torch.int64, device=self.cells.device)
        step = max(1, _PAIRS_AT_ONCE // (places * places))
        for start in range(0, len(present), step):
            block = present[start : start + step]
            ranked = order.masked_fill(~block.unsqueeze(1), torch.iinfo(order.dtype).max)
            source[start : start + step] = ranked.argmin(dim=2)
        source = source.view(-1, t, places)
        frames = _nearest_frames(present.view(-1, t, places).any(dim=2))  # (B, T)
        source = source.gather(1, frames.unsqueeze(2).expand_as(source)) + frames.unsqueeze(2) * places
        return self.position.gather(1, source.flatten(1))

    @cached_property
    def standing_in(self) -> Tensor:
        """Cell of the token that `nearest` names for every cell, int64 (B, C); its own where it has one."""
        return self.cells.gather(1, self.nearest)

    def plan(self, key: object, build: Callable[[], Plan]) -> Plan:
        """Return what ``build`` gives, computed once for each key: indices that follow from the kept cells."""
        if key not in self._plans:
            self._plans[key] = build()
        return self._plans[key]  # type: ignore[return-value]


def _by_distance(height: int, width: int, device: torch.device) -> Tensor:
    """Return a number for every pair of cells of a frame that orders sources by distance, then by cell, (S, S)."""
    rows = torch.arange(height, device=device).repeat_interleave(width)
    columns = torch.arange(width, device=device).repeat(height)
    squared = (rows[:, None] - rows[None]) ** 2 + (columns[:, None] - columns[None]) ** 2
    return squared * len(rows) + torch.arange(len(rows), device=device)


def _nearest_frames(filled: Tensor) -> Tensor:
    """Return for every frame the nearest one that has a token, int64 (B, T); ties go to the earlier."""
    frames = torch.arange(filled.shape[1], device=filled.device)
    order = (frames[:, None] - frames[None]).abs() * len(frames) + frames  # (T, T)
    return order.masked_fill(~filled.unsqueeze(1), torch.iinfo(order.dtype).max).argmin(dim=2)
