"""Geometry of 3D (shifted) windows: which cell stands where, and who may attend to whom.

Source: Liu et al., "Video Swin Transformer", 2021, section 3; parity with torchvision's implementation.
Everything here depends on sizes only, never on weights, and is cached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.contract.layout import NO_TOKEN

Size3 = tuple[int, int, int]

# Added to the logits of pairs that a cyclic shift brought together; the value of the released checkpoints' code.
MASKED = -100.0
# Of a window; the table of its pairs then has 512 MiB.
MOST_CELLS = 2**13


@dataclass(frozen=True)
class WindowGeometry:
    """How a grid is cut into windows.

    Attributes:
        grid: Cells (T, H, W).
        window: Cells per window; a window never exceeds the grid.
        shift: Cyclic shift before the cut; 0 in directions in which one window covers the grid.
        padded: The grid padded to whole windows.
    """

    grid: Size3
    window: Size3
    shift: Size3
    padded: Size3

    @property
    def volume(self) -> int:
        """Cells per window."""
        return self.window[0] * self.window[1] * self.window[2]

    @property
    def count(self) -> int:
        """Windows per clip."""
        return self.padded[0] * self.padded[1] * self.padded[2] // self.volume

    @property
    def shifted(self) -> bool:
        return any(self.shift)

    def partition(self, tokens: Tensor) -> Tensor:
        """(B, N, D) in grid order -> (B, count * volume, D) in window order; padding cells are zero."""
        b, _, d = tokens.shape
        x = tokens.view(b, *self.grid, d)
        if self.padded != self.grid:
            t, h, w = (p - g for p, g in zip(self.padded, self.grid, strict=True))
            x = F.pad(x, (0, 0, 0, w, 0, h, 0, t))
        if self.shifted:
            x = torch.roll(x, shifts=tuple(-s for s in self.shift), dims=(1, 2, 3))
        (pt, ph, pw), (t, h, w) = self.padded, self.window
        x = x.view(b, pt // t, t, ph // h, h, pw // w, w, d)
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, self.count * self.volume, d)

    def reverse(self, tokens: Tensor) -> Tensor:
        """Undo `partition`: (B, count * volume, D) in window order -> (B, N, D) in grid order."""
        b, _, d = tokens.shape
        (pt, ph, pw), (t, h, w) = self.padded, self.window
        x = tokens.view(b, pt // t, ph // h, pw // w, t, h, w, d)
        x = x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, pt, ph, pw, d)
        if self.shifted:
            x = torch.roll(x, shifts=self.shift, dims=(1, 2, 3))
        if self.padded != self.grid:
            x = x[:, : self.grid[0], : self.grid[1], : self.grid[2]]
        return x.reshape(b, -1, d)

    def cells(self, device: torch.device) -> Tensor:
        """Number of the cell at every place of every window, int64 (count, volume); `NO_TOKEN` at padding."""
        numbers = torch.arange(self.grid[0] * self.grid[1] * self.grid[2], device=device)
        return self.partition((numbers - NO_TOKEN).view(1, -1, 1)).view(self.count, self.volume) + NO_TOKEN


@lru_cache(maxsize=256)
def window_geometry(grid: Size3, window: Size3, shift: bool) -> WindowGeometry:
    """Fit a window to a grid: shrink it to the grid and do not shift where it covers the grid."""
    fitted = tuple(min(w, g) for w, g in zip(window, grid, strict=True))
    offset = tuple(w // 2 if shift and g > w else 0 for w, g in zip(window, grid, strict=True))
    padded = tuple(-(-g // w) * w for g, w in zip(grid, fitted, strict=True))
    return WindowGeometry(grid, fitted, offset, padded)  # type: ignore[arg-type]


def filled_windows(kept: KeptCells, geometry: WindowGeometry) -> Tensor:
    """Which token stands at every place of every window once dropped cells are filled, int64 (B, count * volume).

    Padding has the number of kept tokens: a token of zeros is expected behind them.
    """

    def build() -> Tensor:
        nearest = F.pad(kept.nearest, (0, 1), value=kept.cells.shape[1])
        cells = geometry.cells(nearest.device).flatten()
        return nearest[:, torch.where(cells == NO_TOKEN, kept.count, cells)]

    return kept.plan(("filled_windows", geometry), build)


def own_places(kept: KeptCells, geometry: WindowGeometry) -> Tensor:
    """Place of every kept token in the order of windows, int64 (B, K); of those that do not exist, any."""

    def build() -> Tensor:
        cells = geometry.cells(kept.cells.device).flatten()
        # One place more takes the padding. No shape depends on values, so that programs and mere shapes can run too.
        slots = torch.where(cells == NO_TOKEN, kept.count, cells)
        place = torch.zeros(kept.count + 1, dtype=torch.int64, device=cells.device)
        place = place.scatter(0, slots, torch.arange(len(cells), device=cells.device))
        return place[kept.cells.clamp(min=0)]

    return kept.plan(("own_places", geometry), build)


def shift_mask(geometry: WindowGeometry, device: torch.device) -> Tensor:
    """Additive mask of shifted windows, (count, volume, volume): MASKED between cells that were not neighbours.

    Cells may attend to each other where they lie in the same run in every direction, see `runs_of_places`.
    """
    # While a program is exported, tensors have no data; a mask that was kept from then would spoil all later passes.
    return _build_shift_mask(geometry, device) if torch.compiler.is_exporting() else _kept_shift_mask(geometry, device)


def query_shares(geometry: WindowGeometry, device: torch.device) -> Tensor:
    """How much each query counts in the mean over its window, (count, volume): 1 / volume where nothing is padded.

    Padding counts nothing as a query, since nobody reads what it attends to. The cells that may attend to each other
    count together as much as before, so that uniform attention still reaches every cell alike.
    """
    if geometry.padded == geometry.grid:
        return torch.full((geometry.count, geometry.volume), 1 / geometry.volume, device=device)
    there = (geometry.cells(device) != NO_TOKEN).float()
    if geometry.shifted:
        together = (shift_mask(geometry, device) == 0).float()
        places, tokens = together.sum(dim=2), torch.matmul(together, there.unsqueeze(2)).squeeze(2)
    else:
        places, tokens = torch.full_like(there, geometry.volume), there.sum(dim=1, keepdim=True)
    return there * places / tokens.clamp(min=1) / geometry.volume


def _build_shift_mask(geometry: WindowGeometry, device: torch.device) -> Tensor:
    return torch.from_numpy(_shift_mask_values(geometry)).to(device)


_kept_shift_mask = lru_cache(maxsize=64)(_build_shift_mask)


@lru_cache(maxsize=64)
def _shift_mask_values(geometry: WindowGeometry) -> np.ndarray:
    """Compute the mask outside of PyTorch, so that an exported program holds it as a constant."""
    runs = runs_of_places(geometry)
    return np.where(runs[:, None, :] != runs[:, :, None], np.float32(MASKED), np.float32(0))


def runs_of_places(geometry: WindowGeometry) -> np.ndarray:
    """Return which runs every place of every window lies in, one number for all directions, int64 (count, volume).

    After the roll, each direction falls into three runs: untouched windows, the part of the last window that stayed,
    and the part that came round.
    """
    run_of_cell = []
    for size, window, shift in zip(geometry.padded, geometry.window, geometry.shift, strict=True):
        run = np.zeros(size, dtype=np.int64)
        if shift:
            run[size - window : size - shift] = 1
            run[size - shift :] = 2
        run_of_cell.append(run)
    t, h, w = np.meshgrid(*run_of_cell, indexing="ij")
    whole = [
        part for size, window in zip(geometry.padded, geometry.window, strict=True) for part in (size // window, window)
    ]
    flat = (t * 9 + h * 3 + w).reshape(whole).transpose(0, 2, 4, 1, 3, 5)
    return flat.reshape(geometry.count, geometry.volume)


@lru_cache(maxsize=16)
def relative_position_index(window: Size3) -> Tensor:
    """Row of the bias table for every pair of cells of a window, int64 (volume, volume), always on the CPU.

    Raises:
        ValueError: If the window has so many cells that the table alone would fill the memory.
    """
    if math.prod(window) > MOST_CELLS:
        raise ValueError(f"A window of {window} has {math.prod(window)} cells; at most {MOST_CELLS} can be meant.")
    # What is kept here must have data, also where a model is being built without any (on the device "meta").
    places = (torch.arange(w, device="cpu") for w in window)
    cells = torch.stack(torch.meshgrid(*places, indexing="ij")).flatten(1)
    difference = cells[:, :, None] - cells[:, None, :]
    index = torch.zeros(difference.shape[1:], dtype=torch.long, device="cpu")
    for axis, size in enumerate(window):
        index = index * (2 * size - 1) + difference[axis] + size - 1
    return index
