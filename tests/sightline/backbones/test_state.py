"""The state of tokens: dropping, filling and stacking, against slow code and by hand."""

import itertools

import pytest
import torch

from sightline.backbones import TokenState
from sightline.backbones.contract.kept_cells import KeptCells

GRID = (3, 4, 5)
CELLS = 60


def dense(batch: int = 2, class_tokens: int = 1, width: int = 4) -> TokenState:
    """Tokens whose first channel tells their place: class tokens -1, patches their cell."""
    tokens = torch.randn(batch, class_tokens + CELLS, width, generator=torch.Generator().manual_seed(batch))
    tokens[:, :class_tokens, 0] = -1
    tokens[:, class_tokens:, 0] = torch.arange(CELLS).float()
    return TokenState(tokens, GRID, class_tokens)


def nearest_by_hand(kept: list[int], cell: int) -> int:
    """The cell of the token nearest to a cell: within its frame, or that of the nearest frame that has one."""
    _, height, width = GRID
    frames = {c // (height * width) for c in kept}
    t, y, x = cell // (height * width), cell // width % height, cell % width
    frame = min(frames, key=lambda f: (abs(f - t), f))
    there = sorted(c for c in kept if c // (height * width) == frame)
    return min(there, key=lambda c: ((c // width % height - y) ** 2 + (c % width - x) ** 2, c))


@pytest.mark.parametrize("kept", [[0, 7, 33], [59], [21, 22, 39, 3, 41], list(range(0, CELLS, 3))])
def test_every_cell_is_filled_by_its_nearest_token(kept):
    cells = torch.tensor([kept])
    found = KeptCells(cells, None, GRID)
    assert found.standing_in[0].tolist() == [nearest_by_hand(kept, cell) for cell in range(CELLS)]
    assert [kept[i] for i in found.nearest[0].tolist()] == found.standing_in[0].tolist()


def test_filling_does_not_depend_on_how_many_frames_are_compared_at_once(monkeypatch):
    from sightline.backbones.contract import kept_cells

    cells = torch.stack([torch.randperm(CELLS, generator=torch.Generator().manual_seed(i))[:11] for i in range(3)])
    expected = KeptCells(cells, None, GRID).nearest
    monkeypatch.setattr(kept_cells, "_NUMBERS_AT_ONCE", 1)
    assert torch.equal(KeptCells(cells, None, GRID).nearest, expected)


def test_repeated_cells_search_once():
    once = KeptCells(torch.tensor([[0, 7, 33], [59, 2, 3]]), torch.tensor([[True] * 3, [True, True, False]]), GRID)
    twice = once.repeated(2)
    assert torch.equal(twice.cells, torch.cat((once.cells, once.cells)))
    fresh = KeptCells(twice.cells, twice.exists, GRID)
    assert torch.equal(twice.nearest, fresh.nearest)
    assert torch.equal(twice.position, fresh.position)
    state = dense().select(torch.tensor([[0, 7], [59, 2]]))
    assert TokenState.stack([state]) is state
    assert TokenState.stack([state, state]).kept.nearest.tolist() == state.kept.nearest.tolist() * 2


def test_means_in_half_precision_do_not_overflow():
    tokens = torch.full((2, 60, 4), 50.0, dtype=torch.float16)
    state = TokenState(tokens.repeat(1, 20, 1), (60, 4, 5))
    exists = torch.ones(2, 1200, dtype=torch.bool)
    exists[1, 5:] = False
    found = state.select(torch.arange(1200).expand(2, -1), exists).mean()
    assert found.dtype == torch.float16
    assert (found == 50).all()


def test_selected_tokens_keep_their_values_cells_and_order():
    state = dense()
    cells = torch.tensor([[7, 3, 40], [0, 59, 1]])
    reduced = state.select(cells)
    assert not reduced.is_dense
    assert reduced.grid == GRID
    assert reduced.tokens[:, :, 0].tolist() == [[-1, 7, 3, 40], [-1, 0, 59, 1]]
    assert torch.equal(reduced.tokens[:, 0], state.tokens[:, 0])
    assert torch.equal(reduced.cell_numbers(), cells)
    assert reduced.key_mask is None
    again = reduced.select(torch.tensor([[40, 7], [59, 0]]))
    assert again.tokens[:, :, 0].tolist() == [[-1, 40, 7], [-1, 59, 0]]
    assert again.cell_numbers().tolist() == [[40, 7], [59, 0]]  # still those of the whole grid


def test_clips_may_keep_unequal_numbers():
    exists = torch.tensor([[True, True, True], [True, False, False]])
    reduced = dense().select(torch.tensor([[7, 3, 40], [9, 0, 0]]), exists)
    assert reduced.cell_numbers().tolist() == [[7, 3, 40], [9, -1, -1]]
    assert reduced.key_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert reduced.densified().tokens[1, 1:, 0].unique().tolist() == [9]
    torch.testing.assert_close(reduced.mean()[1], reduced.tokens[1, :2].mean(dim=0))


def test_nothing_stands_where_no_clip_has_a_token():
    exists = torch.tensor([[True, False, True], [True, False, False]])
    reduced = dense().select(torch.tensor([[7, 3, 40], [9, 0, 1]]), exists)
    assert reduced.cell_numbers().tolist() == [[7, 40], [9, -1]]
    alone = dense(batch=1).select(torch.tensor([[7, 3, 40]]), exists[:1])
    assert alone.cell_numbers().tolist() == [[7, 40]]
    assert alone.key_mask is None


def test_keeping_all_leaves_a_dense_state_as_it_is():
    state = dense()
    assert state.select(torch.randperm(CELLS).expand(2, -1)) is state
    assert state.densified() is state
    reduced = state.select(torch.tensor([[7, 3], [0, 59]]))
    assert reduced.select(torch.tensor([[7, 3], [0, 59]])) is reduced


def test_keys_go_with_their_tokens():
    import dataclasses

    state = dense()
    state = dataclasses.replace(state, features={"keys": state.tokens[:, :, None, :2] * 2})
    reduced = state.select(torch.tensor([[7, 3], [0, 59]]))
    assert torch.equal(reduced.keys, reduced.tokens[:, :, None, :2] * 2)
    assert torch.equal(reduced.densified().keys, reduced.densified().tokens[:, :, None, :2] * 2)


@pytest.mark.parametrize(
    ("cells", "exists", "message"),
    [
        (torch.tensor([[0, 60], [0, 1]]), None, "must lie in the grid"),
        (torch.tensor([[0, -1], [0, 1]]), None, "must lie in the grid"),
        (torch.tensor([[5, 5], [0, 1]]), None, "named twice"),
        (torch.tensor([[0, 1]]), None, r"int64 \(2, K\)"),
        (torch.tensor([[0.0], [1.0]]), None, "int64"),
        (torch.zeros(2, 0, dtype=torch.int64), None, "K at least 1"),
        (torch.tensor([[0], [1]]), torch.tensor([[True], [False]]), "at least one patch"),
        (torch.tensor([[0], [1]]), torch.tensor([True, True]), r"bool \(2, 1\)"),
    ],
)
def test_impossible_selections_are_refused(cells, exists, message):
    with pytest.raises(ValueError, match=message):
        dense().select(cells, exists)


def test_a_dropped_token_cannot_come_back():
    reduced = dense().select(torch.tensor([[7, 3], [0, 59]]))
    with pytest.raises(ValueError, match="dropped at an earlier place"):
        reduced.select(torch.tensor([[7], [3]]))


def test_another_number_of_tokens_is_refused():
    state = dense()
    with pytest.raises(ValueError, match=r"Expected \(2, 61\).*got \(2, 60\).*select"):
        state.with_tokens(state.tokens[:, 1:])


def test_class_tokens_alone_cannot_be_filled():
    alone = dense().only_class_tokens()
    assert (alone.patches, alone.grid, alone.key_mask) == (0, GRID, None)
    with pytest.raises(ValueError, match="without patches"):
        alone.filling()
    assert TokenState.stack([alone, alone]).tokens.shape == (4, 1, 4)


def test_states_of_unequal_numbers_are_padded():
    state = dense()
    few, more = state.select(torch.tensor([[7], [3]])), state.select(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    for parts in itertools.permutations([state, few, more]):
        stacked = TokenState.stack(parts)
        assert stacked.batch == 6
        start = 0
        for part in parts:
            own = stacked.cell_numbers()[start : start + 2]
            assert torch.equal(own[:, : part.patches], part.cell_numbers())
            assert (own[:, part.patches :] == -1).all()
            assert torch.equal(stacked.tokens[start : start + 2, : part.patches + 1], part.tokens)
            start += 2
    same = TokenState.stack([few, few])
    assert same.key_mask is None  # nothing is missing


def test_what_does_not_belong_together_is_not_stacked():
    import dataclasses

    state = dense()
    with pytest.raises(ValueError, match="same grid"):
        TokenState.stack([state, dataclasses.replace(state, grid=(3, 5, 4))])
    with pytest.raises(ValueError, match="widths 4, 6"):
        TokenState.stack([state, dense(width=6)])
    with pytest.raises(ValueError, match="only some carry keys"):
        TokenState.stack([state, dataclasses.replace(state, features={"keys": torch.zeros(2, 61, 1, 2)})])
    one, two = (dataclasses.replace(state, features={"keys": torch.zeros(2, 61, heads, 2)}) for heads in (1, 3))
    with pytest.raises(ValueError, match="keys have other shapes"):
        TokenState.stack([one, two])
