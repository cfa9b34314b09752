from dataclasses import replace

import pytest
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

from sightline.backbones import Backbone, Observer, build_backbone
from sightline.backbones.families.timesformer import TimeSformer, TimeSformerConfig
from sightline.types import ModelRecord, Unit
from tests.conftest import randomise

IDENTITY = ModelRecord(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
TINY = TimeSformerConfig(frames=4, size=24, num_classes=5, patch=8, width=32, depth=3, heads=4)
RENAMED = (
    ("timesformer.embeddings.cls_token", "cls_token"),
    ("timesformer.embeddings.position_embeddings", "pos_embed"),
    ("timesformer.embeddings.time_embeddings", "time_embed"),
    ("timesformer.embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("timesformer.encoder.layer", "blocks"),
    ("timesformer.layernorm", "norm"),
    ("temporal_layernorm", "temporal_norm1"),
    ("temporal_attention.attention.qkv", "temporal_attn.qkv"),
    ("temporal_attention.output.dense", "temporal_attn.proj"),
    ("temporal_dense", "temporal_fc"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.attention.qkv", "attn.qkv"),
    ("attention.output.dense", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("classifier", "head"),
)


def our_name(theirs: str) -> str:
    for old, new in RENAMED:
        theirs = theirs.replace(old, new)
    return theirs


def reference(ours: TimeSformer) -> TimesformerForVideoClassification:
    """The library's model with our weights."""
    config = ours.config
    theirs = TimesformerForVideoClassification(
        TimesformerConfig(
            image_size=config.size,
            patch_size=config.patch,
            num_frames=config.frames,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            attention_type={"divided": "divided_space_time", "joint": "joint_space_time"}[config.attention],
            num_labels=config.num_classes,
        )
    )
    state = ours.state_dict()
    names = {name: our_name(name) for name in theirs.state_dict()}
    assert set(names.values()) == set(state)
    theirs.load_state_dict({name: state[ours_] for name, ours_ in names.items()}, strict=True)
    return theirs.eval()


def frames_first(tokens: torch.Tensor, frames: int) -> torch.Tensor:
    """Reorder (class, H W T) to (class, T H W)."""
    patches = tokens[:, 1:].unflatten(1, (-1, frames)).transpose(1, 2).flatten(1, 2)
    return torch.cat((tokens[:, :1], patches), dim=1)


@pytest.fixture(params=["divided", "joint"])
def tiny(request: pytest.FixtureRequest) -> Backbone:
    return randomise(TimeSformer(replace(TINY, attention=request.param), IDENTITY))


@pytest.fixture
def divided() -> Backbone:
    return randomise(TimeSformer(TINY, IDENTITY))


def random_clips(backbone: Backbone, count: int = 2) -> torch.Tensor:
    spec = backbone.input_spec
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, spec.frames, spec.height, spec.width, generator=generator)


@pytest.mark.parametrize("attention", ["divided", "joint"])
@pytest.mark.parametrize(("frames", "size"), [(1, 16), (3, 24), (8, 16)])
@torch.no_grad()
def test_every_layer_equals_transformers(attention: str, frames: int, size: int):
    config = replace(TINY, attention=attention, frames=frames, size=size)
    ours = randomise(TimeSformer(config, IDENTITY))
    clips = random_clips(ours)
    theirs = reference(ours)(clips.transpose(1, 2), output_hidden_states=True)
    state = ours.embed(clips)
    # Rounding of sums in another order (and of proj and temporal_fc run as one); tokens are of order 1 to 10.
    close = {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(state.tokens, frames_first(theirs.hidden_states[0], frames), **close)
    for index in range(ours.depth):
        state = ours.run(state, index, index + 1)
        torch.testing.assert_close(state.tokens, frames_first(theirs.hidden_states[index + 1], frames), **close)
    torch.testing.assert_close(ours.classify(state), theirs.logits, rtol=1e-4, atol=1e-5)


def test_gradients_equal_transformers(tiny):
    theirs = reference(tiny)
    clips = random_clips(tiny)
    tiny(clips)[:, 1].sum().backward()
    theirs(clips.transpose(1, 2)).logits[:, 1].sum().backward()
    expected = {our_name(name): parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in tiny.named_parameters():
        # Sums over all tokens of both clips, in another order; gradients are of order 0.1 to 10.
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: n + m)


def test_size_of_the_published_model():
    with torch.device("meta"):
        model = build_backbone("timesformer_base", 20)
    # Published for 16 frames of 224 pixels: 121.28 M with 20 classes (121.57 M with the 400 of Kinetics).
    assert sum(p.numel() for p in model.parameters()) == 121_280_276
    assert model.input_spec.frames == 16
    assert [site.name for site in model.layers[0].sites] == ["temporal", "spatial"]
    assert [info.index for info in model.layers] == list(range(12))


@torch.no_grad()
def test_what_is_observed_has_its_documented_order(divided):
    """Weights times values, taken apart by hand, give the heads in the order that the layer documents."""
    observer = Observer(heads=True, attention=True, keys=True)
    clips = random_clips(divided)
    state = divided.run(divided.embed(clips), 0, 1)
    layer = divided.layer_modules()[1]
    divided.run(state, 1, 2, observer=observer)
    t, s, h, d = 4, 9, 4, 8
    temporal, spatial = observer.sites[1, "temporal"], observer.sites[1, "spatial"]
    assert temporal.attention.shape == (2, s, h, t, t)
    assert temporal.keys.shape == (2, s, h, t, d)
    assert temporal.heads.shape == (2, s * t, h, d)
    assert spatial.attention.shape == (2, t, h, 1 + s, 1 + s)
    assert spatial.keys.shape == (2, t, h, 1 + s, d)
    assert spatial.heads.shape == (2, t * (1 + s), h, d)

    place, head = 5, 2
    tokens = torch.stack([state.tokens[0, 1 + frame * s + place] for frame in range(t)])
    keys, values = layer.temporal_attn.qkv(layer.temporal_norm1(tokens)).view(t, 3, h, d)[:, 1:, head].unbind(1)
    torch.testing.assert_close(temporal.keys[0, place, head], keys, rtol=1e-5, atol=1e-5)
    expected = temporal.attention[0, place, head] @ values
    torch.testing.assert_close(temporal.heads[0, place * t : (place + 1) * t, head], expected, rtol=1e-5, atol=1e-5)

    state = layer.project(state, "temporal", layer.attend(state, "temporal"))
    frame = 3
    tokens = torch.cat((state.tokens[0, :1], state.tokens[0, 1 + frame * s : 1 + (frame + 1) * s]))
    keys, values = layer.attn.qkv(layer.norm1(tokens)).view(1 + s, 3, h, d)[:, 1:, head].unbind(1)
    torch.testing.assert_close(spatial.keys[0, frame, head], keys, rtol=1e-5, atol=1e-5)
    rows = slice(frame * (1 + s), (frame + 1) * (1 + s))
    expected = spatial.attention[0, frame, head] @ values
    torch.testing.assert_close(spatial.heads[0, rows, head], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_temporal_attention_leaves_the_class_token_alone(divided):
    state = divided.embed(random_clips(divided))
    layer = divided.layer_modules()[0]
    attended = layer.attend(state, "temporal")
    assert torch.equal(layer.project(state, "temporal", attended).tokens[:, 0], state.tokens[:, 0])
    assert (layer.contribution(state, "temporal", attended, 0)[:, 0] == 0).all()


@torch.no_grad()
def test_all_heads_of_all_sites_can_go(tiny):
    clips = random_clips(tiny)
    gates = {(u.layer, u.site): torch.zeros(4) for u in tiny.units("heads")}
    smaller = tiny.without_heads(tiny.units("heads"))
    torch.testing.assert_close(smaller(clips), tiny(clips, gates=gates), rtol=1e-4, atol=1e-5)
    assert smaller.units("heads") == []
    smaller(clips, observer=Observer(heads=True, attention=True, keys=True))


@torch.no_grad()
def test_heads_keep_their_original_index(divided):
    smaller = divided.without_heads([Unit(1, "temporal", 0), Unit(1, "temporal", 2), Unit(1, "spatial", 3)])
    assert smaller.layers[1].sites[0].heads == (1, 3)
    assert smaller.layers[1].sites[1].heads == (0, 1, 2)
    again = smaller.without_heads([Unit(1, "temporal", 1)])
    clips = random_clips(divided)
    gates = {(1, "temporal"): torch.tensor([0.0, 0, 0, 1]), (1, "spatial"): torch.tensor([1.0, 1, 1, 0])}
    torch.testing.assert_close(again(clips), divided(clips, gates=gates), rtol=1e-4, atol=1e-5)


def test_positions_of_other_sizes_are_interpolated(divided):
    bigger = TimeSformer(replace(TINY, frames=8, size=48), IDENTITY)
    tensors, said = bigger.adapt(divided.state_dict())
    assert said == [
        "time_embed was interpolated from 4 to 8 frames (nearest).",
        "pos_embed was interpolated from 3x3 to 6x6 patches (bicubic).",
    ]
    bigger.load_state_dict(tensors, strict=True)
    assert torch.equal(bigger.time_embed, divided.time_embed.repeat_interleave(2, dim=1))
    assert torch.equal(bigger.pos_embed[:, 0], divided.pos_embed[:, 0])
    # A field that grows linearly from left to right still does so between the outermost cells' centres.
    ramp = torch.tensor([0.0, 1.0, 2.0]).repeat(3).view(1, 9, 1).expand(1, 9, 32)
    tensors, _ = bigger.adapt({"pos_embed": torch.cat((torch.full((1, 1, 32), 9.0), ramp), dim=1)})
    grid = tensors["pos_embed"][0, 1:, 0].view(6, 6)
    assert (grid.diff(dim=1) > 0).all()
    torch.testing.assert_close(grid.diff(dim=0), torch.zeros(5, 6), rtol=0, atol=1e-6)
    torch.testing.assert_close(grid.mean(), torch.tensor(1.0), rtol=0, atol=1e-5)


def test_fitting_positions_stay_as_they_are(divided):
    state = divided.state_dict()
    tensors, said = TimeSformer(TINY, IDENTITY).adapt(state)
    assert said == []
    assert all(tensors[name] is tensor for name, tensor in state.items())
    with pytest.raises(ValueError, match=r"10 patch positions.*expected 3x3"):
        divided.adapt({"pos_embed": torch.zeros(1, 11, 32)})


def test_wrong_configurations_are_refused():
    for change, message in [
        ({"attention": "axial"}, "'divided' or 'joint', got 'axial'"),
        ({"frames": 0}, "at least 1 frame, got frames 0"),
        ({"size": 100}, "patches of 8 pixels; size 100"),
        ({"patch": 0}, "each at least 1"),
        ({"heads": 5}, "width 32 does not divide by 5 heads"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(TINY, **change)


@torch.no_grad()
def test_half_precision_autocast_stays_near(tiny):
    clips = random_clips(tiny)
    expected = tiny(clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = tiny(clips)
    # bfloat16 keeps 8 bits: errors of some thousandths per layer, on logits of order 1.
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.1)
    assert torch.equal(tiny(clips), expected)


def test_training_steps_reach_every_parameter(tiny):
    tiny.train()
    config = replace(tiny.config, drop_path=0.5)
    model = type(tiny)(config, IDENTITY).train()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(random_clips(model, 8)).square().sum()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert sum((p.grad != 0).any() for p in model.parameters()) == len(list(model.parameters()))


@pytest.mark.slow
@torch.no_grad()
def test_compiled_model_agrees(tiny):
    clips = random_clips(tiny)
    compiled = torch.compile(tiny, fullgraph=True)
    torch.testing.assert_close(compiled(clips), tiny(clips), rtol=1e-4, atol=1e-5)
