"""Checks of what a reducer answers.

Shapes: B clips, N patches that are here, K patches that are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.contract.layout import NO_TOKEN


def check_merging(now: KeptCells, cells: Tensor, exists: Tensor | None, into: Tensor) -> None:
    """Raise ValueError unless the patches here can be merged ``into`` (B, N) the kept ones, whose cells are (B, K)."""
    if into.dtype != torch.int64 or into.shape != now.cells.shape:
        raise ValueError(
            f"Expected what each patch is merged into as int64 {tuple(now.cells.shape)}, got {into.dtype} "
            f"{tuple(into.shape)}."
        )
    if not bool(((into >= NO_TOKEN) & (into < cells.shape[1])).all()):
        raise ValueError(f"Patches can be merged into 0 to {cells.shape[1] - 1}, the kept ones, or dropped (-1).")
    wanted = torch.ones_like(cells, dtype=torch.bool) if exists is None else exists
    if not bool((wanted.gather(1, into.clamp(min=0)) | (into == NO_TOKEN)).all()):
        raise ValueError("A patch is merged into one that does not exist.")
    own = torch.arange(cells.shape[1], device=cells.device).expand_as(cells)
    position = now.position.gather(1, cells.masked_fill(~wanted, 0)).clamp(min=0)
    if not bool(((into.gather(1, position) == own) | ~wanted).all()):
        raise ValueError("A patch that is kept must be merged into itself.")


def check_selection(now: KeptCells, cells: Tensor, exists: Tensor | None) -> None:
    """Raise ValueError unless the cells (B, K) to keep have a patch each, at least one in every clip, none twice."""
    b, total = len(now.cells), now.count
    if cells.dtype != torch.int64 or cells.dim() != 2 or len(cells) != b or not cells.shape[1]:
        raise ValueError(
            f"Expected cells to keep as int64 ({b}, K) with K at least 1, got {cells.dtype} {tuple(cells.shape)}."
        )
    if exists is not None and (exists.dtype != torch.bool or exists.shape != cells.shape):
        raise ValueError(
            f"Expected which cells exist as bool {tuple(cells.shape)}, got {exists.dtype} {tuple(exists.shape)}."
        )
    wanted = torch.ones_like(cells, dtype=torch.bool) if exists is None else exists
    if not bool(wanted.any(dim=1).all()):
        raise ValueError("Every clip must keep at least one patch; a reducer left none in some clip.")
    inside = (cells >= 0) & (cells < total)
    if not bool((inside | ~wanted).all()):
        raise ValueError(f"Cells to keep must lie in the grid {now.grid}, 0 to {total - 1}.")
    number = cells.masked_fill(~wanted, 0)
    if not bool(((now.position.gather(1, number) >= 0) | ~wanted).all()):
        raise ValueError("A cell to keep has no patch any more: it was dropped at an earlier place.")
    times = torch.zeros(b, total, dtype=torch.int64, device=cells.device).scatter_add(1, number, wanted.long())
    if bool((times > 1).any()):
        raise ValueError("A cell to keep is named twice for one clip.")
