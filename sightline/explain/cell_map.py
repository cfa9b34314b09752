"""A map over a grid of cells, and the same on the pixels of the clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import AttentionLayout
from sightline.backbones.contract.layout import coarser_cells
from sightline.types import InputSpec

Mode = Literal["nearest", "trilinear"]


@dataclass(frozen=True)
class CellMap:
    """How much each cell of a clip is attended to.

    Attributes:
        values: One per cell, float32 (B, t, h, w).
        cell: Frames, rows and columns that a cell covers; the last cells may reach beyond the clip.
        clip: Frames, height and width of the clip.
    """

    values: Tensor
    cell: tuple[int, int, int]
    clip: InputSpec

    @staticmethod
    def of_keys(received: Tensor, layout: AttentionLayout, clip: InputSpec) -> CellMap:
        """Put what every key receives, (B, G, k), into its cell; cells without a token stay 0.

        Class tokens and padding lie in no cell, so what they receive is left out. What copies of a token receive (see
        `AttentionLayout`) is added to what it receives itself; what a token receives that patches were merged into is
        shared out among them alike.
        """
        t, h, w = layout.grid
        spare = t * h * w  # a place for the keys that lie nowhere
        cells = torch.where(layout.cells < 0, spare, layout.cells).expand(received.shape).flatten(1)
        values = received.new_zeros(len(received), spare + 1, dtype=torch.float32)
        values.scatter_add_(1, cells, received.float().flatten(1))
        if layout.merged_into is not None:
            values = _shared_out(values, layout.merged_into)
        return CellMap(values[:, :spare].unflatten(1, (t, h, w)), layout.cell, clip)

    @staticmethod
    def over(values: Tensor, clip: InputSpec) -> CellMap:
        """Spread values (B, t, h, w) evenly over a clip: cells are as large as covers it."""
        sizes = zip((clip.frames, clip.height, clip.width), values.shape[1:], strict=True)
        t, h, w = (-(-size // cells) for size, cells in sizes)
        return CellMap(values.float(), (t, h, w), clip)

    def times(self, other: CellMap) -> CellMap:
        """Return the product cell by cell, e.g. of a spatial and a temporal map of TimeSformer.

        Raises:
            ValueError: If the maps have other cells or other clips.
        """
        if self.values.shape != other.values.shape or self.cell != other.cell or self.clip != other.clip:
            raise ValueError(
                f"Only maps of the same cells can be multiplied, got {self._described()} and {other._described()}. "
                "Take both from the same clips and from layers of one resolution."
            )
        return CellMap(self.values * other.values, self.cell, self.clip)

    @property
    def grid(self) -> tuple[int, int, int]:
        t, h, w = self.values.shape[1:]
        return t, h, w

    def at(self, grid: tuple[int, int, int]) -> CellMap:
        """Return the sums over the cells of a coarser grid (T, H, W) on the same clip; their total stays the same."""
        inside = cells_within(self.grid, grid, self.values.device)
        sums = self.values.new_zeros(len(self.values), math.prod(grid)).index_add(1, inside, self.values.flatten(1))
        t, h, w = (size * -(-cells // coarse) for size, cells, coarse in zip(self.cell, self.grid, grid, strict=True))
        return CellMap(sums.unflatten(1, grid), (t, h, w), self.clip)

    def pixels(self, mode: Mode = "nearest") -> Tensor:
        """Return the map on the clip's own frames, float32 (B, T, H, W).

        Args:
            mode: ``nearest`` (default) gives every pixel the value of the cell that it lies in. So nothing is made up
                between cells, peaks and regions are where the weights are, and the sum over pixels is that of the
                weights, each times the pixels of its cell. ``trilinear`` interpolates between the cells' centres, in
                time too: smoother to look at, but peaks get lower and weight spreads to neighbours.
        """
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be {' or '.join(map(repr, get_args(Mode)))}, got {mode!r}.")
        whole = [cells * size for cells, size in zip(self.values.shape[1:], self.cell, strict=True)]
        if mode == "nearest":
            # Plain "nearest" multiplies by a rounded 1 / size, which can put a pixel into the cell before its own.
            scaled = F.interpolate(self.values.unsqueeze(1), whole, mode="nearest-exact")
        else:
            scaled = F.interpolate(self.values.unsqueeze(1), whole, mode="trilinear", align_corners=False)
        return scaled[:, 0, : self.clip.frames, : self.clip.height, : self.clip.width]

    def _described(self) -> str:
        grid, cell = ("x".join(map(str, sizes)) for sizes in (self.values.shape, self.cell))
        return f"{grid} cells of {cell} in clips of {self.clip}"


def cells_within(fine: tuple[int, int, int], coarse: tuple[int, int, int], device: torch.device) -> Tensor:
    """Cell of a coarse grid that each cell of a finer grid over the same clip lies in, int64 (cells of the finer,)."""
    return coarser_cells(torch.arange(math.prod(fine), device=device), fine, coarse)


def _shared_out(values: Tensor, merged_into: Tensor) -> Tensor:
    """Share what the tokens have at their own cells, (B, C + 1), out among all cells that are part of them."""
    spare = values.shape[1] - 1
    token = torch.where(merged_into < 0, spare, merged_into)
    sizes = torch.zeros_like(values).scatter_add(1, token, torch.ones_like(token, dtype=values.dtype))
    return (values / sizes.clamp(min=1)).gather(1, token).masked_fill(merged_into < 0, 0)
