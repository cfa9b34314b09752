"""Keeping the best: which, in which order, and who wins where scores are equal."""

import torch

from sightline.backbones import TokenState
from sightline.backbones.contract.kept_cells import KeptCells
from sightline.tokens.keeping import keep_best, spread_cells


def state_of(grid, batch=1, cells=None, exists=None):
    t, h, w = grid
    kept = None if cells is None else KeptCells(cells, exists, grid)
    count = t * h * w if cells is None else cells.shape[1]
    return TokenState(torch.zeros(batch, count, 2), grid, kept=kept)


def test_cells_come_in_the_order_of_an_ordered_dither():
    # Bayer's 4x4 matrix: which of the 16 cells comes how early.
    bayer = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]
    early = spread_cells((1, 4, 4), torch.device("cpu")).argsort().view(4, 4)
    assert early.tolist() == bayer


def test_every_beginning_is_spread_evenly():
    for grid in ((1, 14, 14), (3, 7, 7), (2, 5, 9), (4, 1, 6), (5, 1, 1)):
        t, h, w = grid
        order = spread_cells(grid, torch.device("cpu"))
        assert sorted(order.tolist()) == list(range(t * h * w))
        for count in range(1, t * h * w + 1, 3):
            of_frame = torch.bincount(order[:count] // (h * w), minlength=t)
            assert of_frame.max() - of_frame.min() <= 1
    corner = quarter(14, 14)
    y, x = (corner // 14).sort().values, (corner % 14).sort().values
    assert y.tolist() == x.tolist() == [place for place in range(0, 14, 2) for _ in range(7)]
    half = spread_cells((1, 6, 8), torch.device("cpu"))[:24]
    assert ((half // 8 + half % 8) % 2 == 0).all()  # a chessboard


def quarter(h, w):
    return spread_cells((1, h, w), torch.device("cpu"))[: h * w // 4]


def test_the_best_stay_in_the_order_in_which_they_stand():
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.8, 0.2, 0.7], [5.0, 1.0, 2.0, 0.0, 4.0, 3.0]])
    found = keep_best(state_of((1, 2, 3), 2), scores, 3)
    assert found.cells.tolist() == [[1, 3, 5], [0, 4, 5]]
    assert found.exists is None
    # Tokens that do not stand in the order of the grid stay in theirs.
    cells = torch.tensor([[5, 0, 3, 2], [1, 4, 0, 2]])
    found = keep_best(state_of((1, 2, 3), 2, cells), torch.tensor([[1.0, 4, 3, 2], [4, 1, 2, 3]]), 2)
    assert found.cells.tolist() == [[0, 3], [1, 2]]
    assert keep_best(state_of((1, 2, 3), 2), scores, 6) is None


def test_of_equal_scores_the_evenly_spread_stay():
    scores = torch.zeros(1, 32)
    scores[0, 17] = 1.0
    found = keep_best(state_of((2, 4, 4)), scores, 5)
    # 17 is best; then (0, 0) of both frames and (2, 2) of both frames.
    assert found.cells.tolist() == [[0, 10, 16, 17, 26]]
    # The same where the tokens stand in another order.
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    found = keep_best(state_of((2, 4, 4), 1, order.unsqueeze(0)), scores[:, order], 5)
    assert sorted(found.cells[0].tolist()) == [0, 10, 16, 17, 26]


def test_it_is_what_a_stable_sort_keeps():
    """Few different scores, so that equal ones stand on both sides of the cut; what is no number goes first."""
    generator = torch.Generator().manual_seed(0)
    grid, order = (3, 6, 6), spread_cells((3, 6, 6), torch.device("cpu"))
    for count in (1, 17, 60, 107):
        scores = torch.randint(0, 4, (5, 108), generator=generator).float()
        scores[0, :3], scores[1] = torch.inf, torch.nan
        best = scores.nan_to_num(-1, posinf=9)[:, order].sort(dim=1, descending=True, stable=True).indices[:, :count]
        expected = order[best].sort(dim=1).values
        assert torch.equal(keep_best(state_of(grid, 5), scores, count).cells, expected)


def test_what_does_not_exist_is_never_kept():
    cells, exists = torch.tensor([[0, 1, 2, 3], [3, 1, -1, -1]]), torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    scores = torch.tensor([[1.0, 2, 3, 4], [1, 2, 30, 40]])
    found = keep_best(state_of((1, 2, 2), 2, cells, exists), scores, 3)
    assert found.cells[0].tolist() == [1, 2, 3]
    assert found.cells[1][found.exists[1]].tolist() == [3, 1]
    assert found.exists.sum(dim=1).tolist() == [3, 2]
