"""What every registered family must do where tokens were dropped, or refuse in words."""

import copy
import dataclasses
import shutil

import pytest
import torch

from sightline.backbones import Backbone, Place, TokenState, build_backbone, last_state, run_steps
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.memory import StackSize
from sightline.tokens import KeepRandom, kept_share, trace
from sightline.types import Unit
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.backbones.reducers import Fails, KeepEvery, KeepLongKeys, Looks, all_places, permuted

# Sums of some hundred float32 products in another order; logits are of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


# Sizes at which windows exceed the grid or need padding, and parts that are missing.
SWIN_ODD = {
    "frames": 6,
    "size": 40,
    "patch": [2, 4, 4],
    "width": 24,
    "depths": [2, 2],
    "heads": [2, 3],
    "window": [2, 4, 4],
}
CASES = {
    **{name: (name, {}) for name in DEMO_VARIANTS},
    "video_swin_padded": ("video_swin_demo", SWIN_ODD),
    "mvit_residual_follows": ("mvit_demo", {"residual_follows_head": True}),
}


@pytest.fixture(scope="module", params=[*CASES, "without parts of timesformer", "without parts of video_swin"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    if request.param in CASES:
        name, options = CASES[request.param]
        found = randomise(build_backbone(name, 7, options))
    else:
        whole = randomise(build_backbone(f"{request.param.rsplit(' ', 1)[1]}_demo", 7))
        gone = [u for u in whole.units("heads") if u.layer == 1 or (u.layer == 3 and u.head == 0)]
        found = whole.without_heads(gone).without([2])
    if found.dropped_tokens == "refused":
        pytest.skip(f"{found.family} refuses dropped tokens, which tests/docs/test_adding_a_backbone.py covers")
    return found


@pytest.fixture(scope="module")
def clips(backbone: Backbone) -> torch.Tensor:
    spec = backbone.input_spec
    shape = (3, 3, spec.frames, spec.height, spec.width)
    found = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    # For `KeepEvery(ragged=True)`: the first clip's pixels add up to an odd number, the second's to an even one.
    for clip, odd in zip(found, (1, 0), strict=False):
        clip[0, 0, 0, 0] = clip[0, 0, 0, 0] // 2 * 2
        clip[0, 0, 0, 0] += (int(clip.long().sum()) + odd) % 2
    return found


def middle(backbone: Backbone) -> Place:
    return Place("layer", backbone.depth // 2 - 1)


@torch.no_grad()
def test_dropping_nothing_changes_nothing(backbone, clips, logits):
    for place in all_places(backbone):
        assert torch.equal(backbone(clips, reducer=KeepEvery(1, (place,))), logits), place
    assert torch.equal(backbone(clips, reducer=KeepRandom(kept=1.0)), logits)


@torch.no_grad()
def test_a_state_with_all_its_tokens_in_any_order_is_the_dense_one(backbone, clips, logits):
    """The path of dropped tokens, with none dropped: windows, pooling, class tokens, padding and order are right."""
    for start in range(backbone.depth):
        state = permuted(backbone.run(backbone.embed(clips), 0, start), seed=start)
        torch.testing.assert_close(backbone.classify(backbone.run(state, start)), logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(backbone.readout(state, start), logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_place_drops_and_changes_the_logits(backbone, clips, logits):
    for place in all_places(backbone):
        found = backbone(clips, reducer=KeepEvery(2, (place,)))
        assert torch.isfinite(found).all()
        # After the last layer only class tokens may be read, and then nothing that is read is dropped.
        unread = place in (Place("layer", backbone.depth - 1), Place("attention", backbone.depth - 1))
        assert torch.equal(found, logits) <= (unread and backbone.reads_class_tokens), place


@torch.no_grad()
def test_dropping_with_a_mask_is_dropping_for_real(backbone, clips):
    """Clips that keep unequal numbers run padded; each gives what it gives alone, whatever the padding holds."""
    reducer = KeepEvery(3, (Place("embedding"), middle(backbone)), ragged=True)
    [first, _] = trace(backbone, clips, reducer)
    assert first.after.unique().numel() > 1, "the clips of this test must keep unequal numbers"
    together = backbone(clips, reducer=reducer)
    alone = torch.cat([backbone(clip, reducer=reducer) for clip in clips.split(1)])
    torch.testing.assert_close(together, alone, **TOLERANCE)

    state = backbone.embed(clips, reducer)
    there = torch.nn.functional.pad(state.cell_numbers() >= 0, (state.class_tokens, 0), value=True).unsqueeze(2)
    noise = 100 * torch.randn(state.tokens.shape, generator=torch.Generator().manual_seed(5))
    noisy = dataclasses.replace(state, tokens=torch.where(there, state.tokens, noise))
    outcome = [backbone.classify(backbone.run(s, reducer=reducer)) for s in (state, noisy)]
    torch.testing.assert_close(outcome[0], outcome[1], **TOLERANCE)


@torch.no_grad()
def test_filling_is_literally_filling(backbone, clips):
    """Where a family fills: every site on the filled grid, with what comes out at the filled cells discarded."""
    if backbone.dropped_tokens != "filled":
        pytest.skip("this family leaves tokens out")
    for index, layer in backbone.layer_modules().items():
        before = backbone.before_layer(index, backbone.run(backbone.embed(clips), 0, index))
        reduced = before.select(spread(before, before.patches))
        if layer.shortcut(before).grid != before.grid:
            assert layer.shortcut(reduced).is_dense  # what changes the grid itself begins with a whole one
            continue
        for site in layer.sites:
            found = layer.project(reduced, site.name, layer.attend(reduced, site.name))
            whole = reduced.densified()
            expected = layer.project(whole, site.name, layer.attend(whole, site.name))
            torch.testing.assert_close(found.tokens, expected.select(reduced.cell_numbers()).tokens, **TOLERANCE)
            for position in range(len(site.heads)):
                outputs, outputs_whole = layer.attend(reduced, site.name), layer.attend(whole, site.name)
                part = layer.contribution(reduced, site.name, outputs, position)
                part_whole = expected.with_tokens(layer.contribution(whole, site.name, outputs_whole, position))
                torch.testing.assert_close(part, part_whole.select(reduced.cell_numbers()).tokens, **TOLERANCE)
            reduced = found


def spread(state: TokenState, count: int) -> torch.Tensor:
    """Some cells of every clip, others in each, in no order."""
    rows = [torch.randperm(count, generator=torch.Generator().manual_seed(i))[: max(count // 3, 1)] for i in range(3)]
    return torch.stack(rows)


@torch.no_grad()
def test_attention_among_what_is_left_is_a_model_without_the_others(backbone, clips):
    """Where a family leaves tokens out: the heads are those of softmax over the tokens that are left, by hand."""
    if backbone.dropped_tokens != "left_out":
        pytest.skip("this family fills")
    layer = backbone.layer_modules()[0]
    state = backbone.embed(clips)
    reduced = state.select(spread(state, state.patches))
    h, d = len(layer.attn.heads), layer.attn.head_width
    q, k, v = layer.attn.project_in(layer.norm1(reduced.tokens)).double().unflatten(2, (3, h, d)).unbind(2)
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(d**0.5).softmax(dim=3)
    expected = torch.einsum("bhqk,bkhd->bqhd", weights, v).float()
    found = layer.attend(reduced, layer.sites[0].name).heads
    torch.testing.assert_close(found, expected, **TOLERANCE)


@torch.no_grad()
def test_kept_cells_are_told_with_original_positions(backbone, clips):
    places = (Place("embedding"), Place("layer", 0))
    first, second = trace(backbone, clips, KeepEvery(2, places))
    t, h, w = first.grid
    assert [first.place, second.place] == list(places)
    assert first.before.tolist() == [t * h * w] * 3
    assert first.cells[0].tolist() == list(range(0, t * h * w, 2))[::-1]
    if second.before[0] == first.after[0]:  # nothing filled the grid in between
        assert second.cells[0].tolist() == first.cells[0].tolist()[::2][::-1]
    share = kept_share(backbone, clips, KeepEvery(2))
    assert share.shape == (3,)
    assert (share < 1).all()


@torch.no_grad()
def test_any_split_agrees(backbone, clips):
    for reducer in (
        KeepEvery(2, (Place("embedding"), middle(backbone))),
        KeepLongKeys(tuple(all_places(backbone)[1:5])),
    ):
        expected = backbone(clips, reducer=reducer)
        for split in range(backbone.depth + 1):
            state = backbone.run(backbone.embed(clips, reducer), 0, split, reducer=reducer)
            assert torch.equal(backbone.classify(backbone.run(state, split, reducer=reducer)), expected), split


@torch.no_grad()
def test_features_come_by_token(backbone, clips):
    """The keys a reducer sees are those whose cell holds the token's corner, found here one by one."""
    last_site = {info.index: info.sites[-1].name for info in backbone.layers}
    for step in run_steps(backbone, backbone.embed(clips[:1]), 0, 2):
        if (
            step.kind != "attention"
            or step.site != last_site[step.index]
            or not step.layer.attend(step.before, step.site).heads.shape[2]
        ):
            continue
        for before in (step.before, step.before.select(spread(step.before, step.before.patches)[:1])):
            outputs = step.layer.attend(before, step.site, keys=True, features=["keys"])
            state = step.layer.project(before, step.site, outputs)
            layout = step.layer.layout(before, step.site)
            found = outputs.features["keys"]
            scale = [a // b for a, b in zip(state.grid, layout.grid, strict=True)]
            _, h, w = state.grid
            _, rows, columns = layout.grid
            cells = layout.cells[0].flatten().tolist()
            flat = outputs.keys[0].transpose(1, 2).flatten(0, 1)  # (G * k, h, d)
            for place, cell in list(enumerate(state.cell_numbers()[0].tolist()))[::7]:
                y = (cell // (h * w) // scale[0], cell // w % h // scale[1], cell % w // scale[2])
                key = (y[0] * rows + y[1]) * columns + y[2]
                torch.testing.assert_close(found[0, state.class_tokens + place], flat[cells.index(key)])


@torch.no_grad()
def test_a_layer_that_is_skipped_hands_on_keys_that_fit(backbone, clips):
    """Also one that changes the grid, and at the entry of the stage behind it."""
    for index in range(1, backbone.depth):
        later = [Place("layer", index), Place("attention", index)]
        later += [Place("stage", s) for s, start in enumerate(backbone.stage_starts) if start == index + 1]
        for place in later:
            reducer = KeepLongKeys((place,))
            assert torch.isfinite(backbone(clips, skip={index}, reducer=reducer)).all()
            assert not reducer.without_keys, (index, place)


@torch.no_grad()
def test_a_reducer_sees_what_it_asked_for_and_nothing_else(backbone, clips):
    reducer = Looks()
    backbone(clips, reducer=reducer)
    assert reducer.seen == {
        Place("embedding"): (False, False),
        Place("attention", 1): (True, True),
        Place("layer", 1): (False, True),
        Place("attention", backbone.depth - 1): (False, False),
    }
    state = backbone.run(backbone.embed(clips, reducer), reducer=reducer)
    assert state.keys is None  # nobody reads them any more
    assert state.pixels is None


@torch.no_grad()
def test_a_reducer_is_asked_where_an_ablated_or_removed_layer_was(backbone, clips):
    removable = [info.index for info in backbone.layers if info.removable]
    for index in (removable[0], removable[-1]):
        reducer = KeepLongKeys((Place("layer", index), Place("attention", index)))
        assert torch.equal(
            backbone.without([index])(clips, reducer=reducer), backbone(clips, skip={index}, reducer=reducer)
        )
    if 0 in removable:
        reducer = KeepLongKeys((Place("layer", 0),))
        backbone.without([0])(clips, reducer=reducer)
        assert reducer.without_keys == [Place("layer", 0)]


@torch.no_grad()
def test_ablation_scores_the_model_with_its_reducer(backbone, clips):
    """Every unit against the literal definition: the whole model runs, with the unit off and the reducer on."""
    places = (Place("embedding"), middle(backbone))
    by_keys = [
        KeepLongKeys((middle(backbone),)),
        KeepLongKeys((Place("layer", 1),)),
        KeepLongKeys((Place("stage", len(backbone.stage_starts) - 1),)),
    ]
    for reducer in (KeepRandom(kept=0.4), KeepEvery(2, places, ragged=True), *by_keys):
        units = [*backbone.units("layers"), *backbone.units("heads")[:: 3 if backbone.depth > 6 else 2]]
        stack = StackSize()
        ablated_logits(backbone, clips, units, reducer=reducer, control=True, stack=stack)
        # The second batch runs in stacks, as measured in the first.
        found = ablated_logits(backbone, clips, units, reducer=reducer, control=True, stack=stack)
        torch.testing.assert_close(found.base, backbone(clips, reducer=reducer), **TOLERANCE)
        torch.testing.assert_close(found.control, found.base.expand_as(found.control), rtol=1e-4, atol=1e-5)
        for unit, ours in zip(units, found.units, strict=True):
            theirs = literally(backbone, clips, unit, reducer)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=lambda m, u=unit: f"{u}: {m}")


def literally(backbone, clips, unit: Unit, reducer) -> torch.Tensor:
    if unit.is_layer:
        return backbone(clips, skip={unit.layer}, reducer=reducer)
    heads = next(s.heads for i in backbone.layers if i.index == unit.layer for s in i.sites if s.name == unit.site)
    gate = torch.tensor([float(head != unit.head) for head in heads])
    return backbone(clips, gates={(unit.layer, unit.site): gate}, reducer=reducer)


@torch.no_grad()
def test_the_same_clip_is_reduced_alike_in_every_batch(backbone, clips):
    reducer = KeepRandom(kept=0.5, layer=0)
    together = backbone(clips, reducer=reducer)
    for i in range(len(clips)):
        torch.testing.assert_close(backbone(clips[i : i + 1], reducer=reducer), together[i : i + 1], **TOLERANCE)
    torch.testing.assert_close(backbone(clips.float() / 255, reducer=reducer), together, **TOLERANCE)
    assert not torch.allclose(backbone(clips, reducer=KeepRandom(kept=0.5, layer=0, seed=1)), together)


@torch.no_grad()
def test_a_reducer_leaves_nothing_behind(backbone, clips, logits):
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(clips, reducer=KeepRandom(kept=0.3))
    with pytest.raises(RuntimeError, match="a reducer failed"):
        backbone(clips, reducer=Fails())
    assert torch.equal(backbone(clips), logits)
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_training_with_dropped_tokens_reaches_every_parameter(backbone, clips):
    model = copy.deepcopy(backbone).train()
    model(clips, reducer=KeepRandom(kept=0.5)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.numel())


@torch.no_grad()
def test_variants_that_kept_unequal_numbers_run_as_one(backbone, clips):
    if backbone.before_layer(1, backbone.run(backbone.embed(clips), 0, 1)).grid != backbone.embed(clips).grid:
        return
    state = backbone.run(backbone.embed(clips), 0, 1)
    few, more = (state.select(state.cell_numbers()[:, ::n]) for n in (5, 2))
    together = last_state(run_steps(backbone, TokenState.stack([few, state, more]), 1), few)
    for part, own in zip(backbone.classify(together).chunk(3), (few, state, more), strict=True):
        torch.testing.assert_close(part, backbone.classify(backbone.run(own, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and g++ is not here")
def test_a_compiled_model_runs_with_a_reducer(backbone, clips):
    reducer = KeepEvery(2, (middle(backbone),))
    with torch.no_grad():
        expected = backbone(clips, reducer=reducer)
        compiled = torch.compile(copy.deepcopy(backbone), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(clips, reducer=reducer), expected, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


def test_places_that_do_not_exist_are_refused(backbone, clips):
    for place in (Place("layer", backbone.depth), Place("stage", len(backbone.stage_starts)), Place("embedding", 1)):
        with pytest.raises(ValueError, match=f"{backbone.family} has no place {place}"):
            backbone(clips, reducer=KeepEvery(2, (place,)))
    with pytest.raises(ValueError, match=f"layers 0 to {backbone.depth - 1}"):
        backbone(clips, reducer=KeepRandom(layer=backbone.depth))
