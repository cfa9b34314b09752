"""The state of tokens where some were merged: against lists of patches that are averaged one by one, and by hand."""

import dataclasses

import pytest
import torch

from sightline.backbones import TokenState
from sightline.backbones.contract.kept_cells import Attending, KeptCells

GRID = (2, 3, 4)
CELLS = 24
PROPORTIONAL = Attending(proportional=True)


def dense(batch: int = 2, class_tokens: int = 1, width: int = 3, seed: int = 0) -> TokenState:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, class_tokens + CELLS, width, generator=generator)
    keys = torch.randn(batch, class_tokens + CELLS, 2, 3, generator=generator)
    return TokenState(tokens, GRID, class_tokens, features={"keys": keys, "attention": tokens[:, :, 0] ** 2})


class Literal:
    """One clip's tokens, each the list of patches of the grid that it is made of; a token's cell is its first patch."""

    def __init__(self, patches: torch.Tensor) -> None:
        self.patches = patches.double()
        self.tokens = [[cell] for cell in range(len(patches))]

    def reduce(self, kept: list[int], into: list[int] | None) -> None:
        """Keep tokens by position; ``into`` says for every token which of the kept takes its patches, or -1."""
        new = [list(self.tokens[i]) for i in kept]
        for i, target in enumerate(into or []):
            if target >= 0 and i != kept[target]:
                new[target] += self.tokens[i]
        self.tokens = new

    def value(self, token: int) -> torch.Tensor:
        return torch.stack([self.patches[cell] for cell in self.tokens[token]]).mean(dim=0)

    def token_of(self, cell: int) -> int:
        return next((i for i, patches in enumerate(self.tokens) if cell in patches), -1)


def random_reduction(rng, there: list[int], merges: bool) -> tuple[list[int], list[int]]:
    """Positions of the tokens to keep, in any order, and what becomes of all tokens of a clip."""
    order = torch.randperm(len(there), generator=rng).tolist()
    kept = order[: max(1, int(len(order) * 0.7))]
    into = [-1] * len(there)
    for position, token in enumerate(kept):
        into[token] = position
    for token in order[len(kept) :]:
        into[token] = int(torch.randint(-1, len(kept), (1,), generator=rng)) if merges else -1
    return kept, into


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_merging_and_dropping_is_that_of_lists(seed, unequal):
    rng = torch.Generator().manual_seed(seed)
    state = dense(batch=3, seed=seed)
    names = ("keys", "attention")
    clips = [{name: Literal(values[b, 1:]) for name, values in everything(state).items()} for b in range(3)]
    for step in range(4):
        merges = step != 2
        chosen = [random_reduction(rng, clips[b]["tokens"].tokens, merges) for b in range(3)]
        if unequal and step == 1:  # the second clip loses two more
            kept, into = chosen[1]
            chosen[1] = kept[:-2], [i if i < len(kept) - 2 else -1 for i in into]
        most, width = max(len(kept) for kept, _ in chosen), state.patches
        cells, exists = torch.full((3, most), 77), torch.zeros(3, most, dtype=torch.bool)
        targets = torch.full((3, width), 1000)  # of patches that do not exist it is not read
        for b, (kept, into) in enumerate(chosen):
            own = state.cell_numbers()[b]
            cells[b, : len(kept)], exists[b, : len(kept)] = own[torch.tensor(kept)], True
            targets[b, : len(into)] = torch.tensor(into)
            for literal in clips[b].values():
                literal.reduce(kept, into if merges else None)
        there = None if bool(exists.all()) else exists
        state = state.merge(cells, targets, there, PROPORTIONAL) if merges else state.select(cells, there, PROPORTIONAL)
        assert (state.key_mask is None) == (there is None)
        for b in range(3):
            agree(state, b, clips[b], names)
    repeated = TokenState.stack([state, state])
    for b in range(6):
        agree(repeated, b, clips[b % 3], names)
        assert torch.equal(repeated.kept.nearest[b], state.kept.nearest[b % 3])
    for parts in ([state, dense(batch=3, seed=9)], [dense(batch=3, seed=9), state]):
        stacked = TokenState.stack(parts)
        start = 0 if parts[0] is state else 3
        for b in range(3):
            agree(stacked, start + b, clips[b], names)
            plain = {name: Literal(values[b, 1:]) for name, values in everything(dense(batch=3, seed=9)).items()}
            agree(stacked, 3 - start + b, plain, names)


