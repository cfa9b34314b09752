import math
from dataclasses import replace

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from sightline.backbones import Backbone, Observer, build_backbone
from sightline.backbones.families.vit import ViT, ViTConfig, sinusoid_table
from sightline.types import ModelRecord, Unit
from tests.conftest import randomise

IDENTITY = ModelRecord(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
TINY = ViTConfig(frames=4, size=24, num_classes=5, patch=(2, 8, 8), width=32, depth=3, heads=4)
RENAMED = (
    ("videomae.embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("videomae.encoder.layer", "blocks"),
    ("attention.attention.query.bias", "attn.q_bias"),
    ("attention.attention.value.bias", "attn.v_bias"),
    ("attention.output.dense", "attn.proj"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("classifier", "head"),
)


def reference(ours: ViT) -> VideoMAEForVideoClassification:
    """The library's model with our weights; it has queries, keys and values apart."""
    config = ours.config
    theirs = VideoMAEForVideoClassification(
        VideoMAEConfig(
            image_size=config.size,
            patch_size=config.patch[1],
            tubelet_size=config.patch[0],
            num_frames=config.frames,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            layer_norm_eps=1e-6,
            use_mean_pooling=True,
            num_labels=config.num_classes,
        )
    ).eval()
    theirs.fc_norm.eps = 1e-6  # as in the official code; the library leaves PyTorch's default here
    state = ours.state_dict()
    renamed, used = {}, set()
    for name in theirs.state_dict():
        our_name = name
        for old, new in RENAMED:
            our_name = our_name.replace(old, new)
        parts = [part for part in ("query", "key", "value") if f"attention.attention.{part}.weight" in name]
        if parts:
            our_name = name.replace("videomae.encoder.layer", "blocks").split(".attention.")[0] + ".attn.qkv.weight"
            place = ("query", "key", "value").index(parts[0])
            renamed[name] = state[our_name].chunk(3)[place]
        else:
            renamed[name] = state[our_name]
        used.add(our_name)
    assert used == set(state)
    theirs.load_state_dict(renamed, strict=True)
    return theirs


@pytest.fixture
def tiny() -> Backbone:
    return randomise(ViT(TINY, IDENTITY))


def random_clips(backbone: Backbone, count: int = 2) -> torch.Tensor:
    spec = backbone.input_spec
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, spec.frames, spec.height, spec.width, generator=generator)


@pytest.mark.parametrize(("frames", "size", "patch"), [(2, 16, (2, 8, 8)), (8, 24, (2, 8, 8)), (3, 20, (1, 4, 4))])
@torch.no_grad()
def test_every_layer_equals_transformers(frames: int, size: int, patch: tuple[int, int, int]):
    ours = randomise(ViT(replace(TINY, frames=frames, size=size, patch=patch), IDENTITY))
    clips = random_clips(ours)
    theirs = reference(ours)(clips.transpose(1, 2), output_hidden_states=True)
    state = ours.embed(clips)
    # Rounding of sums in another order; tokens are of order 1 to 10.
    close = {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(state.tokens, theirs.hidden_states[0], **close)
    for index in range(ours.depth):
        state = ours.run(state, index, index + 1)
        torch.testing.assert_close(state.tokens, theirs.hidden_states[index + 1], **close)
    torch.testing.assert_close(ours.classify(state), theirs.logits, rtol=1e-4, atol=1e-5)


def test_keys_are_the_official_ones(tiny):
    block = {
        "norm1.weight", "norm1.bias", "attn.q_bias", "attn.v_bias", "attn.qkv.weight", "attn.proj.weight",
        "attn.proj.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight",
        "mlp.fc2.bias",
    }  # fmt: skip
    outside = {"patch_embed.proj", "fc_norm", "head"}
    expected = {f"blocks.{n}.{name}" for n in range(3) for name in block}
    assert set(tiny.state_dict()) == expected | {f"{name}.{kind}" for name in outside for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Published with the 400 classes of Kinetics: 87 M and 22 M. By hand, for width D: 12 layers of 12 D^2 + 12 D,
    # patch embedding 1536 D + D, fc_norm 2 D, classifier 400 D + 400.
    [("vit_base_videomae", 86_534_800), ("vit_small_videomae", 22_033_936)],
)
def test_sizes_of_the_published_models(name: str, parameters: int):
    with torch.device("meta"):
        model = build_backbone(name, 400)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.record.mean == (0.485, 0.456, 0.406)


def test_positions_by_hand():
    table = sinusoid_table(1568, 4)
    assert table.shape == (1, 1568, 4)
    assert table[0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    # Channels 0 and 1 turn at rate 1, channels 2 and 3 at rate 1 / 10000^(2/4).
    expected = [math.sin(1567), math.cos(1567), math.sin(15.67), math.cos(15.67)]
    torch.testing.assert_close(table[0, 1567], torch.tensor(expected), rtol=0, atol=1e-7)


@torch.no_grad()
def test_removed_heads_take_their_biases_along(tiny):
    clips = random_clips(tiny)
    smaller = tiny.without_heads([Unit(0, "attention", 1), Unit(2, "attention", 0), Unit(2, "attention", 3)])
    attn = smaller.layer_modules()[2].attn
    assert attn.heads == (1, 2)
    assert attn.q_bias.shape == attn.v_bias.shape == (16,)
    assert attn.qkv.weight.shape == (48, 32)
    gates = {(0, "attention"): torch.tensor([1.0, 0, 1, 1]), (2, "attention"): torch.tensor([0.0, 1, 1, 0])}
    torch.testing.assert_close(smaller(clips), tiny(clips, gates=gates), rtol=1e-4, atol=1e-5)
    none = tiny.without_heads(tiny.units("heads"))
    gates = {(index, "attention"): torch.zeros(4) for index in range(3)}
    torch.testing.assert_close(none(clips), tiny(clips, gates=gates), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_observed_shapes(tiny):
    observer = Observer(heads=True, attention=True, keys=True)
    tiny(random_clips(tiny), observer=observer)
    seen = observer.sites[2, "attention"]
    assert seen.heads.shape == (2, 18, 4, 8)
    assert seen.attention.shape == (2, 1, 4, 18, 18)
    assert seen.keys.shape == (2, 1, 4, 18, 8)


def test_wrong_configurations_are_refused():
    for change, message in [
        ({"frames": 5}, "tubes of 2 frames; 5 frames"),
        ({"frames": 0}, "at least 1 frame, got frames 0"),
        ({"size": 100}, "patches of 8 pixels; size 100"),
        ({"patch": (2, 8)}, r"frames, rows and columns.*got \(2, 8\)"),
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


@pytest.mark.slow
@torch.no_grad()
def test_compiled_model_agrees(tiny):
    clips = random_clips(tiny)
    compiled = torch.compile(tiny, fullgraph=True)
    torch.testing.assert_close(compiled(clips), tiny(clips), rtol=1e-4, atol=1e-5)
