"""Where the keys of an attention site lie in the clip, and which of its queries a map of one head reads.

This is what turns attention weights into a picture without knowing the family that computed them.

Shapes: B clips (1 where all are alike), G groups that attend among themselves, q queries and k keys of a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.types import InputSpec

# What stands in the place of a cell's number where a key is no patch.
CLASS_TOKEN, NO_TOKEN = -2, -1


def coarser_cells(cells: Tensor, grid: tuple[int, int, int], coarse: tuple[int, int, int]) -> Tensor:
    """Number, on a coarser grid over the same clip, of the cell that the corner of each cell lies in.

    `CLASS_TOKEN` and `NO_TOKEN` stay what they are.
    """
    places = (cells // (grid[1] * grid[2]), cells // grid[2] % grid[1], cells % grid[2])
    t, y, x = (place * rough // fine for place, rough, fine in zip(places, coarse, grid, strict=True))
    return torch.where(cells < 0, cells, (t * coarse[1] + y) * coarse[2] + x)


@dataclass(frozen=True)
class AttentionLayout:
    """Where the keys of one site lie in the clip, and how much each query counts in a map.

    The keys lie on a grid of equal cells that begins at the clip's first frame and its upper left corner. No two
    patches among them share a cell. A token that stands in several groups leaves the site as the mean over them.

    Where tokens were dropped and a family fills their cells with copies of others, a copy bears the cell of the token
    that it is a copy of: what it receives is received by that token.

    Attributes:
        grid: Cells (T, H, W) of the keys.
        cell: Frames, rows and columns of the clip that a cell covers; the last cells may reach beyond the clip.
        cells: Number of each key's cell, row-major, int64 (B, G, k); `CLASS_TOKEN` or `NO_TOKEN` (padding, and tokens
            that a mask leaves out) for keys that lie nowhere.
        query_weights: Factor of each query's row when rows are added up to a map, (B, G, q): 1 for the class token and
            0 for all others where there is one; otherwise that of a mean or sum, as the family's file says. Copies
            count 0: what they attend to is discarded.
        copies: Which keys are copies of a token that stands elsewhere, bool (B, G, k); none where None.
        merged_into: Cell of the token that each cell's patch was merged into (its own where it was not), int64 (B, C);
            `NO_TOKEN` where it was dropped. What such a token receives is received by all of its cells alike. None
            where nothing was merged.
    """

    grid: tuple[int, int, int]
    cell: tuple[int, int, int]
    cells: Tensor
    query_weights: Tensor
    copies: Tensor | None = None
    merged_into: Tensor | None = None

    def boxes(self, spec: InputSpec) -> Tensor:
        """Box of every key, int64 (B, G, k, 6): first and one past the last frame, row and column; else zeros."""
        _, h, w = self.grid
        inside = self.cells.clamp(min=0)
        places = (inside // (h * w), inside // w % h, inside % w)
        bounds = []
        for place, size, limit in zip(places, self.cell, (spec.frames, spec.height, spec.width), strict=True):
            bounds += [place * size, ((place + 1) * size).clamp(max=limit)]
        return torch.stack(bounds, dim=-1) * (self.cells >= 0).unsqueeze(-1)