def everything(state: TokenState) -> dict[str, torch.Tensor]:
    return {"tokens": state.tokens, **state.features}


def agree(state: TokenState, b: int, clip: dict[str, Literal], names) -> None:
    lists = clip["tokens"]
    count = len(lists.tokens)
    assert state.cell_numbers()[b].tolist() == [p[0] for p in lists.tokens] + [-1] * (state.patches - count)
    for name in ("tokens", *names):
        for i in range(count):
            found, expected = everything(state)[name][b, 1 + i].double(), clip[name].value(i)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    sizes = [len(patches) for patches in lists.tokens]
    owners = [lists.token_of(cell) for cell in range(CELLS)]
    assert state.kept.sizes[b].tolist() == sizes + [0] * (state.patches - count)
    assert state.kept.owner[b].tolist() == owners
    assert state.kept.merged_into[b].tolist() == [-1 if i < 0 else lists.tokens[i][0] for i in owners]
    # A merged patch is filled with its token, a dropped one with the nearest token.
    whole = state.densified().tokens[b, 1:]
    nearest = KeptCells(state.cell_numbers(), state.kept.exists, GRID).nearest[b]
    for cell, token in enumerate(owners):
        assert torch.equal(whole[cell], state.tokens[b, 1 + (token if token >= 0 else int(nearest[cell]))])
    covered = [lists.patches[cell] for patches in lists.tokens for cell in patches]
    expected = torch.stack([state.tokens[b, 0].double(), *covered]).mean(dim=0)
    torch.testing.assert_close(state.mean()[b].double(), expected, rtol=1e-5, atol=1e-6)


def test_merging_by_hand():
    state = TokenState(torch.tensor([[[1.0], [2.0], [4.0], [8.0]]]), (1, 2, 2))
    once = state.merge(torch.tensor([[3, 0]]), torch.tensor([[1, 1, 0, 0]]))
    assert once.tokens.flatten().tolist() == [6.0, 1.5]  # (4 + 8) / 2, (1 + 2) / 2
    assert once.kept.owner.tolist() == [[1, 1, 0, 0]]
    assert once.kept.merged_into.tolist() == [[0, 0, 3, 3]]
    dropped = once.select(torch.tensor([[0]]))
    assert (dropped.kept.owner.tolist(), dropped.kept.sizes.tolist()) == ([[0, 0, -1, -1]], [[2]])
    again = state.merge(torch.tensor([[3, 1, 2]]), torch.tensor([[0, 1, 2, 0]]))
    assert again.tokens.flatten().tolist() == [4.5, 2.0, 4.0]
    all_ = again.merge(torch.tensor([[2]]), torch.tensor([[0, 0, 0]]))
    assert all_.tokens.flatten().tolist() == [3.75]  # (2 * 4.5 + 2 + 4) / 4: the mean over patches
    assert all_.kept.sizes.tolist() == [[4]]


def test_merging_nothing_leaves_the_state_as_it_is():
    state = dense()
    cells = torch.arange(CELLS).expand(2, -1)
    assert state.merge(cells, cells) is state
    few = state.select(torch.tensor([[7, 3], [0, 20]]))
    assert few.merge(few.cell_numbers(), torch.tensor([[0, 1], [0, 1]])) is few


