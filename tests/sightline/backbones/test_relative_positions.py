"""Relative positions by hand, and folded against unfolded."""

import torch

from sightline.backbones.parts.attention import attention, attention_with_weights
from sightline.backbones.parts.relative_positions import (
    fold,
    key_cells,
    query_terms,
    relative_bias,
    relative_rows,
    resized,
    table_rows,
)


def test_rows_by_hand():
    # Among equals, the middle row is the cell itself.
    assert relative_rows(2, 2).tolist() == [[1, 0], [2, 1]]
    # Four queries, two keys: a key counts as two cells.
    assert relative_rows(4, 2).tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    # Two queries, four keys: a query counts as two cells.
    assert relative_rows(2, 4).tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
    # Three queries, two keys: a key counts as one and a half, and fractions are cut off.
    assert relative_rows(3, 2).tolist() == [[1, 0], [2, 1], [3, 2]]


def test_every_row_lies_in_its_table():
    for queries in range(1, 30):
        for keys in range(1, 30):
            rows = relative_rows(queries, keys)
            assert rows.min() >= 0
            assert rows.max() < table_rows(queries, keys)


def test_key_cells_by_hand():
    # One frame of two rows and one column; a head of width 5 is filled up to 5 + 2 + 1 + 1 + 7 = 16.
    cells = key_cells((1, 2, 1), 5)
    assert cells.shape == (3, 11)
    assert cells[:, :4].tolist() == [[0, 0, 0, 0], [1, 0, 1, 1], [0, 1, 1, 1]]
    assert cells[:, 4:].sum() == 0


def test_a_table_of_the_right_length_is_left_alone():
    table = torch.randn(5, 3)
    assert resized(table, 5) is table
    torch.testing.assert_close(resized(torch.arange(4.0)[:, None], 2)[:, 0], torch.tensor([0.5, 2.5]))


def test_folded_equals_unfolded_and_the_definition():
    torch.manual_seed(0)
    grid, key_grid, heads, d, b = (2, 3, 4), (2, 2, 3), 2, 5, 2
    n, m = 24, 12
    q, k, v = (torch.randn(b, size, heads, d, dtype=torch.double) for size in (1 + n, 1 + m, 1 + m))
    tables = [torch.randn(a, c, d, dtype=torch.double) for a, c in zip(grid, key_grid, strict=True)]
    time, height, width = tables
    terms = query_terms(q[:, 1:].reshape(b, *grid, heads, d), height, width, time)
    bias = relative_bias(terms)
    assert bias.shape == (b, heads, 1 + n, 1 + m)
    cells = torch.cartesian_prod(*(torch.arange(s) for s in grid)).tolist()
    key_cell = torch.cartesian_prod(*(torch.arange(s) for s in key_grid)).tolist()
    for i in (0, 7, 23):
        for j in (0, 5, 11):
            r = sum(table[a, c] for table, a, c in zip(tables, cells[i], key_cell[j], strict=True))
            expected = (q[:, 1 + i] * r).sum(-1)
            torch.testing.assert_close(bias[:, :, 1 + i, 1 + j], expected)
    assert bias[:, :, 0].abs().sum() == bias[:, :, :, 0].abs().sum() == 0
    q_, k_, v_ = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    unfolded, _ = attention_with_weights(q_, k_, v_, bias, 0.3)
    folded = attention(*fold(q, k_, v_, terms, key_cells(key_grid, d), 0.3), scale=1.0)
    assert folded.shape[-1] % 8 == 0
    torch.testing.assert_close(folded[..., :d], unfolded)
    assert folded[..., d:].abs().sum() == 0
