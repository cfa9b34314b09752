"""Which cells of a grid still have a token, and which token stands in for a cell that has none.

Shapes: B clips, K kept patches, C cells of the grid (T * H * W), S cells of one frame (H * W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sightline.backbones.contract.layout import NO_TOKEN

Plan = TypeVar("Plan")

# Distances between the cells of a frame are compared in blocks of frames with about this many numbers.
_NUMBERS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Attending:
    """How layers attend where tokens were dropped or merged.

    Attributes:
        sparse: In families that fill dropped cells: compute attention over the distinct tokens of each group alone,
            which gives the same as filling for less. Otherwise the groups are filled literally. Families that leave
            tokens out attend among what is left either way.
        proportional: Add the logarithm of the number of patches that a token is made of to its logit as a key, as if it
            stood there once for each (ToMe, equation 1). Families that fill do so by filling, whatever is said here.
    """

    sparse: bool = True
    proportional: bool = False


ATTEND = Attending()


class KeptCells:
    """The cells whose tokens are left, in the order in which these tokens stand.

    States share one such object from one reduction to the next, so that what is derived from it is computed once.

    Attributes:
        cells: Cell of every token, int64 (B, K); `NO_TOKEN` where a clip has fewer than K. A token that others were
            merged into keeps its own cell.
        exists: Which tokens exist, bool (B, K); None where all do.
        grid: The grid (T, H, W) that the cells are counted in, row-major.
        owner: Position among the K of the token that each cell's patch is part of, int64 (B, C); `NO_TOKEN` where it
            was dropped. None while nothing was merged: then every token is its own patch alone.
        how: How this reduction is attended with, see `Attending`.
    """

    # Not functools.cached_property: torch.compile cannot pass the lock that Python 3.11 takes in it.
    def __init__(
        self,
        cells: Tensor,
        exists: Tensor | None,
        grid: tuple[int, int, int],
        owner: Tensor | None = None,
        how: Attending | None = None,
    ) -> None:
        self.exists = exists
        self.owner = owner
        self.how = how or ATTEND  # torch.compile cannot take an object as a default value
        self.cells = cells if exists is None else cells.masked_fill(~exists, NO_TOKEN)
        self.grid = grid
        self._plans: dict[object, Any] = {}
        self._repeats: tuple[KeptCells, int] | None = None

    @property
    def count(self) -> int:
        """Cells of the whole grid."""
        t, h, w = self.grid
        return t * h * w

    @property
    def position(self) -> Tensor:
        """Position of every cell's token among the K, int64 (B, C); `NO_TOKEN` where it has none."""
        return self.plan("position", self._positions)

    @property
    def nearest(self) -> Tensor:
        """Position among the K of the token nearest to every cell, int64 (B, C); its own where it has one.

        Nearest is the smallest distance on the grid within the cell's frame; ties go to the lower cell. A frame
        without any token is filled like the nearest frame that has one; ties go to the earlier. A patch that was merged
        has the token that it is part of.
        """
        return self.plan("nearest", self._nearest)

    @property
    def standing_in(self) -> Tensor:
        """Cell of the token that `nearest` names for every cell, int64 (B, C); its own where it has one."""
        return self.plan("standing_in", lambda: self.cells.gather(1, self.nearest))

    @property
    def sizes(self) -> Tensor | None:
        """Patches that every token is made of, int64 (B, K), 0 where there is no token; None while each is one."""
        return None if self.owner is None else self.plan("sizes", self._sizes)

    @property
    def sizes_at_cells(self) -> Tensor:
        """Patches of the token whose own cell each is, int64 (B, C); 0 where that has been dropped or merged."""
        sizes = torch.ones_like(self.cells) if self.sizes is None else self.sizes
        return torch.where(self.position < 0, 0, sizes.gather(1, self.position.clamp(min=0)))

    @property
    def merged_into(self) -> Tensor | None:
        """Cell of the token that each cell's patch is part of, int64 (B, C), `NO_TOKEN` where it was dropped.

        None while nothing was merged.
        """
        return None if self.owner is None else self.plan("merged_into", self._merged_into)

    def plan(self, key: object, build: Callable[[], Plan]) -> Plan:
        """Return what ``build`` gives, computed once for each key: what follows from the kept cells alone."""
        if key not in self._plans:
            self._plans[key] = build()
        found: Plan = self._plans[key]
        return found

    def repeated(self, times: int) -> KeptCells:
        """Return the same cells ``times`` times along the batch; the nearest tokens are not searched again.

        The same object each time, so that stacks of as many variants share what is derived from it.
        """
        return self.plan(("repeated", times), lambda: self._repeated(times))

    def _repeated(self, times: int) -> KeptCells:
        exists = None if self.exists is None else self.exists.repeat(times, 1)
        owner = None if self.owner is None else self.owner.repeat(times, 1)
        found = KeptCells(self.cells.repeat(times, 1), exists, self.grid, owner, self.how)
        found._repeats = (self, times)
        return found

    def owner_once_selected(self, position: Tensor, exists: Tensor | None) -> Tensor | None:
        """Return the owners once the tokens at these positions (B, K') alone are left, counted among these."""
        if self.owner is None:
            return None
        # One place more takes what the tokens that do not exist would write, and is read by cells without an owner.
        spare = self.cells.shape[1]
        places = torch.arange(position.shape[1], device=position.device).expand_as(position)
        slots = position if exists is None else torch.where(exists, position, spare)
        renumbered = position.new_full((position.shape[0], spare + 1), NO_TOKEN).scatter(1, slots, places)
        renumbered[:, spare] = NO_TOKEN
        return renumbered.gather(1, torch.where(self.owner == NO_TOKEN, spare, self.owner))

    def owner_once_merged(self, into: Tensor) -> Tensor:
        """Return the owners once every token is merged into that at position ``into`` (B, K), counted among these."""
        owner = self.position if self.owner is None else self.owner
        return torch.where(owner == NO_TOKEN, NO_TOKEN, into.gather(1, owner.clamp(min=0)))

    def _positions(self) -> Tensor:
        b, k = self.cells.shape
        places = torch.arange(k, device=self.cells.device).expand(b, k)
        # One cell more takes what the tokens that do not exist would write.
        found = self.cells.new_full((b, self.count + 1), NO_TOKEN)
        slots = torch.where(self.cells < 0, self.count, self.cells)
        return found.scatter(1, slots, places)[:, : self.count]

    def _sizes(self) -> Tensor:
        assert self.owner is not None
        there = self.owner != NO_TOKEN
        none = torch.zeros_like(self.cells)
        return none.scatter_add(1, self.owner.clamp(min=0), there.long())

    def _merged_into(self) -> Tensor:
        assert self.owner is not None
        return torch.where(self.owner == NO_TOKEN, NO_TOKEN, self.cells.gather(1, self.owner.clamp(min=0)))

    def _nearest(self) -> Tensor:
        if self._repeats is not None:
            once, times = self._repeats
            return once.nearest.repeat(times, 1)
        t, h, w = self.grid
        present = (self.position >= 0).view(-1, h, w)  # (B * T, H, W)
        frames = max(1, _NUMBERS_AT_ONCE // (h * w * max(h, w)))
        if torch.compiler.is_compiling() or len(present) <= frames:
            source = _nearest_in_frame(present)
        else:
            source = torch.cat([_nearest_in_frame(block) for block in present.split(frames)])
        source = source.view(-1, t, h * w)
        other = _nearest_frames(present.view(-1, t, h * w).any(dim=2))  # (B, T)
        source = source.gather(1, other.unsqueeze(2).expand_as(source)) + other.unsqueeze(2) * (h * w)
        nearest = self.position.gather(1, source.flatten(1))
        return nearest if self.owner is None else torch.where(self.owner == NO_TOKEN, nearest, self.owner)


def _nearest_in_frame(present: Tensor) -> Tensor:
    """Return the nearest cell that is present for every cell of a frame, int64 (F, S), from bool (F, H, W).

    Squared distances add up over rows and columns, so the best row of every column is found first, and the best column
    among these afterwards. A number holds distance and cell: the smallest is the nearest, and the lower cell of equals.
    Frames in which nothing is present get any cell.
    """
    height, width = present.shape[1:]
    places, device = height * width, present.device
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    far = torch.iinfo(torch.int64).max // 4
    by_row = (rows[:, None] - rows[None]) ** 2 * places + rows * width  # (y, y')
    best = torch.where(present[:, None], by_row[None, :, :, None], far).amin(dim=2)  # (F, y, x')
    by_column = (columns[:, None] - columns[None]) ** 2 * places + columns  # (x, x')
    return (best[:, :, None] + by_column).amin(dim=3).flatten(1) % places


def _nearest_frames(filled: Tensor) -> Tensor:
    """Return for every frame the nearest one that has a token, int64 (B, T); ties go to the earlier."""
    frames = torch.arange(filled.shape[1], device=filled.device)
    order = (frames[:, None] - frames[None]).abs() * len(frames) + frames  # (T, T)
    return order.masked_fill(~filled.unsqueeze(1), torch.iinfo(order.dtype).max).argmin(dim=2)
