"""Decomposed relative positions, and how they are folded into queries and keys.

Source: Li et al., "MViTv2", 2022, section 4.1, equations 2 and 3; parity with torchvision's implementation. A query i
and a key j, both patches, have the logit

    scale * q_i . k_j  +  q_i . R_t[t_i, t_j]  +  q_i . R_h[y_i, y_j]  +  q_i . R_w[x_i, x_j]

where (t, y, x) are their cells. The last three terms depend on the key's cell only through t_j, y_j and x_j. So the
products of a query with every frame, row and column of the keys' grid, put behind the query, and three ones among
zeros, put behind the key, give the same logit by one product, which fused attention computes, also in training:

    q'_i = [q_i ; q_i . R_h[y_i, :] ; q_i . R_w[x_i, :] ; q_i . R_t[t_i, :]]
    k'_j = [scale * k_j ; onehot(y_j) ; onehot(x_j) ; onehot(t_j)]

The class token has no cell: its further columns are zero, as query and as key.

Shapes: B clips, h heads, d width of a head, N patches among the queries, M among the keys, E further columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Size3 = tuple[int, int, int]
Terms = tuple[Tensor, Tensor, Tensor]

# Fused kernels on GPUs want the width of a head in multiples of this; on CPUs it makes no difference.
ALIGNMENT = 8


def table_rows(queries: int, keys: int) -> int:
    """Number of relative positions along an axis with this many query cells and key cells."""
    return 2 * max(queries, keys) - 1


def relative_rows(queries: int, keys: int) -> Tensor:
    """Row of the table for every pair of cells along one axis, int64 (queries, keys).

    The coarser of the two grids is stretched to the finer one. Fractions are cut off, and the single-precision
    products are those of torchvision, because another rounding could cut off a whole row.
    """
    query_step, key_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    query = torch.arange(queries)[:, None] * query_step
    key = (torch.arange(keys)[None, :] + (1.0 - keys)) * key_step
    return (query - key).long()


def resized(table: Tensor, rows: int) -> Tensor:
    """Interpolate a table (rows_before, d) linearly to (rows, d)."""
    if table.shape[0] == rows:
        return table
    return F.interpolate(table.t().unsqueeze(0), size=rows, mode="linear").squeeze(0).t()


def key_cells(grid: Size3, head_width: int) -> Tensor:
    """Columns behind the keys: ones at each key's row, column and frame, (1 + M, E); zeros for the class token.

    Columns of zeros fill the head up to a multiple of `ALIGNMENT`.
    """
    t, h, w = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    cells = [F.one_hot(cell.flatten(), size) for cell, size in zip((h, w, t), (grid[1], grid[2], grid[0]), strict=True)]
    columns = torch.cat(cells, dim=1).float()
    return F.pad(columns, (0, -(head_width + columns.shape[1]) % ALIGNMENT, 1, 0))


def query_terms(queries: Tensor, height: Tensor, width: Tensor, time: Tensor) -> Terms:
    """Multiply every query with the relative positions of every row, column and frame of the keys.

    Args:
        queries: (B, T, H, W, h, d), patches only, not scaled.
        height: Relative positions by query row and key row, (H, rows, d).
        width: Likewise by columns, (W, columns, d).
        time: Likewise by frames, (T, frames, d).

    Returns:
        (B, T, H, W, h, rows), (B, T, H, W, h, columns), (B, T, H, W, h, frames).
    """
    b, t, h, w, heads, d = queries.shape
    # As products of matrices over the queries of one row or frame, two of the three need no copy of the queries.
    by_row = torch.matmul(queries.reshape(b, t, h, w * heads, d), height.transpose(1, 2))
    by_frame = torch.matmul(queries.reshape(b, t, h * w * heads, d), time.transpose(1, 2))
    by_column = torch.einsum("btywhd,wkd->btywhk", queries, width)
    return by_row.view(b, t, h, w, heads, -1), by_column, by_frame.view(b, t, h, w, heads, -1)


def fold(
    queries: Tensor, keys: Tensor, values: Tensor, terms: Terms, cells: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries (B, h, 1 + N, d + E), keys and values (B, h, 1 + M, d + E) for attention without bias or scale.

    Args:
        queries: (B, 1 + N, h, d), the class token first.
        keys: (B, h, 1 + M, d), likewise.
        values: (B, h, 1 + M, d), likewise; theirs are padded with zeros, because CPUs fuse equal widths only.
        terms: What `query_terms` returns.
        cells: What `key_cells` returns, (1 + M, E).
        scale: Factor of the products of queries and keys.
    """
    further = torch.cat(terms, dim=-1).flatten(1, 3)
    # Zeros for the class token before, and for the columns that only align the width behind.
    further = F.pad(further, (0, cells.shape[1] - further.shape[-1], 0, 0, 1, 0))
    wide_queries = torch.cat((queries, further), dim=-1).transpose(1, 2)
    # The keys are scaled, not the queries, of which there are many more.
    wide_keys = torch.cat((keys * scale, cells.to(keys.dtype).expand(*keys.shape[:2], -1, -1)), dim=-1)
    return wide_queries, wide_keys, F.pad(values, (0, cells.shape[1]))


def relative_bias(terms: Terms) -> Tensor:
    """What the relative positions add to the logits, (B, h, 1 + N, 1 + M), as attention in steps takes it."""
    by_row, by_column, by_frame = terms
    pairs = by_frame[..., :, None, None] + by_row[..., None, :, None] + by_column[..., None, None, :]
    return F.pad(pairs.flatten(5).flatten(1, 3).transpose(1, 2), (1, 0, 1, 0))
