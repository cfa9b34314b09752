"""Which share of a map lies in the cells that a token reduction kept.

Cells drawn at random keep on average the share of the cells that they are, whatever the map.

Shapes: B clips, K tokens, C cells of the grid that they are counted in.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sightline.explain.cell_map import CellMap


def covered_cells(cells: Tensor, grid: tuple[int, int, int], merged_into: Tensor | None = None) -> Tensor:
    """Return which cells of a grid still have a part in some token, bool (B, C).

    Args:
        cells: The tokens' own cells, int64 (B, K), in any order; negative where there is no token.
        grid: The grid (T, H, W), row-major.
        merged_into: Cell of the token that each cell's patch is part of, int64 (B, C), negative where it was dropped;
            None where nothing was merged.
    """
    if merged_into is not None:
        return merged_into >= 0
    spare = math.prod(grid)  # takes the tokens that do not exist
    covered = torch.zeros(len(cells), spare + 1, dtype=torch.bool, device=cells.device)
    return covered.scatter(1, torch.where(cells < 0, spare, cells), True)[:, :spare]


def kept_mass(cell_map: CellMap, covered: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return the share of each clip's map that lies in covered cells, float32 (B,); NaN where a map is all zero.

    Args:
        cell_map: The map, on a grid at least as fine; of values that are not negative.
        covered: bool (B, C), see `covered_cells`.
        grid: The grid that these cells are counted in.

    Raises:
        ValueError: If map and cells are of other numbers of clips, or the grid has other cells.
    """
    expected = (len(cell_map.values), math.prod(grid))
    if tuple(covered.shape) != expected:
        raise ValueError(f"Expected which cells are covered as {expected} for this map, got {tuple(covered.shape)}.")
    values = cell_map.at(grid).values.flatten(1)
    return (values * covered).sum(dim=1) / values.sum(dim=1)
