"""How groups of unequal sizes are cut into calls, and what runs where nothing is known of a clip."""

import math

import pytest
import torch

from sightline.backbones import TokenState
from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.parts.attention import counting
from sightline.backbones.parts.grouped_attention import Call, Limits, Members, cut, kept_sparse, padded, plan_groups
from sightline.backbones.parts.sparse_frames import frame_plan
from sightline.backbones.parts.sparse_windows import distinct_biases, window_plan
from sightline.backbones.parts.window_regions import regions
from sightline.backbones.parts.windows import relative_position_index, window_geometry
from tests.sightline.backbones.sparse_attention.reductions import FILLED, SPARSE, dense, reduced


def test_groups_join_a_call_as_long_as_padding_costs_less_than_another():
    groups = [Call(0, 1, q, 10, 10) for q in (9, 8, 5, 5, 1)] + [Call(1, 1, 1, 10, 10)]
    # The second brings 1 * 10 pairs in vain, of 2 multiply-adds; the third would bring 4 * 10.
    found = cut(groups, 2, Limits(in_vain=20, pairs=1000))
    assert found == [Call(0, 2, 9, 10, 10), Call(0, 2, 5, 10, 10), Call(0, 1, 1, 10, 10), Call(1, 1, 1, 10, 10)]
    assert cut(groups, 2, Limits(in_vain=0, pairs=1000)) == [
        *groups[:2], Call(0, 2, 5, 10, 10), *groups[4:]
    ]  # fmt: skip
    assert cut(groups, 2, Limits(in_vain=10**9, pairs=1000)) == [Call(0, 5, 9, 10, 10), groups[5]]
    assert cut(groups, 2, Limits(in_vain=10**9, pairs=90)) == groups


def test_one_thing_that_moves_is_never_padded_to_13_times_its_work():
    """One window full, and all others with one token each: by far the largest alone, and the others together."""
    groups = [Call(0, 1, 392, 392, 392), *[Call(0, 1, 1, 2, 392)] * 60]
    assert cut(groups, 2 * 384, Limits(2**21, 2**17)) == [groups[0], Call(0, 60, 1, 2, 392)]


def test_padding_repeats_the_last_member():
    place, there = padded(torch.tensor([2, 0, 3]), torch.tensor([2, 0]), [(2, 3)])
    assert place.tolist() == [2, 3, 4, 0, 1, 1]
    assert there.tolist() == [True] * 5 + [False]


def test_a_plan_by_hand():
    queries = Members(torch.tensor([7, 5, 9]), torch.tensor([1, 0, 2]))
    keys = Members(torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 2, 2]))
    plan = plan_groups(queries, keys, [0, 0, 0], [4, 4, 4], 8)
    assert plan.calls == (Call(0, 2, 2, 2, 4),)  # the one in the middle has nothing to ask
    assert plan.groups.tolist() == [2, 0]
    assert plan.queries.tolist() == [5, 9, 7, 7]
    assert plan.keys.tolist() == [3, 4, 0, 0]
    assert plan.key_source.tolist() == [3, 4, 0, -1]
    assert plan.outputs.tolist() == [2, 0, 1]
    with counting():  # without any padding
        assert plan_groups(queries, keys, [0, 0, 0], [4, 4, 4], 8).calls == (Call(0, 1, 2, 2, 4), Call(0, 1, 1, 1, 4))


def test_biases_of_distinct_tokens_by_hand():
    """One window of four cells in a row, of which the first and the last have tokens; each fills one cell more."""
    kept = KeptCells(torch.tensor([[0, 3]]), None, (1, 1, 4))
    geometry = window_geometry((1, 1, 4), (1, 1, 4), False)
    plan = window_plan(kept, geometry, 4)
    assert plan.distinct is not None
    table = torch.arange(7.0).unsqueeze(1)  # the bias of a query at i for a key at j is 3 + i - j
    bias = distinct_biases(plan.distinct, table, relative_position_index((1, 1, 4)))
    [(call, part)] = plan.groups.parts()
    e = [math.exp(x) for x in range(7)]
    expected = [[e[3] + e[2], e[1] + e[0]], [e[6] + e[5], e[4] + e[3]]]
    torch.testing.assert_close(bias(call, part), torch.tensor(expected).log().view(1, 1, 2, 2))


def test_frames_without_tokens_and_how_often_each_stands_there():
    """Two frames of three cells; the first has one token, the second none and is filled with that one too."""
    kept = KeptCells(torch.tensor([[1]]), None, (2, 1, 3))
    plan = frame_plan(kept, 4)
    assert plan.groups.calls == (Call(0, 2, 2, 2, 3),)
    assert plan.groups.queries.tolist() == [0, 1, 0, 0]  # the second frame's copy of the class token is padded
    assert plan.groups.keys.tolist() == [0, 1, 0, 1]
    torch.testing.assert_close(plan.key_bias, torch.tensor([1.0, 3.0, 1.0, 3.0]).log())
    assert plan.places.tolist() == [[0, 2, 1]]
    assert frame_plan(kept, 4, class_only=True).groups.queries.tolist() == [0, 0]


def test_regions_of_a_shifted_window_by_hand():
    """Six cells in a row, windows of four shifted by two: padded to eight; the last window joins two ends."""
    found = regions(window_geometry((1, 1, 6), (1, 1, 4), True), torch.device("cpu"))
    assert found.cells.tolist() == [2, 3, 4, 5, 6, 6, 0, 1]
    assert found.sizes == (4, 2, 2)
    assert found.kinds == (0, 1, 2)
    assert [places.tolist() for places in found.kind_places] == [[0, 1, 2, 3], [0, 1], [2, 3]]
    assert found.region_of.tolist() == [2, 2, 0, 0, 0, 0]
    assert found.place_of.tolist() == [2, 3, 0, 1, 2, 3]
    assert found.rank_of.tolist() == [0, 1, 0, 1, 2, 3]


def test_stacked_variants_share_their_plans():
    state = reduced(dense((2, 4, 4), 2, 8), "random", SPARSE)
    first, second = (TokenState.stack([state, state, state]).kept for _ in range(2))
    assert first is second
    geometry = window_geometry((2, 4, 4), (2, 4, 4), True)
    assert window_plan(first, geometry, 8) is window_plan(second, geometry, 8)


def test_groups_are_filled_where_shapes_must_not_depend_on_the_clip(monkeypatch):
    state = reduced(dense((2, 4, 4), 2, 8), "random", SPARSE)
    assert kept_sparse(state) is state.kept
    assert kept_sparse(dense((2, 4, 4), 2, 8)) is None
    assert kept_sparse(reduced(dense((2, 4, 4), 2, 8), "random", FILLED)) is None
    assert kept_sparse(TokenState(state.tokens.to("meta"), state.grid, kept=state.kept)) is None
    for name in ("is_compiling", "is_exporting"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.compiler, name, lambda: True)
            assert kept_sparse(state) is None
