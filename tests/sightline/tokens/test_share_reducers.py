"""Reducers that keep a share: where they drop, how many stay, and what is refused."""

import dataclasses

import pytest
import torch

from sightline.backbones import Place, build_backbone
from sightline.tokens import KeepAttended, KeepChanged, KeepGrid, KeepRandom, TokenReduction, kept_share, trace
from sightline.tokens.share_reducer import shares_left
from tests.conftest import TINY_SWIN, randomise


def test_one_stage_drops_half_as_many_at_each_further_place():
    """STA's default counts for a ViT of 1,568 patches: 8 r, 4 r, 2 r; 64 of each of 8 frames leave 672."""
    left = shares_left(build_backbone("vit_demo", 2), 672 / 1568)
    assert list(left) == [Place("layer", 0), Place("layer", 2), Place("layer", 4)]
    assert [share * 1568 for share in left.values()] == pytest.approx([1056, 800, 672])


def test_stages_with_a_whole_grid_drop_anew():
    """STA's default counts for Video Swin: 256 of 28x28, 96 of 14x14 and 32 of 7x7 cells go."""
    swin = build_backbone("video_swin_demo", 2, {"depths": [1, 1, 1, 1], "heads": [2, 4, 8, 8]})
    left = shares_left(swin, 17 / 49)
    assert list(left) == [Place("stage", 1), Place("stage", 2), Place("stage", 3)]
    assert [(1 - share) * cells for share, cells in zip(left.values(), (784, 196, 49), strict=True)] == pytest.approx(
        [256, 96, 32]
    )


@torch.no_grad()
def test_the_control_has_these_counts_at_these_places(tiny_swin, tiny_clips):
    found = trace(tiny_swin, tiny_clips, KeepRandom(kept=0.25))
    assert [(at.place, at.grid, at.after.tolist()) for at in found] == [(Place("stage", 1), (2, 4, 4), [8] * 3)]
    vit = build_backbone("vit_demo", 2).eval()
    clips = torch.randint(0, 256, (2, 3, 8, 64, 64), dtype=torch.uint8)
    for reducer in (KeepRandom(0.3, at="places"), KeepGrid(0.3, at="places"), KeepChanged(0.3, at="places")):
        # 256 patches of which 4, 6 and 7 sevenths of 0.7 go, rounded up to whole ones that stay.
        assert [at.after.tolist() for at in trace(vit, clips, reducer)] == [[154] * 2, [103] * 2, [77] * 2]


@torch.no_grad()
def test_where_is_the_embedding_a_layer_or_the_places(tiny_swin, tiny_clips):
    vit = build_backbone("vit_demo", 2)
    for reducer, where, expected in (
        (KeepGrid(), vit, ["embedding"]),
        (KeepGrid(), tiny_swin, ["stage 1"]),
        (KeepGrid(at="embedding"), tiny_swin, ["embedding"]),
        (KeepGrid(at="places"), vit, ["layer 0", "layer 2", "layer 4"]),
        (KeepGrid(layer=3), tiny_swin, ["layer 3"]),
        (KeepAttended(layer=1, at="places"), tiny_swin, ["layer 1"]),
    ):
        assert [str(place) for place in reducer.places(where)] == expected


def test_what_cannot_be_is_said(tiny_swin, tiny_clips):
    with pytest.raises(ValueError, match="above 0 and at most 1, got 0"):
        KeepGrid(kept=0.0)
    with pytest.raises(ValueError, match="one of own, embedding, places, got 'layer 3'"):
        KeepGrid(at="layer 3")
    with pytest.raises(ValueError, match=r"layers 0 to 3; .* after layer 9"):
        tiny_swin(tiny_clips, reducer=KeepGrid(layer=9))
    single = build_backbone("video_swin_demo", 2, {**TINY_SWIN, "depths": [2], "heads": [2]})
    with pytest.raises(ValueError, match="has one stage and so no places for token reduction; name a layer"):
        KeepGrid(at="places").places(single)
    assert list(KeepGrid().places(single)) == [Place("embedding")]
    with pytest.raises(ValueError, match=r"KeepGrid acts in a backbone: ask reducer.fitted"):
        KeepGrid().reduce(Place("embedding"), tiny_swin.embed(tiny_clips))


@torch.no_grad()
def test_the_grid_is_the_same_for_all_clips_and_nested(tiny_swin, tiny_clips):
    [found] = trace(tiny_swin, tiny_clips, KeepGrid(kept=0.25))
    # 8 of 2x4x4 cells: (0, 0), (2, 2), (0, 2), (2, 0) of both frames.
    assert found.cells.tolist() == [[0, 2, 8, 10, 16, 18, 24, 26]] * 3
    before: set[int] = set()
    for kept in (0.1, 0.3, 0.5, 0.8):
        [found] = trace(tiny_swin, tiny_clips, KeepGrid(kept=kept))
        assert before < set(found.cells[0].tolist())
        before = set(found.cells[0].tolist())


