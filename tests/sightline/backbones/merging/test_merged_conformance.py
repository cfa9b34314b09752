"""What every registered family must do where tokens were merged."""

import copy

import pytest
import torch

from sightline.backbones import Backbone, Place, Reducer, TokenState, build_backbone
from sightline.backbones.contract.kept_cells import Attending
from sightline.backbones.contract.received_attention import received_attention
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.memory import StackSize
from sightline.tokens import ToMe, kept_share, trace
from tests.conftest import randomise
from tests.sightline.backbones.reducers import MergePairs
from tests.sightline.backbones.test_sparse_conformance import literally

# Sums of some hundred float32 products in another order; logits are of order 1.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
PROPORTIONAL = Attending(proportional=True)
JOINT = ("vit_demo", "timesformer_joint_demo")


@pytest.fixture
def clips_of():
    """Two clips for any backbone."""

    def of(backbone: Backbone) -> torch.Tensor:
        spec = backbone.input_spec
        shape = (2, 3, spec.frames, spec.height, spec.width)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))

    return of


def leaders(state: TokenState) -> torch.Tensor:
    """For every cell that whose token it is to have: in every second row of a frame the left one of a pair."""
    _, h, w = state.grid
    cells = torch.arange(state.patches)
    return torch.where(cells // w % h % 2 == 0, cells - cells % w % 2, cells)


def with_pairs(state: TokenState) -> TokenState:
    """The state with the two tokens of each pair alike."""
    rows = torch.cat((torch.arange(state.class_tokens), leaders(state) + state.class_tokens))
    return state.with_tokens(state.tokens[:, rows])


def paired(state: TokenState, how: Attending = PROPORTIONAL) -> TokenState:
    """The state with the two tokens of each pair merged."""
    cells, into = leaders(state).unique(return_inverse=True)
    return state.merge(cells.expand(state.batch, -1), into.expand(state.batch, -1), how=how)


@pytest.mark.parametrize("name", JOINT)
@torch.no_grad()
def test_merged_equals_attended_with_their_number_are_the_dense_model(name, clips_of):
    """Tokens that are the same to the bit, merged and not: every layer, readout and classifier count them alike."""
    backbone = randomise(build_backbone(name, 7))
    state = with_pairs(backbone.embed(clips_of(backbone)))
    expected = backbone.classify(backbone.run(state))
    merged = paired(state)
    assert merged.patches * 4 == state.patches * 3
    torch.testing.assert_close(backbone.classify(backbone.run(merged)), expected, **TOLERANCE)
    torch.testing.assert_close(backbone.readout(merged), expected, **TOLERANCE)
    # Also where some of the clips that run together have no merged tokens, and so more of them.
    both = backbone.readout(TokenState.stack([merged, state, merged]))
    torch.testing.assert_close(both, expected.repeat(3, 1), **TOLERANCE)
    # And not where a token counts once.
    plain = backbone.classify(backbone.run(paired(state, Attending())))
    assert (plain - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["timesformer_demo", "video_swin_demo"])
@torch.no_grad()
def test_families_that_fill_count_merged_equals_by_themselves(name, clips_of):
    """Pairs in the same window and frame that nothing tells apart: filling is the dense model then."""
    options = {"shifted_windows": False} if name.startswith("video_swin") else {}
    backbone = randomise(build_backbone(name, 7, options))
    for key, parameter in backbone.named_parameters():
        if "bias_table" in key:
            parameter.zero_()  # places within a window are told apart by this alone
    state = with_pairs(backbone.embed(clips_of(backbone)))
    expected = backbone.classify(backbone.run(state))
    for how in (PROPORTIONAL, Attending()):
        torch.testing.assert_close(backbone.classify(backbone.run(paired(state, how))), expected, **TOLERANCE)


@torch.no_grad()
def test_a_site_on_merged_tokens_is_that_of_the_grid_filled_with_them(backbone, clips):
    """Where a family fills: merged patches stand in for their cells as keys, and only a token's own cell is read."""
    if backbone.dropped_tokens != "filled":
        pytest.skip("this family attends among what is left")
    for index, layer in backbone.layer_modules().items():
        before = backbone.before_layer(index, backbone.run(backbone.embed(clips), 0, index))
        if layer.fills_first:
            continue
        merged = scattered(before, seed=index)
        for site in layer.sites:
            found = layer.project(merged, site.name, layer.attend(merged, site.name))
            whole = merged.densified()
            expected = layer.project(whole, site.name, layer.attend(whole, site.name))
            torch.testing.assert_close(found.tokens, expected.select(merged.cell_numbers()).tokens, **TOLERANCE)
            merged = found


def scattered(state: TokenState, seed: int, how: Attending = PROPORTIONAL) -> TokenState:
    """Half of the patches merged into any others, a few dropped."""
    rng = torch.Generator().manual_seed(seed)
    n, kept = state.patches, state.patches // 2
    cells = torch.stack([torch.randperm(n, generator=rng)[:kept] for _ in range(state.batch)])
    into = torch.randint(-1, kept, (state.batch, n), generator=rng)
    return state.merge(cells, into.scatter(1, cells, torch.arange(kept).expand_as(cells)), how=how)


@torch.no_grad()
def test_joint_attention_weighs_a_key_by_its_patches(backbone, clips):
    """By hand: softmax over the keys, each as often as it has patches."""
    if backbone.dropped_tokens != "left_out":
        pytest.skip("this family fills")
    layer = backbone.layer_modules()[0]
    dense = backbone.embed(clips)
    for how in (PROPORTIONAL, Attending()):
        state = scattered(dense, 1, how)
        h, d = len(layer.attn.heads), layer.attn.head_width
        q, k, v = layer.attn.project_in(layer.norm1(state.tokens)).double().unflatten(2, (3, h, d)).unbind(2)
        found = layer.attend(state, "attention", weights=True)
        fused = layer.attend(state, "attention")
        torch.testing.assert_close(found.heads, fused.heads, **TOLERANCE)
        for b in range(2):
            sizes = [1] * state.class_tokens + state.kept.sizes[b].tolist()
            times = torch.tensor(sizes if how.proportional else [1] * len(sizes)).double()
            exp = torch.einsum("qhd,khd->hqk", q[b], k[b]).div(d**0.5).exp() * times
            weights = exp / exp.sum(dim=2, keepdim=True)
            torch.testing.assert_close(found.attention[b, 0].double(), weights, **TOLERANCE)
            torch.testing.assert_close(
                fused.heads[b].double(), torch.einsum("hqk,khd->qhd", weights, v[b]), **TOLERANCE
            )


@torch.no_grad()
def test_what_a_merged_token_receives_is_what_its_key_receives(backbone, clips):
    if backbone.dropped_tokens != "left_out":
        pytest.skip("a token of a filled grid receives at several places")
    state = scattered(backbone.embed(clips), 2)
    layer = backbone.layer_modules()[0]
    weights = layer.attend(state, "attention", weights=True).attention[:, 0].mean(dim=1)
    if state.class_tokens:
        expected = weights[:, 0]
    else:
        expected = torch.einsum("bq,bqk->bk", state.kept.sizes / state.kept.sizes.sum(dim=1, keepdim=True), weights)
    expected[:, : state.class_tokens] = 0
    torch.testing.assert_close(received_attention(layer, state), expected)


REDUCERS: list[Reducer] = [ToMe(r=20, proportional=True), MergePairs((Place("embedding"), Place("layer", 1)))]


@pytest.mark.parametrize("reducer", REDUCERS, ids=["tome", "pairs"])
@torch.no_grad()
def test_ablation_scores_the_model_that_merges(backbone, clips, reducer):
    """Every unit against the literal definition: the whole model runs, with the unit off and the reducer on."""
    units = [*backbone.units("layers")[:: 3 if backbone.depth > 6 else 1], *backbone.units("heads")[::9]]
    stack = StackSize()
    ablated_logits(backbone, clips, units[:3], reducer=reducer, stack=stack)
    found = ablated_logits(backbone, clips, units, reducer=reducer, control=True, stack=stack)
    torch.testing.assert_close(found.base, backbone(clips, reducer=reducer), **TOLERANCE)
    torch.testing.assert_close(found.control, found.base.expand_as(found.control), **TOLERANCE)
    for unit, ours in zip(units, found.units, strict=True):
        theirs = literally(backbone, clips, unit, reducer)
        torch.testing.assert_close(ours, theirs, **TOLERANCE, msg=lambda m, u=unit: f"{u}: {m}")


@torch.no_grad()
def test_a_smaller_model_merges_too(backbone, clips):
    index = [info.index for info in backbone.layers if info.removable][-1]
    whole = backbone(clips, skip={index}, reducer=REDUCERS[0])
    torch.testing.assert_close(backbone.without([index])(clips, reducer=REDUCERS[0]), whole, **TOLERANCE)
    headless = backbone.without_heads([unit for unit in backbone.units("heads") if unit.layer == 0])
    assert torch.isfinite(headless(clips, reducer=REDUCERS[0])).all()  # no keys in the first layer


@torch.no_grad()
def test_clips_and_splits_change_nothing(backbone, clips):
    for reducer in REDUCERS:
        expected = backbone(clips, reducer=reducer)
        alone = torch.cat([backbone(clip, reducer=reducer) for clip in clips.split(1)])
        torch.testing.assert_close(alone, expected, **TOLERANCE)
        for split in (1, 2, backbone.depth - 1):
            state = backbone.run(backbone.embed(clips, reducer), 0, split, reducer=reducer)
            assert torch.equal(backbone.classify(backbone.run(state, split, reducer=reducer)), expected), split


@torch.no_grad()
def test_merging_nothing_changes_nothing(backbone, clips, logits):
    assert torch.equal(backbone(clips, reducer=ToMe(r=0)), logits)
    assert trace(backbone, clips, ToMe(r=0)) == []
    assert torch.equal(kept_share(backbone, clips, ToMe(r=0)), torch.ones(2))
    assert (backbone(clips, reducer=ToMe(r=9)) - logits).abs().max() > 1e-4


def test_training_and_half_precision_with_merging(backbone, clips):
    model = copy.deepcopy(backbone).train()
    reducer = ToMe(r=9, proportional=True)
    with torch.autocast("cpu", torch.bfloat16):
        model(clips, reducer=reducer).float().square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.numel())
    # Not close in general: rounding may merge others. With what is merged fixed, it is.
    fixed = MergePairs((Place("embedding"), Place("layer", 1)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = backbone(clips, reducer=fixed).float()
    torch.testing.assert_close(found, backbone(clips, reducer=fixed).detach(), rtol=0.1, atol=0.1)


@torch.no_grad()
def test_the_trace_tells_what_makes_up_a_token(backbone, clips):
    reducer = ToMe(r=9)
    found = trace(backbone, clips, reducer)
    assert [at.place.index for at in found] == list(range(backbone.depth - backbone.reads_class_tokens))
    for at in found:
        cells = at.grid[0] * at.grid[1] * at.grid[2]
        assert at.merged_into is not None
        assert at.merged_into.shape == (2, cells)
        for b in range(2):
            into, kept = at.merged_into[b].tolist(), at.cells[b].tolist()
            assert set(into) == set(kept)  # nothing is dropped, so every cell has its token
            assert all(into[cell] == cell for cell in kept)
