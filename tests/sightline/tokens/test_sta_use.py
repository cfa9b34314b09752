"""STA in use: batches, runs in parts, precisions, programs, training, and what is refused."""

import pytest
import torch

from sightline.backbones import Backbone, build_backbone
from sightline.tokens import REDUCERS, STA, KeepRandom, TokenReduction, trace
from sightline.tokens.sta.score import unit_vectors
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.tokens.small_models import double, some_clips
from tests.sightline.tokens.sta_literal import Beside


@pytest.fixture(scope="module", params=DEMO_VARIANTS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return double(request.param)


@torch.no_grad()
def test_a_clip_gives_the_same_in_any_batch(backbone):
    clips = some_clips(backbone, 3)
    together = trace(backbone, clips, STA())
    for index in range(3):
        for kept, alone in zip(together, trace(backbone, clips[index : index + 1], STA()), strict=True):
            assert torch.equal(kept.cells[index : index + 1], alone.cells)
    whole = backbone(clips, reducer=STA())
    parts = torch.cat([backbone(clip, reducer=STA()) for clip in clips.split(1)])
    torch.testing.assert_close(whole, parts)


@torch.no_grad()
def test_a_run_in_parts_is_the_same(backbone):
    clips, reducer = some_clips(backbone), STA()
    expected = backbone(clips, reducer=reducer)
    for cut in range(1, backbone.depth):
        state = backbone.run(backbone.embed(clips, reducer), 0, cut, reducer=reducer)
        found = backbone.classify(backbone.run(state, cut, reducer=reducer))
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_half_precision_is_scored_in_single():
    features = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    assert unit_vectors(features).dtype == torch.float32
    vit = randomise(build_backbone("vit_demo", 7))
    kept = trace(vit, some_clips(vit), STA(similarity="mlp"))
    # After layer 0, whose output is made the same with and without autocast, scores and so choices are too.
    seen: list[torch.Tensor] = []
    state = vit.run(vit.embed(some_clips(vit)), 0, 1)
    reducer = STA(similarity="mlp").fitted(vit)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            seen.append(reducer.reduce(vit.reduction_places[0], state).cells)  # type: ignore[union-attr]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], kept[0].cells)
    kept = trace(vit.to(torch.bfloat16), some_clips(vit), STA())
    assert [at.after.tolist() for at in kept] == [[172, 172], [130, 130], [109, 109]]


@pytest.mark.parametrize(("name", "gone"), [("vit_demo", [0]), ("timesformer_demo", [0]), ("video_swin_demo", [0, 1])])
def test_without_any_layer_before_it_the_tokens_are_compared(name, gone):
    smaller = double(name).without(gone)
    reducer = Beside(STA())
    with torch.no_grad():
        smaller(some_clips(smaller), reducer=reducer)
    assert reducer.asked == list(smaller.reduction_places)
    assert reducer.without_features == [reducer.asked[0]]


def test_programs_can_hold_it():
    check_program(double("vit_demo").without([1, 3, 5]))


@pytest.mark.slow
def test_programs_of_every_family_can(backbone):
    check_program(backbone)


@torch.no_grad()
def check_program(backbone: Backbone) -> None:
    """No shape depends on what is seen: exported with one clip, it gives what the model gives with others."""
    reducer = STA(attention="filled")
    clips = some_clips(backbone)

    class Reduced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return self.backbone(clips, reducer=reducer)

    sizes = ({0: torch.export.Dim("batch")},)
    given = (torch.zeros_like(clips),)
    program = torch.export.export(Reduced(), given, dynamic_shapes=sizes, strict=False).module()
    clips = some_clips(backbone, 3)
    torch.testing.assert_close(program(clips), backbone(clips, reducer=reducer))


def test_training_reaches_every_parameter():
    vit = randomise(build_backbone("vit_demo", 7)).train()
    vit(some_clips(vit), reducer=STA()).sum().backward()
    assert all(parameter.grad is not None for parameter in vit.parameters())


@torch.no_grad()
def test_tokens_are_reduced_once(backbone):
    clips, first = some_clips(backbone), backbone.reduction_places[0]
    after = backbone.stage_starts[first.index] if first.kind == "stage" else first.index + 1
    before = 0 if first.kind == "layer" else after
    other = KeepRandom(kept=0.5)
    reduced = backbone.run(backbone.embed(clips, other if before == 0 else None), 0, before)
    if first.kind == "layer" and backbone.layer_modules()[first.index].fills_first:
        return  # what was dropped is filled in before STA is asked
    if first.kind == "layer":
        with pytest.raises(ValueError, match=f"already dropped before {first}, the first place .* only one can run"):
            backbone.run(reduced, reducer=STA())
    # Where its first place has passed, the number tells.
    state = backbone.run(backbone.embed(clips), 0, after + 1)
    state = state.select(state.cell_numbers()[:, : state.patches // 2])
    if not backbone.refilled:
        with pytest.raises(ValueError, match=r"tokens at .*: they were reduced before by something else"):
            backbone.run(state, after + 1, reducer=STA())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": "last"}, "STA's first must be one of tome, grid, random, got 'last'"),
        ({"similarity": "key"}, "similarity must be one of keys, queries, values, mlp, got 'key'"),
        ({"score": "all"}, "score must be one of both, accumulation, semantics, got 'all'"),
        ({"frames": "4"}, "frames must be one of auto, super, single, got '4'"),
        ({"previous": "next"}, "previous must be one of whole, kept, got 'next'"),
        ({"order": "fxb"}, "a row of f .* like fbf, got 'fxb'"),
        ({"order": ""}, "order must be a row"),
        ({"r": -2}, "r must be at least 0, or -1"),
        ({"schedule": "48,-1"}, "like 48,48,48; got '48,-1'"),
        ({"schedule": "slow"}, "must be paper, constant, decreasing, increasing, rising, or how many"),
        ({"schedule": "1,1,1", "r": 4}, "says itself how many tokens go; leave r out, got r=4"),
        ({"attention": "dense"}, "must be sparse or filled"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        STA(**options)


def test_what_leaves_nothing_is_refused_with_what_would_do():
    vit = build_backbone("vit_demo", 7)
    message = (
        r"A frame has 64 tokens at layer 0 \(grid 4x8x8\); dropping 64 leaves none. The largest r for vit here is 36"
    )
    with pytest.raises(ValueError, match=message):
        vit(some_clips(vit), reducer=STA(r=64))
    message = (
        r"4 frames read as one have 96 tokens at layer 4 \(grid 4x8x8\); dropping 120 leaves none. "
        "The schedule 20,20,30 can have 23 at most there, for each frame"
    )
    with pytest.raises(ValueError, match=message):
        STA(schedule="20,20,30").fitted(vit)
    STA(schedule="20,20,23").fitted(vit)
    message = "The schedule 4,4 is for 2 places; vit has 3: layer 0, layer 2, layer 4"
    with pytest.raises(ValueError, match=message):
        vit(some_clips(vit), reducer=STA(schedule="4,4"))
    with pytest.raises(ValueError, match=message):
        STA(schedule="4,4").amounts(vit)


def test_a_family_that_needs_all_its_tokens_refuses():
    class Refusing(type(build_backbone("vit_demo", 7))):  # type: ignore[misc]
        dropped_tokens = "refused"

    vit = build_backbone("vit_demo", 7)
    vit.__class__ = Refusing
    with pytest.raises(ValueError, match="needs all of its tokens"):
        vit(some_clips(vit), reducer=STA())


def test_options_come_from_words():
    assert REDUCERS["sta"] is STA
    reduction = TokenReduction.from_text("sta", {"r": "4", "schedule": "paper", "order": "bfb"})
    assert reduction.label == "sta_orderbfb_r4"
    assert reduction.build() == STA(r=4, order="bfb")
    listed = TokenReduction.from_text("sta", {"schedule": "3,2,1"})
    assert TokenReduction.from_plain(listed.plain()) == listed
    amounts = [amount.schedule for amount in listed.build().amounts(build_backbone("vit_demo", 3))]
    assert amounts[:5] == ["0,0,0", "1,1,0", "2,1,1", "3,2,1", "4,3,1"]
    assert amounts[-1] == "31,21,10"  # 62 of a frame's 64; 32,21,11 leaves none
    assert [amount.schedule for amount in STA(schedule="0,0,0").amounts(build_backbone("vit_demo", 3))] == ["0,0,0"]