def changed_literally(tokens, cells, grid):
    """Score after score: the token before at the same place, or the last one that is there, or zero."""
    _, h, w = grid
    scores = []
    for clip, own in zip(tokens.double(), cells.tolist(), strict=True):
        row = []
        for token, cell in zip(clip, own, strict=True):
            before = [other for other in own if other % (h * w) == cell % (h * w) and other < cell]
            last = clip[own.index(max(before))] if before else torch.zeros_like(token)
            row.append(sum((a - b) ** 2 for a, b in zip(token.tolist(), last.tolist(), strict=True)) ** 0.5)
        scores.append(row)
    return torch.tensor(scores, dtype=torch.float64)


def test_change_is_the_distance_to_the_token_before():
    from sightline.backbones import TokenState

    # One place, two frames: (3, 4) is new, and (3, 0) is 4 away from it. A class token is passed over.
    state = TokenState(torch.tensor([[[9.0, 9.0], [3, 4], [3, 0]]]), (2, 1, 1), class_tokens=1)
    assert KeepChanged().scores(Place("embedding"), state).tolist() == [[5.0, 4.0]]
    generator = torch.Generator().manual_seed(0)
    state = TokenState(torch.randn(2, 1 + 4 * 6, 5, generator=generator), (4, 2, 3), class_tokens=1)
    thinned = state.select(torch.stack([torch.randperm(24, generator=generator)[:11] for _ in range(2)]))
    for each in (state, thinned):
        expected = changed_literally(each.tokens[:, 1:], each.cell_numbers(), each.grid)
        found = KeepChanged().scores(Place("layer", 1), each)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_demo", "timesformer_joint_demo"])
def test_attention_is_that_of_the_first_layer(name):
    """Softmax by hand on all tokens: of the class token, or the mean over all queries where there is none."""
    backbone = randomise(build_backbone(name, 2))
    clips = torch.randint(0, 256, (2, 3, 8, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state, layer = backbone.embed(clips), backbone.layer_modules()[0]
    h, d = len(layer.attn.heads), layer.attn.head_width
    q, k, _ = layer.attn.project_in(layer.norm1(state.tokens)).double().unflatten(2, (3, h, d)).unbind(2)
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(d**0.5).softmax(dim=3).mean(dim=1)
    received = weights[:, 0, 1:] if state.class_tokens else weights.mean(dim=1)
    [found] = trace(backbone, clips, KeepAttended(kept=0.25))
    for kept, scores in zip(found.cells, received, strict=True):
        assert len(kept) == -(-state.patches // 4)
        assert set(kept.tolist()) == set(scores.topk(len(kept)).indices.tolist())


@torch.no_grad()
def test_without_a_layer_that_attends_the_grid_stays(tiny_swin, tiny_clips):
    smaller = tiny_swin.without([2, 3])  # the whole second stage
    [attended], [grid] = (trace(smaller, tiny_clips, kind(kept=0.25)) for kind in (KeepAttended, KeepGrid))
    assert torch.equal(attended.cells, grid.cells)


@torch.no_grad()
def test_amounts_go_from_all_to_almost_none(tiny_swin, tiny_clips):
    for kind in (KeepRandom, KeepGrid, KeepChanged, KeepAttended):
        amounts = kind(at="places", attention="filled").amounts(tiny_swin)
        assert {(amount.at, amount.attention) for amount in amounts} == {("places", "filled")}
        assert [amount.kept for amount in amounts] == sorted({amount.kept for amount in amounts}, reverse=True)
        assert kept_share(tiny_swin, tiny_clips, amounts[0]).tolist() == [1.0] * 3
        # Two of four layers run on 1 of 32 cells.
        assert kept_share(tiny_swin, tiny_clips, amounts[-1]).tolist() == [(2 + 2 / 32) / 4] * 3
        with pytest.raises(ValueError, match="after layer 7"):
            kind(layer=7).amounts(tiny_swin)


def test_a_reducer_that_acted_is_still_the_same(tiny_swin):
    reducer = KeepRandom(kept=0.3)
    bound = reducer.fitted(tiny_swin)
    assert bound == reducer
    assert reducer._backbone is None
    assert {field.name for field in dataclasses.fields(bound)} == {"attention", "kept", "layer", "at", "seed"}
    assert TokenReduction.of("random", dataclasses.asdict(bound)).label == "random_kept0.3"
