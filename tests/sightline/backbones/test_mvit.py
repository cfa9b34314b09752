"""MViTv2 against torchvision's, and what is its own: shortcuts, removal, tables."""

from dataclasses import replace

import pytest
import torch
from torchvision.models.video.mvit import MSBlockConfig, mvit_v2_s
from torchvision.models.video.mvit import MViT as Reference

from sightline.backbones import Observer, build_backbone
from sightline.backbones.families.mvit import MViT
from sightline.backbones.families.mvit_config import MViTConfig
from sightline.export.counting import count_cost
from sightline.types import ModelRecord, Unit
from tests.conftest import randomise

IDENTITY = ModelRecord(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
TINY = MViTConfig(
    frames=4, size=32, width=16, depths=(1, 2), heads=(2, 4), kv_stride=(1, 4, 4), num_classes=5, drop_path=0, dropout=0
)  # fmt: skip
CASES = {
    "three stages": MViTConfig(
        frames=8, size=64, width=16, depths=(1, 2, 2), heads=(2, 2, 4), kv_stride=(1, 4, 4), num_classes=6
    ),
    # Grids of 15, 8 and 4 against nominal ones of 15, 7 and 3; keys on 4, 8, 4, 4 and 4 cells.
    "odd grids": MViTConfig(
        frames=6, size=60, width=16, depths=(1, 2, 2), heads=(1, 2, 4), kv_stride=(1, 4, 4), num_classes=6
    ),
    # Ratios of queries' to keys' cells that are no whole numbers, in time too: 7 to 3, 14 to 5.
    "odd strides": MViTConfig(
        frames=14, size=56, width=12, depths=(2, 2), heads=(1, 3), kv_stride=(3, 3, 3), num_classes=6
    ),
    "pooled in time": MViTConfig(
        frames=12, size=32, width=16, depths=(1, 2, 1), heads=(2, 4, 4), stage_stride=(2, 2, 2), kv_stride=(4, 2, 2),
        num_classes=6,
    ),
    "more keys than queries": MViTConfig(
        frames=4, size=48, width=16, depths=(1, 2), heads=(2, 4), stage_stride=(1, 4, 4), kv_stride=(1, 1, 1),
        num_classes=6,
    ),
}  # fmt: skip


def reference(config: MViTConfig) -> Reference:
    rows = [
        MSBlockConfig(s.heads, s.width_in, s.width, [3] * 3, [3] * 3, list(s.stride_q), list(s.stride_kv))
        for s in config.layer_shapes()
    ]
    return Reference(
        (config.size, config.size), config.frames, rows, residual_pool=True, residual_with_cls_embed=False,
        rel_pos_embed=True, proj_after_attn=True, dropout=config.dropout, stochastic_depth_prob=config.drop_path,
        num_classes=config.num_classes, patch_embed_stride=config.patch,
    ).eval()  # fmt: skip


def both(config: MViTConfig) -> tuple[MViT, Reference]:
    ours, theirs = MViT(config, IDENTITY), reference(config)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def clips_for(config: MViTConfig, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(batch, 3, config.frames, config.size, config.size, generator=generator)


def reference_states(theirs: Reference, clips: torch.Tensor) -> list[torch.Tensor]:
    """Tokens before the first block and after each."""
    x = theirs.pos_encoding(theirs.conv_proj(clips).flatten(2).transpose(1, 2))
    grid = (theirs.pos_encoding.temporal_size, *theirs.pos_encoding.spatial_size)
    states = [x]
    for block in theirs.blocks:
        x, grid = block(x, grid)
        states.append(x)
    return states


@pytest.fixture
def tiny() -> MViT:
    return randomise(MViT(TINY, IDENTITY))


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
@torch.no_grad()
def test_every_layer_equals_torchvision(config: MViTConfig):
    ours, theirs = both(config)
    clips = clips_for(config)
    expected = reference_states(theirs, clips)
    state = ours.embed(clips)
    for index in range(ours.depth):
        torch.testing.assert_close(state.tokens, expected[index], rtol=1e-4, atol=2e-5)
        # Rounding of sums in another order; tokens are of order 1 to 10.
        after = ours.run(state, index, index + 1)
        stepwise = ours.run(state, index, index + 1, observer=Observer(attention=True))
        torch.testing.assert_close(after.tokens, expected[index + 1], rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(stepwise.tokens, expected[index + 1], rtol=1e-4, atol=2e-5)
        state = after
    torch.testing.assert_close(ours.classify(state), theirs(clips), rtol=1e-4, atol=1e-5)


def test_the_cases_are_what_they_claim_to_be():
    odd = [(s.grid[1], s.nominal_grid[1], s.key_grid[1]) for s in CASES["odd grids"].layer_shapes()]
    assert odd == [(15, 15, 4), (15, 15, 8), (8, 7, 4), (8, 7, 8), (4, 3, 4)]
    strides = [(s.grid_after, s.key_grid) for s in CASES["odd strides"].layer_shapes()]
    assert strides[0] == ((7, 14, 14), (3, 5, 5))


def test_training_equals_torchvision_also_in_what_is_dropped():
    config = replace(CASES["odd grids"], drop_path=0.4, dropout=0.3)
    ours, theirs = both(config)
    clips, weights = clips_for(config).double(), torch.randn(2, config.num_classes, dtype=torch.double)
    gradients = []
    for model in (ours.double().train(), theirs.double().train()):
        torch.manual_seed(11)
        (model(clips) * weights).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        # Double precision: some gradients are mathematically zero (a bias of all keys), and only rounding in single.
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-8, atol=1e-9, msg=name)


def test_keys_and_sizes_are_torchvisions():
    with torch.device("meta"):
        ours, theirs = build_backbone("mvit_v2_s", 101), mvit_v2_s(num_classes=101)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) == 34_307_813
    ours_rates = [b.stochastic_depth.p for b in ours.blocks.values()]
    assert ours_rates == [b.stochastic_depth.p for b in theirs.blocks]
    assert ours.head[0].p == theirs.head[0].p == 0.5


def test_multiply_adds_are_the_published_ones():
    cost = count_cost(build_backbone("mvit_v2_s", 400))
    assert cost.params == 34_537_744  # torchvision's figure
    # In 1e9, what fvcore counts for torchvision's model; ours normalises twice before the projection of a skip path.
    assert cost.macs / 1e9 == pytest.approx(64.457, abs=0.025)


@pytest.mark.slow
@torch.no_grad()
def test_logits_of_the_whole_mvit_v2_s_are_torchvisions():
    ours, theirs = randomise(MViT(MViTConfig(), IDENTITY)), mvit_v2_s().eval()
    theirs.load_state_dict(ours.state_dict())
    clips = clips_for(ours.config, 1)
    torch.testing.assert_close(ours(clips), theirs(clips), rtol=0, atol=1e-5)


def test_layers_that_change_grid_or_width_are_refused():
    with torch.device("meta"):
        backbone = build_backbone("mvit_v2_s", 5)
    assert [info.index for info in backbone.layers if not info.removable] == [1, 3, 14]
    assert [info.stage for info in backbone.layers] == [0, 1, 1, *[2] * 11, 3, 3]
    for layer, change in ((1, "width 96 on a grid of 8x56x56"), (3, "8x28x28"), (14, "width 768 on 8x7x7")):
        with pytest.raises(ValueError, match=f"mvit cannot remove layer {layer}: .*{change}"):
            backbone.without([0, layer])


@torch.no_grad()
def test_the_other_thirteen_can_go_at_once():
    full = randomise(build_backbone("mvit_v2_s", 3, {"frames": 2, "size": 32}))
    gone = [info.index for info in full.layers if info.removable]
    assert len(gone) == 13
    smaller = full.without(gone)
    assert {key.split(".")[1] for key in smaller.state_dict() if key.startswith("blocks")} == {"1", "3", "14"}
    clip = torch.rand(1, 3, 2, 32, 32)
    assert torch.equal(smaller(clip), full(clip, skip=set(gone)))
    for index, layer in smaller.layer_modules().items():
        assert layer.block is smaller.blocks[str(index)]
        assert layer.block is not full.blocks[str(index)]


@pytest.mark.parametrize("layer", [0, 1, 2])
@torch.no_grad()
def test_ablating_a_layer_keeps_the_skip_path_only(layer: int):
    ours, theirs = both(TINY)
    block = theirs.blocks[layer]
    for last in (block.attn.project[0], block.mlp[3]):  # what torchvision's branches end with
        last.weight.zero_()
        last.bias.zero_()
    clips = clips_for(TINY)
    torch.testing.assert_close(ours(clips, skip={layer}), theirs(clips), rtol=1e-4, atol=1e-5)
    state = ours.run(ours.embed(clips), 0, layer)
    after = ours.layer_modules()[layer].shortcut(state)
    assert after.grid == ((2, 8, 8) if layer == 0 else (2, 4, 4))
    torch.testing.assert_close(after.tokens, reference_states(theirs, clips)[layer + 1], rtol=1e-4, atol=1e-5)


def test_tables_of_other_sizes_are_interpolated():
    small, large = randomise(MViT(TINY)), MViT(replace(TINY, frames=8, size=64, num_classes=9))
    tensors, sentences = large.adapt(small.state_dict())
    assert sentences == [
        "Relative positions in height (rel_pos_h) of 3 layers were interpolated linearly from 15 to 31, 7 to 15 rows.",
        "Relative positions in width (rel_pos_w) of 3 layers were interpolated linearly from 15 to 31, 7 to 15 rows.",
        "Relative positions in time (rel_pos_t) of 3 layers were interpolated linearly from 3 to 7 rows.",
    ]
    fits = {k: v for k, v in tensors.items() if k not in large.classifier_keys()}
    missing, unexpected = large.load_state_dict(fits, strict=False)
    assert (set(missing), unexpected) == (set(large.classifier_keys()), [])
    key = "blocks.0.attn.rel_pos_t"
    # From 3 to 7 rows, the centre of new row i lies at (i + 0.5) * 3 / 7 - 0.5 among the old ones, kept within them.
    old, new = small.state_dict()[key], tensors[key]
    places = ((torch.arange(7) + 0.5) * 3 / 7 - 0.5).clamp(0, 2)
    low = places.floor().long()
    part = (places - low)[:, None]
    by_hand = old[low] * (1 - part) + old[(low + 1).clamp(max=2)] * part
    torch.testing.assert_close(new, by_hand, rtol=1e-5, atol=1e-6)
    same, none = small.adapt(small.state_dict())
    assert none == []
    assert all(same[k] is v or torch.equal(same[k], v) for k, v in small.state_dict().items())


def test_impossible_configurations_are_refused():
    cases = {
        "frames must be a multiple of 2": {"frames": 15},
        "got 16 frames of 222 pixels": {"size": 222},
        "2 frames of 32 pixels at least, got 16 frames of 16 pixels": {"size": 16},
        "16 frames of 32 pixels at least": {"frames": 8, "stage_stride": (2, 2, 2)},
        "same number of stages": {"heads": (1, 2)},
        "each takes a layer": {"depths": (1, 0, 11, 2)},
        "got 5 heads for a width of 192 in stage 1": {"heads": (1, 5, 4, 8)},
        "stage_stride must consist of 1 and even numbers": {"stage_stride": (1, 3, 3)},
        "kv_stride must be three positive integers": {"kv_stride": (1, 0, 8)},
        "patch must be three positive integers": {"patch": (2, 4)},
    }
    for message, options in cases.items():
        with pytest.raises(ValueError, match=message):
            build_backbone("mvit_v2_s", 5, options)


def test_a_state_that_is_not_the_layers_is_refused(tiny: MViT):
    state = tiny.embed(clips_for(TINY))
    with pytest.raises(ValueError, match=r"Layer 2 of MViT takes a grid of \(2, 4, 4\), got \(2, 8, 8\)"):
        tiny.run(state, 2)


def test_autocast_to_bfloat16_trains_and_stays_near(tiny: MViT):
    clips = clips_for(TINY)
    with torch.no_grad():
        expected = tiny(clips)
    with torch.autocast("cpu", torch.bfloat16):
        logits = tiny(clips)
    assert logits.dtype == torch.bfloat16
    # Eight bits of mantissa, through three layers.
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()
    logits.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in tiny.parameters())
    smaller = tiny.without_heads([Unit(1, "attention", 2)])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(smaller(clips, observer=Observer(attention=True))).all()


def test_a_whole_model_in_half_precision(tiny: MViT):
    clips = clips_for(TINY)
    with torch.no_grad():
        expected = tiny(clips)
        half = tiny.bfloat16()(clips.bfloat16())
    assert (half.float() - expected).abs().max() < 0.1 * expected.abs().max()


@torch.no_grad()
def test_exported_program_equals_eager_and_leaves_the_model_usable(tiny: MViT):
    clips = clips_for(TINY)
    before = tiny(clips)
    program = torch.export.export(tiny, (clips,))
    torch.testing.assert_close(program.module()(clips), before, rtol=1e-4, atol=1e-5)
    assert torch.equal(tiny(clips), before)