def test_a_place_that_no_clip_needs_is_dropped():
    exists = torch.tensor([[False, True, True], [False, True, False]])
    into = torch.full((2, CELLS), 1)
    into[0, 5], into[0, 4] = 2, -1
    found = dense().merge(torch.tensor([[0, 3, 5], [0, 3, 0]]), into, exists)
    assert found.cell_numbers().tolist() == [[3, 5], [3, -1]]
    assert found.kept.sizes.tolist() == [[CELLS - 2, 1], [CELLS, 0]]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_drifts(kind):
    tokens = torch.full((1, 2048, 2), 50.0, dtype=kind)
    tokens[:, ::2, 1] = 1
    tokens[:, 1::2, 1] = 3
    state = TokenState(tokens, (8, 16, 16))
    merged = state.merge(torch.tensor([[0, 2000]]), (torch.arange(2048) >= 2000).long()[None])
    assert merged.tokens.dtype == kind
    assert merged.tokens.tolist() == [[[50.0, 2.0], [50.0, 2.0]]]
    assert merged.mean().tolist() == [[50.0, 2.0]]


def test_gradients_reach_every_patch_in_proportion():
    tokens = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    state = TokenState(tokens, (1, 2, 2)).merge(torch.tensor([[0, 3]]), torch.tensor([[0, 0, -1, 1]]))
    again = state.merge(torch.tensor([[3]]), torch.tensor([[0, 0]]))
    again.tokens.sum().backward()
    torch.testing.assert_close(tokens.grad[0, :, 0], torch.tensor([1 / 3, 1 / 3, 0, 1 / 3], dtype=torch.float64))

    def merged(x):
        return TokenState(x, (1, 2, 2)).merge(torch.tensor([[0, 3]]), torch.tensor([[0, 0, -1, 1]])).mean()

    assert torch.autograd.gradcheck(merged, (tokens,))


def test_states_are_stacked_only_where_they_are_attended_with_alike():
    cells, into = torch.tensor([[0, 1], [0, 1]]), (torch.arange(CELLS) % 2).expand(2, -1)
    plain, merged = dense(), dense().merge(cells, into, how=PROPORTIONAL)
    few = plain.select(cells)  # nothing merged: how much its tokens weigh is all the same
    for parts in ([few, merged], [merged, plain], [merged, plain, few]):
        assert TokenState.stack(parts).kept.how == PROPORTIONAL
    with pytest.raises(ValueError, match=r"attended with in different ways: .*False.*True"):
        TokenState.stack([merged, dense().merge(cells, into)])
    with pytest.raises(ValueError, match="different ways"):
        TokenState.stack([merged, plain.select(cells, how=Attending(sparse=False))])


@pytest.mark.parametrize(
    ("into", "exists", "message"),
    [
        ([0] * (CELLS - 1), None, r"int64 \(1, 24\)"),
        ([0.0, 1.0] + [0.0] * 22, None, "int64"),
        ([0, 2] + [0] * 22, None, "merged into 0 to 1, the kept ones"),
        ([0, -2] + [0] * 22, None, "merged into 0 to 1, the kept ones"),
        ([1, 0] + [0] * 22, None, "must be merged into itself"),
        ([0, -1] + [0] * 22, None, "must be merged into itself"),
        ([0, 0] + [1] * 22, [True, False], "one that does not exist"),
    ],
)
def test_impossible_merging_is_refused(into, exists, message):
    there = None if exists is None else torch.tensor([exists])
    with pytest.raises(ValueError, match=message):
        dense(batch=1).merge(torch.tensor([[0, 1]]), torch.tensor([into]), there)


def test_merging_keeps_everything_else_of_a_state():
    state = dataclasses.replace(dense(), pixels=torch.zeros(2, 3, 1, 1, 1), embedding_grid=(2, 6, 8))
    merged = state.merge(torch.tensor([[0], [5]]), torch.zeros(2, CELLS, dtype=torch.int64))
    assert (merged.grid, merged.class_tokens, merged.embedding_grid) == (GRID, 1, (2, 6, 8))
    assert merged.pixels is state.pixels
    assert torch.equal(merged.tokens[:, 0], state.tokens[:, 0])
