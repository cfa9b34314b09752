"""What holds for every attribution method, in every family; and the maps of planted heads."""

import copy
import dataclasses

import pytest
import torch

from sightline.backbones import Observer, build_backbone
from sightline.explain.attribution.method import attribute
from sightline.explain.attribution.registry import METHODS, label_of, read_method, read_methods, usable_methods
from sightline.explain.methods.attention_gradients import SiteGradient, attention_gradients
from sightline.explain.methods.relevant_heads import RelevantHeads
from sightline.types import Unit
from tests.sightline.explain.planted import CASES, HEAD, marked_clips, planted

FAMILIES = ("vit_demo", "timesformer_demo", "timesformer_joint_demo", "video_swin_demo", "mvit_demo")
SETTINGS = {"frames": 8, "size": 64}
REFUSED = {"rollout": ("video_swin_demo", "mvit_demo")}
# Other batches run other kernels in the families that pool.
CLOSE = 5e-6


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request):
    torch.manual_seed(0)
    made = build_backbone(request.param, 5, SETTINGS).eval().requires_grad_(False)
    made.test_name = request.param
    return made


@pytest.fixture(scope="module")
def clips():
    return torch.randint(256, (3, 3, 8, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


QUICK = {
    "integrated_gradients": "integrated_gradients:steps=3",
    "occlusion": "occlusion:frames=2:size=4:stride=2",
    "kernel_shap": "kernel_shap:samples=20",
    "lime": "lime:samples=20",
    "token_sampling": "token_sampling:count=6",
}


def built(name, backbone):
    method = read_method(QUICK.get(name, name))
    if isinstance(method, RelevantHeads):
        units = backbone.units("heads")
        method = RelevantHeads(weights={unit: 1.0 + place for place, unit in enumerate(units)})
    return method


@pytest.mark.parametrize("name", METHODS)
def test_each_clip_counts_alone_and_nothing_is_left_behind(name, backbone, clips):
    if backbone.test_name in REFUSED.get(name, ()):
        with pytest.raises(ValueError, match="square"):
            attribute(built(name, backbone), backbone, clips, torch.tensor([0, 3, 1]))
        return
    method, targets = built(name, backbone), torch.tensor([0, 3, 1])
    before = backbone(clips)
    found = attribute(method, backbone, clips, targets)
    alone = attribute(method, backbone, clips[1:2], targets[1:2])
    values = found.cells.values
    assert values.shape[0] == 3
    assert values.flatten(1).std(dim=1).min() > 0  # no map is even
    torch.testing.assert_close(alone.cells.values[0], values[1], rtol=CLOSE, atol=CLOSE * float(values.abs().max()))
    assert torch.equal(backbone(clips), before)
    assert found.by_frame.shape == values.shape[:2]
    if name != "untrained":  # whose passes are those of the method that it is the control of
        assert (found.passes.backward > 0) == method.needs_gradients
        assert (found.passes.forward == 0) == method.control
    pixels = found.cells.pixels()
    assert pixels.shape == (3, 8, 64, 64)


@pytest.mark.parametrize("name", ["chefer", "legrad"])
def test_gradient_methods_tell_classes_apart(name, backbone, clips):
    maps = [attribute(METHODS[name](), backbone, clips[:1], torch.tensor([c])).cells.values for c in (0, 1)]
    assert not torch.allclose(maps[0], maps[1], rtol=1e-4, atol=0)


def test_a_gradient_at_the_attention_is_that_of_the_model(backbone, clips):
    """Heads are linear in A, so A dA and H dH have the same sum, whatever the layer."""
    observer = Observer(attention=True, heads=True)
    state = backbone.embed(clips)
    state = state.with_tokens(state.tokens.detach().requires_grad_())
    score = backbone.classify(backbone.run(state, observer=observer))[:, 2].sum()
    for seen in observer.sites.values():
        dA, dH = torch.autograd.grad(score, (seen.attention, seen.heads), retain_graph=True)
        torch.testing.assert_close((seen.attention * dA).sum(), (seen.heads * dH).sum(), rtol=1e-3, atol=1e-4)


def test_the_gradient_of_attention_moves_the_score_as_it_says(clips):
    """Against a model whose last layer's attention is changed a little, by hand."""
    torch.manual_seed(0)
    backbone = build_backbone("vit_demo", 5, SETTINGS).double().eval()
    passed, _ = attention_gradients(backbone, clips[:1].double() / 255, torch.tensor([2]))
    last = [one for one in passed if isinstance(one, SiteGradient)][-1]
    change = torch.randn(last.attention.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 1e-8
    layer = backbone.layer_modules()[5]
    state = backbone.run(backbone.embed(clips[:1].double() / 255), 0, 5)
    qkv = layer.attn.qkv(layer.norm1(state.tokens)).view(1, -1, 3, 4, backbone.config.width // 4)
    values = qkv[:, :, 2].transpose(1, 2)

    def score(attention):
        heads = torch.matmul(attention[:, 0], values).transpose(1, 2).flatten(2)
        after = state.with_tokens(state.tokens + layer.attn.proj(heads))
        return backbone.classify(layer.mlp_step(after))[0, 2]

    moved = score(last.attention + change) - score(last.attention)
    assert moved.item() == pytest.approx((last.gradient * change).sum().item(), rel=1e-3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("asked", ["head:head=1:layer=0", "relevant_heads"])
def test_a_planted_head_shows_the_marked_patch(case, asked):
    backbone, cells = CASES[case][0], CASES[case][1]
    model = planted(backbone)
    clips, corners = marked_clips(backbone, cells[0], every=3)
    method = read_method(asked)
    if isinstance(method, RelevantHeads):
        site = model.layers[0].sites[-1].name
        method = dataclasses.replace(method, weights={Unit(0, site, HEAD): 1.0, Unit(0, site, 0): 1e-6})
    values = attribute(method, model, clips, torch.zeros(len(clips), dtype=torch.int64)).cells
    pixels = values.pixels()
    for clip, (t, y, x) in enumerate(corners):
        own = pixels[clip]
        if "timesformer" in case:  # its spatial site looks within every frame: only the clip's own frame has a peak
            own = own[t : t + 1]
            t = 0
        assert own[t, y, x] == own.max()
        assert own[t, y, x] > 1.5 * own.mean()


def test_weights_can_be_each_clips_own():
    backbone = planted(CASES["vit"][0])
    clips, _ = marked_clips(backbone, CASES["vit"][1][0], every=5)
    heads = [Unit(0, "attention", 0), Unit(0, "attention", HEAD)]
    one = torch.arange(len(clips)) % 2

    def weights(_backbone, given, _targets):
        return {heads[0]: (one == 0).float()[: len(given)], heads[1]: (one == 1).float()[: len(given)]}

    found = attribute(RelevantHeads(weights=weights), backbone, clips, torch.zeros(len(clips), dtype=torch.int64))
    peaks = found.cells.values.flatten(1).amax(dim=1) / found.cells.values.flatten(1).mean(dim=1)
    assert (peaks[one == 0] < 1.01).all()  # head 0 looks at everything alike
    assert (peaks[one == 1] > 1.5).all()


def test_the_top_heads_alone_count():
    backbone = planted(CASES["vit"][0])
    clips, _ = marked_clips(backbone, CASES["vit"][1][0], every=5)
    weights = {Unit(0, "attention", 0): 0.4, Unit(0, "attention", HEAD): 0.5, Unit(1, "attention", 0): 0.3}
    targets = torch.zeros(len(clips), dtype=torch.int64)
    top = attribute(RelevantHeads(top=1, weights=weights), backbone, clips, targets).cells.values
    only = attribute(RelevantHeads(weights={Unit(0, "attention", HEAD): 0.5}), backbone, clips, targets).cells.values
    assert torch.equal(top, only)


def test_methods_are_read_by_name_with_options():
    staa, raw = read_methods(["staa:lam=1.5:window=5:enhanced=false", {"name": "raw", "options": {"layer": 2}}])
    assert (staa.lam, staa.window, staa.enhanced, raw.layer) == (1.5, 5, False, 2)
    assert label_of(staa) == "staa enhanced=False lam=1.5 window=5"
    assert label_of(raw) == "raw layer=2"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("shap2", "Unknown attribution method 'shap2'; known are staa, raw, rollout"),
        ("staa:gamma=1", "staa has no option 'gamma'; its options are layer, enhanced, threshold, lam, window"),
        ("staa:lam=much", r"staa.lam must be of type float, got 'much'"),
        ("staa:window=2", "an odd number of frames, got 2"),
        ("staa:threshold=mean", "deviation or percentile, got 'mean'"),
        ("staa:lam", "Expected an option of staa as name=value"),
        ("relevant_heads:weights=3", "has no option 'weights'"),
        ("untrained:of=untrained", "control of another method; got itself"),
        ("untrained:of=magic", "Unknown attribution method 'magic'"),
        ({"options": {}}, "Expected a method as"),
    ],
)
def test_what_cannot_be_read_is_said(asked, message):
    with pytest.raises(ValueError, match=message):
        read_method(asked)


def test_what_cannot_run_says_why(backbone):
    with pytest.raises(ValueError, match=r"no layer 99; its layers are 0, 1"):
        read_method("raw:layer=99").check(backbone)
    with pytest.raises(ValueError, match=r"needs the relevance of the heads\. Score them first"):
        METHODS["relevant_heads"]().check(backbone)
    usable, refused = usable_methods(backbone)
    assert {m.name for m in usable} | set(refused) == set(METHODS)
    without = backbone.without_heads(backbone.units("heads"))
    for name in ("raw", "staa", "chefer", "legrad", "relevant_heads"):
        with pytest.raises(ValueError, match=r"head|relevance"):
            METHODS[name]().check(without)


def test_pruned_models_work(backbone, clips):
    units = backbone.units("heads")
    pruned = copy.deepcopy(backbone).without_heads(units[1:2])
    layer = next(info.index for info in reversed(backbone.layers) if info.removable)
    pruned = pruned.without([layer])
    for method in usable_methods(pruned)[0]:
        attribute(built(method.name, pruned), pruned, clips[:1], torch.tensor([0]))
